"""A run's log: one line a step, nothing of the clock in the metrics, cut back exactly on a resume."""

import errno
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from actors.group import Done
from framework.analysis.alarms import SIGNALS
from framework.errors import RunError, UserError
from framework.measurement import Measurement
from framework.methods import Online
from framework.training.policy_update import UpdateReport
from framework.types import Scores
from jobs import run_log
from jobs.roles import Roles
from jobs.run_log import RunLog, check_log
from jobs.run_state import RunState
from jobs.verbs.show import Bars


class _Roles:
    def timings(self, step, step_seconds, log_seconds):
        return {"seconds": step_seconds}


@pytest.fixture
def write(make_shaped):
    """Write the steps `start:stop` of a run."""

    def steps(run, start, stop, gold_every=1, show=None, spread=0.0, encodings=2, group=(0, 1)):
        mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
        log = RunLog(run, _Roles(), start, show)
        for step in range(start, stop):
            shaped = make_shaped(mask, torch.full((2, 3), float(step)))
            rollout = replace(
                shaped.rollout, step=step, logprobs=torch.full((2, 3), -1.0) * mask, group=torch.tensor(group)
            )
            shaped = replace(
                shaped, rollout=rollout, kl_nats=torch.tensor([1.0, 3.0]), reward=torch.tensor([0.5, 0.75])
            )
            proxy = torch.tensor([2.0, 4.0])
            exact_kl = torch.tensor([1.0, 2.0]) if step == 0 else None
            values = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]) * (1 + step * spread)
            scores = Scores(values, 0, torch.tensor([[1.0, 2.0], [3.0, 6.0]])[:encodings])
            gold = torch.tensor([0.5, 1.5]) if step % gold_every == 0 else None
            state = replace(RunState.start(Online()), step=step)
            reference = rollout.logprobs - torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
            measured = Measurement(rollout, reference, scores, proxy, gold, exact_kl)
            log.step(state, measured, shaped, UpdateReport({"loss": 0.1}, 1))
        log.close()

    return steps


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_is_one_line_with_hand_worked_figures(tmp_path, write):
    write(tmp_path, 0, 2, gold_every=2)
    first, second = _lines(tmp_path / "metrics.jsonl")
    assert first["step"] == 0
    assert first["proxy"] == 3.0
    assert first["reward"] == 0.625
    assert first["heads"] == [0.5, 2.5, 4.5]
    assert first["disagreement"] == pytest.approx((8 / 3) ** 0.5)  # population deviation of 0, 2, 4
    assert first["gold"] == 1.0
    assert first["gold_se"] == pytest.approx(0.5)  # sqrt(0.5) / sqrt(2)
    assert first["head_correlation"] == pytest.approx(1.0)  # over two rows any two heads agree
    assert first["length_correlation"] == pytest.approx(-1.0)  # 3 tokens earn 2.0, and 1 earns 4.0
    assert first["feature_distance"] == 3.0  # of rows 2 and 4, each the mean over two encodings
    assert first["kl_exact_nats"] == 1.5
    assert first["kl_exact_nats_se"] == pytest.approx(0.5)
    assert second["kl_exact_nats"] is second["kl_exact_nats_se"] is None
    assert first["kl_nats"] == 2.0
    assert first["kl_nats_se"] == pytest.approx(1.0)  # sqrt(2) / sqrt(2)
    assert first["kl_per_token"] == 1.0  # 4 nats over 4 tokens
    assert first["entropy"] == 1.0
    assert first["response_tokens"] == 2.0
    assert first["loss"] == 0.1
    assert second["gold"] is second["gold_se"] is None


def test_rows_of_one_prompt_tell_no_standard_error(tmp_path, write):
    write(tmp_path, 0, 1, group=(4, 4))
    (record,) = _lines(tmp_path / "metrics.jsonl")
    assert record["gold"] is not None
    assert [record[key] for key in ("gold_se", "kl_nats_se", "kl_exact_nats_se")] == [None] * 3


def test_exact_kl_is_asked_of_different_prompts_first(make_rollout):
    asked = []
    roles = Roles(
        SimpleNamespace(exact_kl=lambda few, reference: asked.append(few)),
        SimpleNamespace(full_logprobs=lambda few: Done(None)),
        None,
        None,
        exact_kl_rows=3,
    )
    roles.exact_kl(make_rollout(torch.ones(6, 2).bool(), group=[0, 0, 1, 1, 2, 2]), when=True)
    assert asked[0].group.tolist() == [0, 1, 2]


def test_metrics_hold_nothing_of_the_clock(tmp_path, write):
    write(tmp_path / "a", 0, 3)
    write(tmp_path / "b", 0, 3)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert not any("second" in key for key in _lines(tmp_path / "a/metrics.jsonl")[0])
    assert all("seconds" in record for record in _lines(tmp_path / "a/timings.jsonl"))


def test_rollouts_are_one_file_a_step_with_every_heads_score(tmp_path, write):
    write(tmp_path, 0, 2, gold_every=2)
    names = sorted(p.name for p in (tmp_path / "rollouts").iterdir())
    assert names == ["step_000000.parquet", "step_000001.parquet"]
    rows = pq.read_table(tmp_path / "rollouts" / names[0]).to_pylist()
    assert [row["tokens"] for row in rows] == [3, 1]
    assert [row["proxy"] for row in rows] == [2.0, 4.0]
    assert [row["reward"] for row in rows] == [0.5, 0.75]  # what the transforms made of it
    assert [row["scores"] for row in rows] == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert [row["gold"] for row in rows] == [0.5, 1.5]
    assert pq.read_table(tmp_path / "rollouts" / names[1])["gold"].null_count == 2


def test_a_resume_cuts_what_will_be_run_again(tmp_path, write):
    write(tmp_path / "whole", 0, 5)
    write(tmp_path / "resumed", 0, 4)
    write(tmp_path / "resumed", 2, 5)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed
    assert [record["step"] for record in _lines(tmp_path / "resumed/timings.jsonl")] == [0, 1, 2, 3, 4]


def test_a_line_cut_in_half_is_dropped(tmp_path, write):
    write(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "pro')
    write(tmp_path, 3, 4)
    assert [record["step"] for record in _lines(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
@pytest.mark.parametrize(
    "damage", ["rubbish", '{"step": 1, "pro', '{"proxy": 3}', "[1]", '{"step": null}', "\x00" * 8, "\udcff"]
)
def test_a_damaged_line_is_named_and_nothing_is_deleted(tmp_path, write, name, damage):
    write(tmp_path, 0, 6)
    path = tmp_path / name
    lines = path.read_text().splitlines()
    lines[1] = damage
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    before = path.read_bytes()
    for start in (4, 6):
        with pytest.raises(UserError, match=rf"{name}, line 2: .*put the line back, or delete it") as raised:
            write(tmp_path, start, 7)
        assert "\n" not in str(raised.value)
        assert path.read_bytes() == before
    path.write_text("".join(f"{line}\n" for line in lines if line != damage))
    write(tmp_path, 4, 7)
    assert [record["step"] for record in _lines(path)] == [0, 2, 3, 4, 5, 6]


def test_steps_of_two_writers_are_told_apart_before_anything_is_deleted(tmp_path, write):
    write(tmp_path, 0, 4)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[1], *lines[3:]]))
    with pytest.raises(UserError, match="line 4: step 1 stands after step 2, as where two commands wrote at once"):
        write(tmp_path, 4, 5)
    # A step that is to be run again may stand anywhere: it hides none that is not.
    path.write_text("".join([*lines[:2], lines[3], lines[2]]))
    write(tmp_path, 3, 4)
    assert path.read_text() == "".join(lines)


def test_missing_steps_are_told(tmp_path, write):
    write(tmp_path, 0, 6)
    path = tmp_path / "metrics.jsonl"
    assert check_log(tmp_path, 6) == []
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[4]]))
    (message,) = check_log(tmp_path, 6)
    assert message.startswith(f"{path} has no record of steps 1 to 3, step 5: ")


def test_a_log_that_cannot_be_cut_back_is_left_whole(tmp_path, write, monkeypatch):
    write(tmp_path, 0, 4)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def replace_file(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", replace_file)
    with pytest.raises(RunError, match=r"could not write .*metrics\.jsonl: No space left"):
        write(tmp_path, 2, 5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_without_a_cloud_there_is_no_distance(tmp_path, write):
    write(tmp_path, 0, 1, encodings=0)
    assert _lines(tmp_path / "metrics.jsonl")[0]["feature_distance"] is None


def test_a_warning_keeps_the_step_at_which_it_was_raised_across_a_resume(tmp_path, write):
    write(tmp_path / "whole", 0, 30, spread=0.1)
    write(tmp_path / "resumed", 0, 20, spread=0.1)
    write(tmp_path / "resumed", 12, 30, spread=0.1)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed
    raised = [record["warnings"]["disagreement"] for record in _lines(tmp_path / "whole/metrics.jsonl")]
    step = raised[-1]
    assert 12 < step < 30
    assert raised == [None] * step + [step] * (30 - step)
    assert _lines(tmp_path / "whole/metrics.jsonl")[-1]["warnings"]["feature_distance"] is None


def test_each_step_is_shown(tmp_path, write):
    shown = []
    write(tmp_path, 0, 2, show=lambda step, metrics: shown.append((step, metrics["proxy"])))
    assert shown == [(0, 3.0), (1, 3.0)]


def test_a_new_warning_is_one_line_on_the_terminal():
    out = io.StringIO()
    metrics = {"proxy": 1.0, "gold": None, "kl_nats": 2.0, "disagreement": 0.6123, "head_correlation": None}
    silent = dict.fromkeys(signal.name for signal in SIGNALS)
    with Progress(console=Console(file=out, width=200)) as progress:
        show = Bars(progress).run("train", 50)
        for step in (30, 31, 32):
            raised = {"disagreement": 31} if step >= 31 else {}
            show(step, metrics | {"warnings": silent | raised})
    line = "train: warning at step 31: the heads disagree more than in the first 10 steps (disagreement 0.612)"
    assert out.getvalue().count("warning") == out.getvalue().count(line) == 1


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, write, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_log.pq, "write_table", full)
    with pytest.raises(RunError, match=r"step_000000\.parquet: No space left on device") as raised:
        write(tmp_path, 0, 1)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_appended_to_is_named(tmp_path, write):
    (tmp_path / "timings.jsonl").mkdir(parents=True)
    with pytest.raises((RunError, OSError), match=r"timings\.jsonl|Is a directory"):
        write(tmp_path, 0, 1)

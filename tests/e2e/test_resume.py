"""What `--resume` goes on with: the run that was begun, perhaps elsewhere, perhaps longer, and no other."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from jobs import __main__ as cli
from tests.tiny import contents


@pytest.fixture
def run(finished, stages) -> Path:
    """A finished run of six steps, for itself."""
    shutil.copytree(finished / "train", stages / "train")
    return stages / "train"


def _edit(run: Path, change) -> None:
    tree = yaml.safe_load((run / "config.yaml").read_text())
    change(tree)
    (run / "config.yaml").write_text(yaml.safe_dump(tree))


def _lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["train"]["update"]["optimizer"].update(lr=0.5), "train.update.optimizer.lr: 0.5, it began"),
        (lambda tree: tree.update(seed=7), "seed: 7, it began with its default"),
        (lambda tree: tree["train"].update(steps=9), "train.steps: 9, it began with 6"),
        (lambda tree: tree["sft"].update(steps=31), "sft.steps: 31, it began with 30"),
        (lambda tree: tree.clear() or tree.update(backend="inline"), "; and "),
    ],
)
def test_an_edited_configuration_is_refused_with_what_differs(run, fails, change, words):
    before = contents(run)
    _edit(run, change)
    line = fails("train", "--resume", run, code=2)
    assert f"{run / 'config.yaml'} is not what this run began with (" in line and words in line
    line = fails("train", "--resume", run, "train.steps=9", code=2) if "train.steps" not in words else words
    assert words in line
    assert contents(run) == before


def test_an_emptied_configuration_is_refused(run, fails):
    (run / "config.yaml").write_text("\n")
    assert f"{run / 'config.yaml'} is empty" in fails("train", "--resume", run, code=2)


def test_an_old_run_without_settings_is_still_compared(run, fails):
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["settings"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["train", "--resume", str(run)]) == 0
    _edit(run, lambda tree: tree.update(seed=7))
    assert "is not what this run began with" in fails("train", "--resume", run, code=2)


def test_another_configuration_in_the_folder_says_what_differs(config, run, fails):
    line = fails("train", config, "train.kl.coef=0.5", "--out", run.parent, code=2)
    assert "holds a run of another configuration (train.kl.coef: 0.5, it began with its default)" in line


@pytest.mark.parametrize(
    "killed_before",
    [None, *(pytest.param(name, marks=pytest.mark.slow) for name in ("fingerprint.txt", "manifest.json"))],
)
def test_a_run_becomes_longer_and_is_what_a_longer_one_would_have_been(
    config, run, stages, tmp_path, fails, monkeypatch, killed_before
):
    before = _lines(run)
    out = tmp_path / "longer"
    shutil.copytree(stages, out, ignore=shutil.ignore_patterns("train"))
    assert cli.main(["train", str(config), "train.steps=9", "--out", str(out)]) == 0

    if killed_before:
        from jobs import run_folder

        plain = run_folder.write_text

        def write(path: Path, text: str) -> None:
            if path.name == killed_before:
                raise KeyboardInterrupt
            plain(path, text)

        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "write_text", write)
            assert cli.main(["train", "--resume", str(run), "train.steps=9"]) == 130
        assert "train.steps: 9, it began with 6" in fails("train", "--resume", run, code=2)
    assert cli.main(["train", "--resume", str(run), "train.steps=9"]) == 0

    assert _lines(run)[:6] == before
    assert _lines(run)[6:] == _lines(out / "train")[6:]
    assert len(_lines(run)) == json.loads((run / "summary.json").read_text())["steps"] == 9
    ours, theirs = contents(run), contents(out / "train")
    assert {name: ours[name] for name in ours if "checkpoints" in name} == {
        name: theirs[name] for name in theirs if "checkpoints" in name
    }
    assert (run / "fingerprint.txt").read_bytes() == (out / "train" / "fingerprint.txt").read_bytes()
    assert cli.main(["train", str(config), "train.steps=9", "--out", str(stages)]) == 0
    assert "can only become longer" in fails("train", "--resume", run, "train.steps=8", code=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.update.optimizer.decay=linear"], "optimizer.decay falls to zero at its last step"),
        (["train.gold_every=2", "train.stop_at_gold_turn.measurements=1"], "has looked at the gold of its last step"),
    ],
)
def test_a_run_that_aims_at_its_end_cannot_become_longer(config, stages, fails, settings, words):
    run = stages / "train"
    assert cli.main(["train", str(config), "train.steps=4", *settings, "--out", str(stages)]) == 0
    assert words in fails("train", "--resume", run, "train.steps=9", code=2)
    assert cli.main(["train", "--resume", str(run), "train.steps=4"]) == 0


def test_backend_and_layout_may_differ_and_must_be_valid(run, fails):
    (run / "summary.json").unlink()
    assert cli.main(["train", "--resume", str(run), "backend=inline", "cluster=one_gpu"]) == 0
    assert "backend" in fails("train", "--resume", run, "backend=rai", code=2)


def test_lost_lines_are_told_of_by_resume_summary_and_report(run, capsys):
    lines = _lines(run)
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in (lines[0], *lines[3:5])))
    (run / "summary.json").unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "has no record of steps 1 to 2, step 5" in " ".join(capsys.readouterr().out.split())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["gaps"] == [[1, 2], [5, 5]] and summary["steps"] == 3 and summary["tokens_generated"] is None
    assert "has no record of steps 1 to 2, step 5" in (run / "report.html").read_text()
    assert _lines(run) == [lines[0], *lines[3:5]]


def test_a_run_without_gaps_says_nothing_of_them(run):
    assert "gaps" not in json.loads((run / "summary.json").read_text())
    assert cli.main(["report", str(run)]) == 0
    assert "has no record" not in (run / "report.html").read_text()


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_damaged_line_stops_a_resume_with_the_way_to_mend_it(run, fails, is_finished):
    lines = _lines(run)
    (run / "summary.json").unlink()
    if not is_finished:
        shutil.rmtree(run / "checkpoints" / "step_6")
    damaged = "".join(f"{line}\n" for line in [*lines[:2], lines[2][:-9], *lines[3:]])
    (run / "metrics.jsonl").write_text(damaged)
    line = fails("train", "--resume", run, code=2)
    assert f"{run / 'metrics.jsonl'}, line 3: not JSON" in line and "put the line back, or delete it" in line
    assert (run / "metrics.jsonl").read_text() == damaged
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert _lines(run) == lines


@pytest.mark.parametrize("resumed", [True, False])
def test_a_function_that_failed_before_the_first_row_can_be_mended(
    config, stages, fails, tmp_path, monkeypatch, resumed
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own, name = tmp_path / f"own_{resumed}.py", f"own_{resumed}"
    words = [config, f"golds={{own: {{kind: python, function: '{name}:score'}}}}", "--out", stages]
    own.write_text("def score(prompts, responses):\n    return [len(text) / 0 for text in responses]\n")
    line = fails("train", *words, code=1)
    assert "no checkpoint was written yet" in line and f"--resume {stages / 'train'}" in line
    own.write_text("def score(prompts, responses):\n    return [len(text) / 1 for text in responses]\n")
    monkeypatch.delitem(sys.modules, name)
    again = ["train", "--resume", stages / "train"] if resumed else ["train", *words]
    assert cli.main([str(word) for word in again]) == 0
    assert len(_lines(stages / "train")) == 6
    own.write_text("def score(prompts, responses):\n    return [len(text) / 2 for text in responses]\n")
    assert "a file that it names has changed" in fails("train", "--resume", stages / "train", code=2)

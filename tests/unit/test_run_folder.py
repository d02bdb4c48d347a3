"""A run folder: what is read of it, and what is said where it is broken."""

import json

import numpy as np
import pytest

from framework.analysis.run_folder import load_run, read_origin
from framework.errors import UserError
from tests.unit.fake_run import write_fake_run


def test_the_gap_starts_at_the_initial_policys_means(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=12, rows=64, rollouts=True)
    origin = read_origin(folder)
    assert origin is not None
    assert origin.gap(origin.proxy_mean, origin.gold_mean) == 0
    one_up = origin.gap(origin.proxy_mean + origin.proxy_std, origin.gold_mean)
    assert one_up == pytest.approx(1)


def test_there_is_no_gap_without_gold_or_rollouts(tmp_path):
    assert read_origin(write_fake_run(tmp_path / "a", steps=3, gold_every=None)) is None
    run = load_run(write_fake_run(tmp_path / "b", steps=3, rollouts=False))
    assert np.isnan(run.series("gap")).all()


def test_an_interrupted_last_line_is_left_out_and_a_rerun_step_replaced(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=4)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 2, "proxy": 77}) + '\n{"step": 9, "pro')
    run = load_run(folder)
    assert run.series("step").tolist() == [0, 1, 2, 3]
    assert run.series("proxy")[2] == 77


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", "", "holds no step"),
        ("metrics.jsonl", '{"step": 0}\nrubbish\n{"step": 1}\n', "line 2"),
        ("metrics.jsonl", "[1]\n", "expected an object"),
        ("config.yaml", "a: [", "not YAML"),
        ("manifest.json", "{", "not JSON"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, message):
    folder = write_fake_run(tmp_path / "run", steps=2)
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_run(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        load_run(tmp_path)

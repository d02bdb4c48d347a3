"""A whole online run through Ray actors: the numbers are those of an inline run, byte for byte."""

import pytest

from jobs.train import RunContext, resume_run, start_run
from tests.tiny import contents, make_tiny

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def inline(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("inline") / "train"
    start_run(tiny.cfg, run, tiny.policy, tiny.reward, RunContext())
    return contents(run)


@pytest.mark.parametrize("layout", ["laptop", "one_gpu", "four_gpu"])
def test_ray_equals_inline_on_every_shipped_layout(tiny, inline, tmp_path, layout):
    run = tmp_path / "train"
    cfg = tiny.but(backend="ray", cluster=layout)
    start_run(cfg, run, tiny.policy, tiny.reward, RunContext())
    assert contents(run) == inline


def test_replicated_scorers_equal_single_ones(tiny, inline, tmp_path):
    layout = tmp_path / "replicas.yaml"
    layout.write_text("roles:\n  reference: {replicas: 2, cpus: 0.2}\n  reward: {replicas: 2, cpus: 0.2}\n")
    run = tmp_path / "train"
    start_run(tiny.but(backend="ray", cluster=str(layout)), run, tiny.policy, tiny.reward, RunContext())
    assert contents(run) == inline


def test_begun_inline_and_resumed_on_ray(tiny, inline, tmp_path):
    run = tmp_path / "train"
    asked = iter(range(100))
    start_run(tiny.cfg, run, tiny.policy, tiny.reward, RunContext(stop_asked=lambda: next(asked) >= 5))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("backend: inline", "backend: ray"))
    assert resume_run(run, RunContext()).finished
    assert contents(run) == inline

"""A whole online run through Ray actors: the numbers are those of an inline run, byte for byte."""

import pytest

from jobs.run_folder import RunContext, resume_run
from tests.tiny import contents, make_tiny

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def inline(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("inline") / "train"
    tiny.run(run)
    return contents(run)


@pytest.mark.parametrize("layout", ["laptop", "one_gpu", "four_gpu"])
def test_ray_equals_inline_on_every_shipped_layout(tiny, inline, tmp_path, layout):
    run = tmp_path / "train"
    tiny.run(run, backend="ray", cluster=layout)
    assert contents(run) == inline


def test_replicated_scorers_equal_single_ones(tiny, inline, tmp_path):
    layout = tmp_path / "replicas.yaml"
    layout.write_text("roles:\n  reference: {replicas: 2, cpus: 0.2}\n  reward: {replicas: 2, cpus: 0.2}\n")
    run = tmp_path / "train"
    tiny.run(run, backend="ray", cluster=str(layout))
    assert contents(run) == inline


def test_begun_inline_and_resumed_on_ray(tiny, inline, tmp_path):
    run = tmp_path / "train"
    asked = iter(range(100))
    tiny.run(run, RunContext(stop_asked=lambda: next(asked) >= 5))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("backend: inline", "backend: ray"))
    assert resume_run(run, RunContext()).ended == "all steps"
    assert contents(run) == inline

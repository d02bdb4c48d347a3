"""The reward stage: what its job may rely on, and when it is made again."""

from pathlib import Path

import pytest

from framework.artifacts import Artifact, fingerprint
from framework.config import load_config
from jobs import chain, stages
from jobs.fit_job import RewardJob


class _StoppedError(Exception):
    pass


def _job(cfg, folder: Path) -> RewardJob:
    """The job that the stage would run."""
    seen: list[RewardJob] = []

    def run(job, progress):
        seen.append(job)
        raise _StoppedError

    parent = Artifact(folder, "f", "s", {})
    with pytest.raises(_StoppedError):
        stages.reward_stage(cfg, folder / "out", parent, parent, run=run)
    return seen[0]


def test_a_job_names_every_place_absolutely(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("judge", "rm", "encoder"):
        Path(name).mkdir()
    cfg = load_config(
        None,
        {
            "fit_reward.encoder": "encoder",
            "fit_reward.strength": {"model": "judge"},
            "fit_reward.ensemble": {"kind": "full", "members": 1, "published": ["rm", "org/model"]},
        },
    )
    job = _job(cfg, tmp_path)
    settings = job.settings
    assert job.source == str(tmp_path / "encoder")
    assert settings.strength.model == str(tmp_path / "judge")
    assert settings.ensemble.published == (str(tmp_path / "rm"), "org/model")
    assert all(place.is_absolute() for place in (job.pairs, job.out, job.unfinished))


def test_own_pairs_and_an_encoder_need_no_policy(tmp_path, monkeypatch):
    cfg = load_config(None, {"fit_reward.encoder": "e", "fit_reward.pairs": {"path": "p.parquet"}})
    asked = []
    monkeypatch.setattr(chain, "policy_stage", lambda *_: asked.append("policy"))
    monkeypatch.setattr(chain, "pairs_stage", lambda cfg, workspace, policy, progress: asked.append(policy))
    monkeypatch.setattr(chain, "reward_stage", lambda cfg, workspace, policy, *_: asked.append(policy))
    assert chain.Chain(cfg, tmp_path).reward is None
    assert asked == [None, None]


@pytest.mark.parametrize("key", ["strength", "published"])
def test_a_model_that_settings_name_is_an_input(tmp_path, key):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("one")
    named = {key: [str(folder)] if key == "published" else {"model": str(folder)}}
    before = fingerprint(named, {})
    (folder / "weights").write_text("three")
    assert fingerprint(named, {}) != before

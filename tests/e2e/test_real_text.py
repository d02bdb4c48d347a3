"""Real text and real models, in seconds: the film-review study with the smallest policy there is."""

import json
import math
import os
from pathlib import Path

import pytest

from jobs.__main__ import main

SHARED = Path(os.environ.get("GOLDILOCKS_SHARED", "../shared"))

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "models" / "stories260k").is_dir(), reason="no shared models here"),
]


def test_the_film_review_study_completes_and_its_report_opens(tmp_path):
    words = [
        "backend=inline",
        "policy.path=${GOLDILOCKS_SHARED}/models/stories260k",
        "policy.gguf_file=null",
        "instruction=null",
        "label={pairs: 32, batch: 8}",
        "fit_reward.batch=8",
        "fit_reward.epochs=1",
        "train.steps=2",
        "max_new_tokens=16",
        "precision=float32",
    ]
    out = tmp_path / "imdb"
    assert main(["study", "jobs/configs/imdb.yaml", *words, "--out", str(out)]) == 0
    curves = json.loads((out / "summary.json").read_text())["curves"]
    assert set(curves) == {"single", "ensemble"}
    outcomes = [one["outcome"] for curve in curves.values() for one in curve["outcomes"]]
    assert len(outcomes) == 2
    assert all(math.isfinite(one[key]) for one in outcomes for key in ("gold_end", "kl_nats_end"))
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "single" in page


def test_an_instruction_without_a_chat_template_is_refused(tmp_path, capsys):
    words = ["policy.path=${GOLDILOCKS_SHARED}/models/stories260k", "policy.gguf_file=null", "label.pairs=32"]
    assert main(["label", "jobs/configs/imdb.yaml", *words, "--out", str(tmp_path / "out")]) == 2
    assert "no chat template" in capsys.readouterr().err

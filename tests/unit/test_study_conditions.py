"""A study's conditions: how they cross with variants, in which order overrides apply, what is refused."""

import json
import shutil

import pytest
import yaml

from framework.config import Config, parse_config
from framework.errors import UserError
from framework.overrides import apply_overrides, parse_overrides
from jobs import __main__ as cli
from tests.tiny import TINY

STUDY = {
    "conditions": {"noisy": {"label.noise": 0.25}, "clean": {"label.noise": 0.0}},
    "variants": {"single": {}, "worst_case": {"aggregation.kind": "worst_case"}},
    "baseline": "single",
}


def _parse(*words: str) -> Config:
    return parse_config(apply_overrides(STUDY, parse_overrides(words)))


def test_without_conditions_a_run_is_named_after_its_variant():
    cfg = _parse("conditions={}")
    assert cfg.study_runs() == STUDY["variants"]
    assert cfg.study_layout() == {"single": ("", "single"), "worst_case": ("", "worst_case")}


def test_conditions_cross_with_variants():
    cfg = _parse()
    assert cfg.study_runs() == {
        "noisy-single": {"label.noise": 0.25},
        "noisy-worst_case": {"label.noise": 0.25, "aggregation.kind": "worst_case"},
        "clean-single": {"label.noise": 0.0},
        "clean-worst_case": {"label.noise": 0.0, "aggregation.kind": "worst_case"},
    }
    assert cfg.study_layout()["clean-worst_case"] == ("clean", "worst_case")
    run = cfg.variant("clean-worst_case", seed=3)
    assert (run.label.noise, run.aggregation.kind, run.seed) == (0.0, "worst_case", 3)


@pytest.mark.parametrize(
    ("condition", "variant"),
    [
        ("{label.noise: 0.1}", "{label.noise: 0.4}"),
        ("{kl.kind: budget, kl.budget: 3}", "{kl.kind: adaptive}"),
        ("{kl: {kind: budget, budget: 3}}", "{kl.kind: adaptive, kl.target: 2}"),
        ("{kl: {kind: budget, budget: 3}}", "{kl.budget: 5}"),
        ("{label.noise: 0.1, label.pairs: 900}", "{label: {pairs: 800}}"),
        ("{kl.coef: 0.5}", "{kl.kind: fixed}"),
    ],
)
def test_a_variant_has_its_way_over_its_condition(condition, variant):
    cfg = _parse(f"conditions={{c: {condition}}}", f"variants={{v: {variant}}}", "baseline=v")
    tree = cfg.model_dump(mode="json")
    one_after_the_other = apply_overrides(apply_overrides(tree, cfg.conditions["c"]), cfg.variants["v"])
    expected = parse_config(one_after_the_other | {"seed": 1})
    assert cfg.variant("c-v", seed=1) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baseline=singel"], "baseline='singel' is not a variant; variants: single, worst_case"),
        (["conditions.a/b={}"], "conditions: 'a/b' must be letters"),
        (["conditions={a: {}, a-b: {}}", "variants={b-c: {}, c: {}}", "baseline=c"], "have one name"),
        (["conditions={a: 3}"], "conditions.a=3: input should be a valid dictionary"),
    ],
)
def test_what_cannot_be_a_study_is_one_line(words, message):
    with pytest.raises(UserError) as raised:
        _parse(*words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mistake_names_condition_and_variant():
    cfg = _parse("conditions={noisy: {label.nois: 0.2}}")
    with pytest.raises(UserError, match=r"^conditions\.noisy, variants\.single: unknown key 'label\.nois'"):
        cfg.variant("noisy-single", seed=0)


def test_the_fingerprint_ignores_the_study_around_a_run():
    assert _parse().fingerprint() == Config().fingerprint()


def test_check_counts_the_crossed_runs(capsys):
    words = [
        "conditions={noisy: {label.noise: 0.25}, clean: {}}",
        "variants={a: {}, b: {}}",
        "seeds=[0, 1, 2]",
    ]
    assert cli.main(["check", *words]) == 0
    assert "2 conditions (noisy, clean) x 2 variants (a, b) x 3 seeds = 12 runs" in capsys.readouterr().out


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """A finished study of two conditions and two variants, with best-of-n."""
    folder = tmp_path_factory.mktemp("crossed")
    tree = TINY | STUDY | {"aggregation": {"kind": "mean"}, "steps": 2, "seeds": [0]}
    tree["best_of_n"] = {"prompts": 2, "samples": 4, "batch": 16}
    config, out = folder / "study.yaml", folder / "out"
    config.write_text(yaml.safe_dump(tree))
    assert cli.main(["study", str(config), "--out", str(out)]) == 0
    return config, out


def test_a_crossed_study_shares_what_its_runs_agree_on(crossed):
    _, out = crossed
    seed = out / "seed_0"
    kinds = [path.name.partition("-")[0] for path in seed.iterdir() if not (path / "train").exists()]
    # Noise changes pairs, and with them the reward model; two aggregations of one reward share its scores.
    assert sorted(kinds) == ["pairs", "pairs", "policy", "pool", "reward", "reward", "scores", "scores"]
    links = {
        name: json.loads((seed / name / "pool.json").read_text()) for name in parse_config(STUDY).study_runs()
    }
    assert links["noisy-single"] == links["noisy-worst_case"] != links["clean-single"]
    assert (seed / "clean-single" / links["clean-single"]["scores"]).is_file()


def test_a_crossed_study_is_compared_and_can_be_moved(crossed, tmp_path):
    _, out = crossed
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["variants"]) == set(parse_config(STUDY).study_runs())
    figures = summary["comparison"]["best_of_n"]["noisy"]["worst_case"]
    assert figures["win_rate"]["seeds"] == 1
    assert "By best-of-n" in (out / "report.html").read_text()
    moved = shutil.copytree(out, tmp_path / "moved")
    (moved / "summary.json").unlink()
    assert cli.main(["report", str(moved)]) == 0
    assert json.loads((moved / "summary.json").read_text()) == summary
    shutil.rmtree(moved / "seed_0" / "noisy-single")
    assert cli.main(["report", str(moved)]) == 0
    left = json.loads((moved / "summary.json").read_text())["comparison"]
    assert left["best_of_n"]["noisy"]["worst_case"]["win_rate"]["mean"] is None
    assert left["ppo"]["clean"]["worst_case"]["win_rate"]["mean"] is not None


def test_a_crossed_study_is_done_once_and_is_that_study(crossed, capsys):
    config, out = crossed
    files = [path for path in out.rglob("*") if path.is_file() and path.parent != out]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert cli.main(["study", str(config), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    for change in ("baseline=worst_case", "conditions={noisy: {label.noise: 0.3}, clean: {}}"):
        assert cli.main(["study", str(config), change, "--out", str(out)]) == 2
        assert "holds a study of another configuration" in capsys.readouterr().err

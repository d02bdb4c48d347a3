"""The runs of an experiment: their names, curves and configurations, in which order overrides apply, what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.config import Config, parse_config
from framework.ensembles import Full, SharedEncoder
from framework.errors import UserError
from framework.overrides import apply_overrides, parse_overrides
from jobs import __main__ as cli
from jobs.experiment.plan import PlannedRun, num_runs, plan_of
from tests.tiny import merged

BUDGET = {"train": {"kl": {"kind": "budget"}}}
STUDY = {
    "conditions": {"noisy": {"label.noise": 0.25}, "clean": {"label.noise": 0.0}},
    "variants": {
        "single": {},
        "worst_case": {"aggregation.kind": "worst_case", "fit_reward.ensemble.kind": "shared_encoder"},
    },
    "baseline": "single",
}


def config(sweep: dict, **more: object) -> Config:
    return parse_config(merged(BUDGET | {"sweep": sweep}, more))


def study(*words: str) -> Config:
    return parse_config(apply_overrides(STUDY, parse_overrides(words)))


def by_name(cfg: Config) -> dict[str, PlannedRun]:
    return {run.record.run: run for run in plan_of(cfg)}


# Variants and conditions


def test_without_conditions_a_run_is_named_after_its_variant():
    runs = plan_of(study("conditions={}"))
    assert [(run.record.run, run.record.condition, run.record.variant) for run in runs] == [
        ("single", "", "single"), ("worst_case", "", "worst_case")
    ]  # fmt: skip


def test_conditions_cross_with_variants():
    runs = by_name(study("seeds=[3]"))
    assert list(runs) == ["noisy-single", "noisy-worst_case", "clean-single", "clean-worst_case"]
    assert [run.record.curve for run in runs.values()] == list(runs)
    last = runs["clean-worst_case"]
    assert (last.record.condition, last.record.variant, last.record.seed) == ("clean", "worst_case", 3)
    assert (last.cfg.label.noise, last.cfg.aggregation.kind, last.cfg.seed) == (0.0, "worst_case", 3)
    assert (last.record.method, last.record.point, last.record.settings) == ("online", "", {})


@pytest.mark.parametrize(
    ("condition", "variant"),
    [
        ("{label.noise: 0.1}", "{label.noise: 0.4}"),
        ("{train.kl.kind: budget, train.kl.budget: 3}", "{train.kl.kind: adaptive}"),
        ("{train.kl: {kind: budget, budget: 3}}", "{train.kl.kind: adaptive, train.kl.target: 2}"),
        ("{train.kl: {kind: budget, budget: 3}}", "{train.kl.budget: 5}"),
        ("{label.noise: 0.1, label.pairs: 900}", "{label: {pairs: 800}}"),
        ("{train.kl.coef: 0.5}", "{train.kl.kind: fixed}"),
        ("{train.steps: 5, train.kl.coef: 0.5}", "{train.kind: online, train.steps: 7}"),
    ],
)
def test_a_variant_has_its_way_over_its_condition(condition, variant):
    cfg = study(f"conditions={{c: {condition}}}", f"variants={{v: {variant}}}", "baseline=v", "seeds=[1]")
    alone = {"seeds": [1], "variants": {}, "conditions": {}, "baseline": None, "seed": 1}
    tree = cfg.model_dump(mode="json") | alone
    one_after_the_other = apply_overrides(apply_overrides(tree, cfg.conditions["c"]), cfg.variants["v"])
    assert by_name(cfg)["c-v"].cfg == parse_config(one_after_the_other)


def test_a_variant_is_the_configuration_with_its_overrides_and_seed():
    cfg = parse_config(
        {"variants": {"a": {"train.kl.kind": "budget", "fit_reward.batch": 32}}, "train": {"steps": 7}, "seeds": [5]}
    )
    run = by_name(cfg)["a"].cfg
    assert (run.train.kl.kind, run.fit_reward.batch, run.seed, run.train.steps) == ("budget", 32, 5, 7)
    assert (run.variants, run.conditions, run.baseline, run.seeds) == ({}, {}, None, (5,))


def test_a_variant_may_name_another_ensemble_with_its_own_settings():
    variants = {"a": {"fit_reward.ensemble.kind": "shared_encoder", "fit_reward.ensemble.heads": 3}, "b": {}}
    runs = by_name(parse_config({"variants": variants, "fit_reward": {"ensemble": {"kind": "full"}}}))
    assert runs["a"].cfg.fit_reward.ensemble == SharedEncoder(heads=3)
    assert runs["b"].cfg.fit_reward.ensemble == Full()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baseline=singel"], "baseline='singel' is not a variant; variants: single, worst_case"),
        (["conditions.a/b={}"], "conditions: 'a/b' must be letters"),
        (
            ["conditions={a: {}, a-b: {}}", "variants={b-c: {}, c: {}}", "baseline=c"],
            "two runs would share the folder a-b-c",
        ),
        (["conditions={a: 3}"], "conditions.a=3: input should be a valid dictionary"),
        (
            ["conditions={noisy: {label.nois: 0.2}}"],
            "conditions.noisy, variants.single: unknown key 'label.nois'",
        ),
        (["conditions={}", "variants.single={train.kl.bugdet: 3}"], "variants.single: unknown key 'train.kl.bug"),
        (["conditions={}", "variants.single={kl.budget: 3}"], "write train.kl.budget"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_study_is_one_line(words, message):
    with pytest.raises(UserError) as raised:
        plan_of(study(*words))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_fingerprint_ignores_the_experiment_around_a_run():
    assert study().fingerprint() == Config().fingerprint()
    run = by_name(study("conditions={}", "sweep={grid: {train.steps: [160]}}"))["single-steps_160"]
    assert run.cfg.fingerprint() == Config().fingerprint()


def test_check_counts_the_crossed_runs(capsys):
    words = ["conditions={noisy: {label.noise: 0.25}, clean: {}}", "variants={a: {}, b: {}}", "seeds=[0, 1, 2]"]
    assert cli.main(["check", *words]) == 0
    assert "2 conditions x 2 variants x 3 seeds = 12 runs" in capsys.readouterr().out


# Points


def test_runs_cross_arms_points_and_seeds_and_agree_with_their_count():
    cfg = config(
        {"grid": {"train.kl.budget": [2, 8.0], "label.noise": [0, 0.25]}},
        fit_reward={"ensemble": {"kind": "shared_encoder"}},
        variants={"single": {}, "lcb": {"aggregation.kind": "worst_case"}},
        seeds=[3, 1],
    )
    runs = plan_of(cfg)
    assert len(runs) == num_runs(cfg) == 16
    assert len({run.id for run in runs}) == 16
    assert [run.record.seed for run in runs] == [3] * 8 + [1] * 8
    assert [run.record.run for run in runs[:3]] == [
        "single-budget_2-noise_0",
        "single-budget_2-noise_0.25",
        "single-budget_8-noise_0",
    ]
    assert {run.record.curve for run in runs} == {
        "single, label.noise=0", "single, label.noise=0.25", "lcb, label.noise=0", "lcb, label.noise=0.25"
    }  # fmt: skip
    last = runs[-1]
    assert (last.record.budget, last.record.point) == (8.0, "train.kl.budget=8, label.noise=0.25")
    assert last.record.settings == {"train.kl.budget": 8.0, "label.noise": 0.25}
    assert (last.cfg.train.kl.set_point, last.cfg.label.noise, last.cfg.seed) == (8.0, 0.25, 1)
    assert last.cfg.aggregation.kind == "worst_case" and runs[0].cfg.aggregation.kind == "mean"


def test_conditions_cross_with_points_too():
    cfg = config({"grid": {"train.kl.budget": [2, 4]}}, conditions=STUDY["conditions"])
    runs = plan_of(cfg)
    assert len(runs) == num_runs(cfg) == 4
    assert [(run.record.run, run.record.curve) for run in runs] == [
        (f"{name}-run-budget_{budget}", f"{name}-run") for name in ("noisy", "clean") for budget in (2, 4)
    ]
    assert [run.record.condition for run in runs] == ["noisy", "noisy", "clean", "clean"]


def test_a_run_is_the_one_that_these_overrides_would_make():
    (run,) = plan_of(config({"grid": {"train.kl.budget": [4]}}, seeds=[7]))
    alone = parse_config({"train": {"kl": {"kind": "budget", "budget": 4}}, "seed": 7, "seeds": [7]})
    assert run.cfg == alone and run.cfg.fingerprint() == alone.fingerprint()
    assert (run.record.run, run.record.curve, run.id) == ("run-budget_4", "run", "run-budget_4-seed_7")


def test_keys_that_share_a_last_part_are_written_out_and_odd_values_are_hashed():
    lr = {"train.kl.gain": 0.3, "train.update.optimizer.lr": 1e-4, "sft.optimizer.lr": 2e-4}
    (run,) = plan_of(config({"points": [lr]}))
    assert run.record.run == "run-gain_0.3-train-update-optimizer-lr_0.0001-sft-optimizer-lr_0.0002"
    text = "Continue: {prompt}"
    first, second = plan_of(config({"grid": {"instruction": [text, f"Please, {text} " + "x" * 200]}}))
    assert first.record.run.startswith("run-instruction_")
    assert len(first.record.run) == len("run-instruction_") + 8
    assert first.record.run != second.record.run and first.record.curve == f"run, instruction={text}"


def test_a_key_that_is_the_same_at_every_point_makes_no_curve():
    points = [{"train.kl.kind": "budget", "train.kl.budget": nats} for nats in (1, 2)]
    runs = plan_of(parse_config({"sweep": {"points": points}}))  # from kl.kind=fixed
    assert [(run.record.run, run.record.curve) for run in runs] == [
        ("run-kind_budget-budget_1", "run"),
        ("run-kind_budget-budget_2", "run"),
    ]
    points.append({"train.kl.kind": "adaptive", "train.kl.target": 2, "train.kl.horizon": 1000})
    curves = [run.record.curve for run in plan_of(parse_config({"sweep": {"points": points}}))]
    assert curves == [
        "run, train.kl.kind=budget", "run, train.kl.kind=budget", "run, train.kl.kind=adaptive, train.kl.horizon=1000"
    ]  # fmt: skip


def test_without_points_a_sweep_is_its_study():
    runs = plan_of(parse_config({"variants": {"a": {}, "b": {}}}))
    assert [(run.record.run, run.record.curve, run.record.budget) for run in runs] == [
        ("a", "a", None), ("b", "b", None)
    ]  # fmt: skip


@settings(deadline=None)
@given(values=st.lists(st.one_of(st.floats(1e-6, 1e6), st.integers(1, 10**9)), min_size=1, max_size=6, unique=True))
def test_names_are_folder_safe_unique_and_short(values):
    names = [run.record.run for run in plan_of(config({"grid": {"train.kl.budget": values}}))]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 80 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_+.") for name in names)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"grid": {"train.kl.budgt": [2]}}, "unknown key 'train.kl.budgt'; did you mean 'budget'?"),
        ({"grid": {"kl.budget": [2]}}, "'kl.budget' stands in the section of the method: write train.kl.budget"),
        ({"grid": {"train.kl.budget": [2, -1]}}, "train.kl.budget=-1"),
        ({"grid": {"train.kl.budget": [0]}}, "train.kl.budget=0"),
        ({"grid": {"train.kl.budget": ["many"]}}, "train.kl.budget='many'"),
        ({"grid": {"nothing.here": [1]}}, "unknown key 'nothing'"),
        ({"grid": {"train.kl.coef": [0.1]}}, "set train.kl.kind=fixed or stop"),
        ({"grid": {"train.kl.budget": []}}, "sweep: grid.train.kl.budget is empty"),
        ({"grid": {"train.kl.budget": [2]}, "points": [{"train.kl.budget": 2}]}, "set either grid or points"),
        ({"points": [{"train.kl.budget": 2}, {}]}, "points: one of them sets no key"),
        (
            {"points": [{"train.kl.budget": 2}, {"train.kl.budget": 2.0}]},
            'points holds {"train.kl.budget": 2} twice',
        ),
        ({"grid": {"train.kl.budget": [4, 4]}}, "grid.train.kl.budget holds 4 twice"),
        ({"grid": {"seed": [1, 2]}}, "seed cannot be swept; give the seeds as seeds=[...]"),
        ({"grid": {"sweep.limit": [1, 2]}}, "sweep.limit cannot be swept"),
        ({"grid": {"train.kl.budget": [2, 4]}, "limit": 0}, "sweep.limit=0"),
        ({"scheduler": {"kind": "hyper"}}, "sweep.scheduler.kind='hyper' is not known"),
        ({"grid": {"train.kl.budget": [2, 4]}, "scheduler": {"kind": "asha"}}, "here budget 2 has one"),
        (
            {
                "points": [
                    {"train.kl.budget": 2, "train.kl.gain": 0.1},
                    {"train.kl.budget": 2, "train.kl.gain": 0.2},
                    {"train.kl.budget": 4, "train.kl.gain": 0.1},
                ],
                "scheduler": {"kind": "asha"},
            },
            "here budget 4 has one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_in_a_line(sweep, said):
    with pytest.raises(UserError) as raised:
        plan_of(config(sweep))
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "scheduler", "accepted"),
    [
        ({"gold_at": [0, 159]}, {}, False),
        ({"gold_at": [0, 18, 159]}, {}, False),
        ({"gold_at": [0, 19, 159]}, {}, True),
        ({"gold_at": [0, 159]}, {"metric": "proxy"}, True),
        ({"gold_every": 159}, {}, False),
        ({"steps": 20}, {"metric": "proxy"}, False),
        ({"steps": 21}, {"metric": "proxy"}, True),
    ],
)
def test_asha_must_see_its_metric_before_the_end(settings, scheduler, accepted):
    grid = {"train.kl.budget": [2], "train.kl.gain": [0.1, 0.2]}
    cfg = config({"grid": grid, "scheduler": {"kind": "asha"} | scheduler}, train=settings)
    if accepted:
        assert len(plan_of(cfg)) == 2
    else:
        with pytest.raises(UserError, match=r"run-budget_2-gain_0\.1 measures no (gold|proxy) from step 19"):
            plan_of(cfg)


def test_a_budget_without_its_controller_is_told_which_kind_to_set():
    with pytest.raises(UserError) as raised:
        plan_of(parse_config({"sweep": {"grid": {"train.kl.budget": [2]}}}))
    said = "unknown key 'train.kl.budget' under train.kl.kind=fixed: set train.kl.kind=budget"
    assert said in str(raised.value)


def test_a_variant_may_set_the_controller_that_a_budget_needs():
    variants = {"a": {"train.kl.kind": "budget", "train.kl.gain": 0.1}}
    cfg = parse_config({"variants": variants, "sweep": {"grid": {"train.kl.budget": [2]}}})
    (run,) = plan_of(cfg)
    assert (run.cfg.train.kl.budget, run.cfg.train.kl.gain) == (2, 0.1)

"""`goldilocks check`: what a configuration means, before anything loads."""

from collections.abc import Sequence
from pathlib import Path

from cluster.plan import amount, bundles, capacity, explain, local_node, table
from framework.config import Config
from framework.errors import UserError
from jobs.experiment.plan import PlannedRun, num_runs, plan_of
from jobs.layouts import layout_of, load_layout


def check(cfg: Config, source: Path | None, show: bool) -> int:
    """Print the arithmetic and the placement; 2 where the layout does not fit this machine.

    Raises:
        UserError: a run that is not valid, or more runs than `sweep.limit`.
    """
    if show:
        print(cfg.to_yaml())
    plan = _plan(cfg)
    print(f"{source or 'defaults'}: valid, fingerprint {cfg.fingerprint()}")
    for line in cfg.train.describe(cfg.max_new_tokens):
        print(line)
    if cfg.variants or len(plan) > len(cfg.seeds):
        print(_experiment_arithmetic(cfg, plan))
    kind = cfg.fit_reward.ensemble.kind if cfg.reward is None else cfg.reward.kind
    print(f"reward: {cfg.num_heads} heads ({kind}), {cfg.aggregation.convention}")
    print(f"reward fit: {_fit_arithmetic(cfg)}")
    if cfg.backend == "inline":
        print("roles: all in this process")
        return 0
    spec = load_layout(cfg.cluster)
    placed = explain(bundles(spec), [local_node(spec)], spec.strategy)
    print(f"roles: layout {spec.name} on Ray\n{table(placed)}")
    return 2 if placed.problem else 0


def _plan(cfg: Config) -> list[PlannedRun]:
    """The runs of the experiment, each validated; they are counted before they are made."""
    if (count := num_runs(cfg)) > cfg.sweep.limit:
        raise UserError(
            f"the experiment has {count} runs and sweep.limit={cfg.sweep.limit}: sweep fewer points, or set "
            f"sweep.limit={count} to have them all checked"
        )
    plan = plan_of(cfg)
    for run in plan:
        run.cfg.check_scorers()
    return plan


def _experiment_arithmetic(cfg: Config, plan: Sequence[PlannedRun]) -> str:
    """The runs of an experiment, what one asks for, and how many this machine takes at a time."""
    crossed = [(len(cfg.conditions), "condition"), (len(cfg.variants), "variant")]
    crossed += [(cfg.sweep.num_points, "point")] if cfg.sweep.keys else []
    factors = " x ".join(_counted(*part) for part in [*crossed, (len(cfg.seeds), "seed")] if part[0])
    spec, layout = layout_of(plan[0].cfg)
    share = amount(sum(bundle.cpus for bundle in layout), sum(bundle.gpus for bundle in layout))
    return (
        f"an experiment: {factors} = {_counted(len(plan), 'run')}; each asks for {share}; "
        f"{capacity(layout, [local_node(spec)])} at a time on this machine"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _fit_arithmetic(cfg: Config) -> str:
    """The fits of the ensemble's recipe, and their optimiser steps where the number of pairs is known."""
    if not cfg.needs_pairs:
        return f"none; it is asked about {cfg.reference_texts} responses of the start policy first"
    fit = cfg.fit_reward
    parts = fit.ensemble.parts().values()
    what = f"{len(parts)} {'fit' if len(parts) == 1 else 'fits'} in batches of {fit.batch} pairs"
    if fit.pairs or fit.augment:
        return f"{what}; how many pairs is known when they are read"
    training = cfg.label.pairs - round(cfg.label.pairs * cfg.label.held_out)
    shares = [(part, round((part.pairs[1] - part.pairs[0]) * training)) for part in parts]
    steps = sum((part.epochs or fit.epochs) * (pairs // fit.batch) for part, pairs in shares)
    return f"{what}, about {steps} steps ({training} training pairs, the others held out by a hash)"

"""`goldilocks check`: what a configuration means, before anything loads."""

import math
from collections.abc import Sequence
from pathlib import Path

from cluster.plan import amount, bundles, capacity, explain, local_node, run_bundles, table
from cluster.spec import load_spec
from framework.config import Config
from framework.errors import UserError
from framework.sweep import Trial, num_trials, trials_of


def check(cfg: Config, source: Path | None, show: bool) -> int:
    """Print the arithmetic and the placement; 2 where the layout does not fit this machine.

    Raises:
        UserError: a variant or a trial that is not valid, or more trials than `sweep.limit`.
    """
    if show:
        print(cfg.to_yaml())
    for name in cfg.study_runs():
        cfg.variant(name, cfg.seeds[0])
    trials = _trials(cfg)
    rows, parts = cfg.rollouts, cfg.update.minibatches
    steps = cfg.update.epochs * parts
    micro = cfg.update.micro_batch or rows // parts
    print(f"{source or 'defaults'}: valid, fingerprint {cfg.fingerprint()}")
    print(
        f"a step: {cfg.prompts_per_step} prompts x {cfg.samples_per_prompt} samples = {rows} rollouts of up to "
        f"{cfg.max_new_tokens} tokens; {cfg.update.epochs} epochs x {parts} mini-batches of {rows // parts} = "
        f"{steps} optimiser steps, {-(-(rows // parts) // micro)} forward passes of {micro} rows each"
    )
    print(
        f"a run: {cfg.steps} steps = {cfg.steps * rows} rollouts, at most {cfg.steps * rows * cfg.max_new_tokens} tokens"
    )
    if cfg.variants:
        crossed = f"{len(cfg.variants)} variants ({', '.join(cfg.variants)})"
        if cfg.conditions:
            crossed = f"{len(cfg.conditions)} conditions ({', '.join(cfg.conditions)}) x {crossed}"
        print(f"a study: {crossed} x {len(cfg.seeds)} seeds = {len(cfg.study_runs()) * len(cfg.seeds)} runs")
    if trials:
        print(_sweep_arithmetic(trials))
    print(
        f"reward: {cfg.fit_reward.ensemble.num_heads} heads ({cfg.fit_reward.ensemble.kind}), {cfg.aggregation.convention}; "
        f"KL: {cfg.kl.kind}, {cfg.shaping.kind}, k1 in nats per sequence to the start policy"
    )
    print(f"reward fit: {_fit_arithmetic(cfg)}")
    if cfg.backend == "inline":
        print("roles: all in this process")
        return 0
    spec = load_spec(cfg.cluster)
    plan = explain(bundles(spec), [local_node(spec)], spec.strategy)
    print(f"roles: layout {spec.name} on Ray\n{table(plan)}")
    return 0 if plan.fits else 2


def _trials(cfg: Config) -> list[Trial]:
    """The trials of the sweep, if there is one; they are counted before they are made."""
    if not cfg.sweep.keys:
        return []
    if (count := num_trials(cfg)) > cfg.sweep.limit:
        raise UserError(
            f"the sweep has {count} trials and sweep.limit={cfg.sweep.limit}: sweep fewer points, or set "
            f"sweep.limit={count} to have them all checked"
        )
    return trials_of(cfg)


def _sweep_arithmetic(trials: Sequence[Trial]) -> str:
    """The trials of a sweep, what one asks for, and how many this machine takes at a time."""
    methods, seeds = (len({getattr(trial, name) for trial in trials}) for name in ("method", "seed"))
    crossed = [(methods, "method"), (len(trials) // (methods * seeds), "point"), (seeds, "seed")]
    if math.prod(count for count, _ in crossed) != len(
        trials
    ):  # a list of points, with more for some methods
        crossed = [(len(trials) // seeds, "point"), (seeds, "seed")]
    spec = load_spec(trials[0].cfg.cluster)
    layout = run_bundles(spec, trials[0].cfg.backend == "inline")
    share = amount(sum(bundle.cpus for bundle in layout), sum(bundle.gpus for bundle in layout))
    return (
        f"a sweep: {' x '.join(_counted(*part) for part in crossed)} = {_counted(len(trials), 'trial')}; each asks "
        f"for {share}; {capacity(layout, [local_node(spec)])} at a time on this machine"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _fit_arithmetic(cfg: Config) -> str:
    """The fits of the ensemble's recipe, and their optimiser steps where the number of pairs is known."""
    fit = cfg.fit_reward
    parts = fit.ensemble.parts().values()
    what = f"{len(parts)} {'fit' if len(parts) == 1 else 'fits'} in batches of {fit.batch} pairs"
    if fit.pairs or fit.augment:
        return f"{what}; how many pairs is known when they are read"
    training = cfg.label.pairs - round(cfg.label.pairs * cfg.label.held_out)
    shares = [(part, round((part.pairs[1] - part.pairs[0]) * training)) for part in parts]
    steps = sum((part.epochs or fit.epochs) * (pairs // fit.batch) for part, pairs in shares)
    return f"{what}, about {steps} steps ({training} training pairs, the others held out by a hash)"

"""`goldilocks check`: what a configuration means, before anything is made."""

from collections.abc import Sequence
from pathlib import Path

from cluster.plan import amount, capacity, counted, explain, fit_bundles, local_node, table
from cluster.session import connect, live_nodes
from framework.config import Config
from framework.errors import UserError
from jobs.experiment.plan import PlannedRun, num_runs, plan_of
from jobs.layouts import layout_of


def check(cfg: Config, source: Path | None, show: bool, data: bool = False, address: str | None = None) -> int:
    """Print the arithmetic and the placement; 2 where the layout does not fit this machine, or the cluster at `address`.

    With `data`, open what the configuration names, too. A UserError for a run that is not valid, more runs than
    `sweep.limit`, data or a model that is not what it should be, or no cluster at `address`.
    """
    if show:
        print(cfg.to_yaml())
    plan = _plan(cfg)
    for tracker in cfg.trackers:
        tracker.assert_ready()
    print(f"{source or 'defaults'}: valid, fingerprint {cfg.fingerprint()}")
    for line in _described(plan):
        print(line)
    if cfg.variants or len(plan) > len(cfg.seeds):
        print(_experiment_arithmetic(cfg, plan))
    if data:
        from jobs.verbs.check_data import opened  # torch, which takes seconds to import

        for line in dict.fromkeys(opened([run.cfg for run in plan])):
            print(line)
    return _place(cfg, address)


def _described(plan: Sequence[PlannedRun]) -> list[str]:
    """What is sampled and fitted, a line each; what is not so in all runs begins with the names of those where it is."""
    names: dict[str, dict[str, None]] = {}
    for run in plan:
        cfg = run.cfg
        kind = cfg.fit_reward.ensemble.kind if cfg.reward is None else cfg.reward.kind
        lines = [
            f"world: {cfg.world.kind}; policy: {cfg.policy.kind}; gold: {cfg.gold.kind}",
            f"before a run: {_stages(cfg)}",
        ]
        lines += cfg.train.describe(cfg.max_new_tokens)
        lines.append(f"reward: {counted(cfg.num_heads, 'head')} ({kind}), {cfg.aggregation.convention}")
        for line in [*lines, f"reward fit: {_fit_arithmetic(cfg)}"]:
            names.setdefault(line, {})[run.record.run] = None
    every = len({run.record.run for run in plan})
    return [
        line
        if len(own) == every
        else f"{', '.join(list(own)[:3])}{f' and {len(own) - 3} more' * (len(own) > 3)}: {line}"
        for line, own in names.items()
    ]


def _place(cfg: Config, address: str | None) -> int:
    """Print where each role and the workers of a fit would go: on this machine, or in the cluster that is asked."""
    spec, layout = layout_of(cfg)
    nodes = [local_node(spec)]
    if address:
        with connect(address, spec, namespace="check"):
            nodes = live_nodes()
    elif cfg.backend == "inline":
        print("roles: all in this process")
        return 0
    placed, fit = explain(layout, nodes, spec.strategy), explain(fit_bundles(spec), nodes, spec.strategy)
    print(f"roles: layout {spec.name} on Ray{f' at {address}' if address else ''}\n{table(placed)}")
    if fit.problem:
        print(f"the workers of a fit do not fit: {fit.problem}")
    return 2 if placed.problem or fit.problem else 0


def _stages(cfg: Config) -> str:
    """What is fitted and sampled before a run."""
    label, fit = cfg.label, cfg.fit_reward
    sft = f"{cfg.sft.steps} SFT steps of {cfg.sft.batch} texts" if cfg.sft.steps else "no SFT"
    tokens = label.max_new_tokens or cfg.max_new_tokens
    made = f"{label.pairs} pairs of answers of up to {tokens} tokens, {label.noise:.0%} of their labels flipped"
    return f"{sft}; {f'pairs of {fit.pairs.path}' if fit.pairs else made}"


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
    factors = " x ".join(counted(*part) for part in [*crossed, (len(cfg.seeds), "seed")] if part[0])
    spec, layout = layout_of(plan[0].cfg)
    share = amount(sum(bundle.cpus for bundle in layout), sum(bundle.gpus for bundle in layout))
    runs, most = counted(len(plan), "run"), capacity(layout, [local_node(spec)])
    return f"an experiment: {factors} = {runs}; each asks for {share}; {most} at a time on this machine"


def _fit_arithmetic(cfg: Config) -> str:
    """The fits of the ensemble's recipe, and their optimiser steps where the number of pairs is known."""
    if not cfg.needs_pairs:
        return f"none; it is asked about {cfg.reference_texts} responses of the start policy first"
    fit = cfg.fit_reward
    parts = fit.ensemble.parts().values()
    what = f"{counted(len(parts), 'fit')} in batches of {fit.batch} pairs"
    if fit.pairs or fit.augment:
        return f"{what}; how many pairs is known when they are read"
    training = cfg.label.pairs - round(cfg.label.pairs * cfg.label.held_out)
    shares = [(part, round((part.pairs[1] - part.pairs[0]) * training)) for part in parts]
    steps = sum((part.epochs or fit.epochs) * (pairs // fit.batch) for part, pairs in shares)
    return f"{what}, about {steps} steps ({training} training pairs, the others held out by a hash)"

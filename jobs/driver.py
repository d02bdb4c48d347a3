"""The online loop. This is the function that runs, not a picture of it."""

from collections.abc import Callable

from framework.config import Config
from framework.data.prompts import PromptStream
from jobs.checkpoint import Checkpoints
from jobs.roles import Roles
from jobs.run_log import RunLog
from jobs.run_state import RunState


def train_policy(
    cfg: Config,
    roles: Roles,
    prompts: PromptStream,
    log: RunLog,
    checkpoints: Checkpoints,
    state: RunState,
    stop_asked: Callable[[], bool],
) -> RunState:
    """Run from `state` to its end, or to the end of the step in which a stop is asked for."""
    while not state.ended(cfg) and not stop_asked():
        rollout = roles.policy.rollout(state.request(cfg, prompts)).get()
        reference = roles.reference.logprobs(rollout)  # three roles in flight at once
        scores = roles.reward.score(rollout)
        gold = roles.gold.score(rollout, when=state.gold_due(cfg))
        exact_kl = roles.exact_kl(rollout, when=state.due(cfg.exact_kl_every, cfg.steps))
        answers = roles.answers(rollout, count=cfg.needs_answers)
        proxy = cfg.aggregation(scores.get().values)
        reward = cfg.reward(rollout, proxy, answers.get(), roles.reward_reference)
        shaped = cfg.shaping(rollout, reference.get(), reward, state.kl.coef)
        report = roles.policy.update(cfg.advantage(shaped)).get()
        log.step(state, shaped, proxy, scores.get(), report, gold.get(), exact_kl)
        state = state.after(cfg, shaped, report, gold.get())
        if stop_asked() or state.ended(cfg) or state.due(cfg.save_every, cfg.steps + 1):
            checkpoints.save(state, roles.policy)
    return state

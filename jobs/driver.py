"""The online loop. This is the function that runs, not a picture of it."""

from collections.abc import Callable

from framework.config import Config
from framework.data.prompts import PromptStream
from framework.measurement import Measurement
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
    train = cfg.train
    while not state.ended(train) and not stop_asked():
        rollout = roles.policy.rollout(state.request(train, prompts)).get()
        reference = roles.reference.logprobs(rollout)  # three roles in flight at once
        scores = roles.reward.score(rollout)
        gold = roles.gold.score(rollout, when=train.gold_due(state.step))
        golds = roles.gold.others(rollout, cfg.golds_due(state.step))
        exact_kl = roles.exact_kl(rollout, when=state.due(train.exact_kl_every, train.steps))
        answers = roles.answers(rollout, count=train.needs_answers)
        proxy = cfg.aggregation(scores.get().values)
        reward = train.reward(cfg.aggregation, cfg.world, rollout, proxy, answers.get(), roles.reward_reference)
        shaped = train.shaping(rollout, reference.get(), reward, state.kl.coef)
        report = roles.policy.update(train.advantage(shaped)).get()
        measured = Measurement(rollout, reference.get(), scores.get(), proxy, gold.get(), exact_kl.get())
        log.step(state, measured.beside(golds), shaped, report)
        state = state.after(train, shaped, report, gold.get())
        if stop_asked() or state.ended(train) or state.due(train.save_every, train.steps + 1):
            checkpoints.save(state, roles.policy)
    return state

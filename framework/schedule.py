"""At which steps of a run something is done that is not done at all of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framework.config import Config


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something done `every` steps is due at this one; always at the last of `steps`. 0 is never."""
    return every > 0 and (step % every == 0 or step == steps - 1)


def gold_is_due(cfg: "Config", step: int) -> bool:
    """Whether gold is measured at this step."""
    return step in cfg.gold_at if cfg.gold_at else is_due(step, cfg.gold_every, cfg.steps)


def gold_steps(cfg: "Config") -> tuple[int, ...]:
    """The steps at which a run that is not ended early measures gold."""
    return tuple(step for step in range(cfg.steps) if gold_is_due(cfg, step))

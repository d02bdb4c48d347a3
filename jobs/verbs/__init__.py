"""What each verb prints around the stage it runs."""

from collections.abc import Sequence
from pathlib import Path

from framework.config import Config, load_config
from framework.data.paths import expand
from framework.errors import UserError
from framework.overrides import parse_overrides

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def configured(verb: str, words: Sequence[str], seed: int | None) -> tuple[Config, Path | None]:
    """The configuration that a command line asks for, and its file; a UserError where it is not valid."""
    files = [word for word in words if "=" not in word or "/" in word.partition("=")[0]]
    if len(files) > 1:
        raise UserError(f"one configuration at a time: got {', '.join(files)}")
    overrides = parse_overrides([word for word in words if word not in files])
    source = Path(expand(files[0])) if files else None
    if verb == "demo":
        if files:
            raise UserError("demo has a configuration of its own; use `goldilocks study` for yours")
        source = CONFIGS / "demo.yaml"
    if seed is not None:
        overrides |= {"seeds": [seed]} if verb in ("demo", "study", "sweep") else {"seed": seed}
    cfg = load_config(source, overrides)
    cfg.check_scorers()
    return cfg, source

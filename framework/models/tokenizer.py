"""A model's tokenizer, checked against the model before anything is spent on either."""

import hashlib
import json
import warnings
from pathlib import Path

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.huggingface import HfTokenizer


def load_tokenizer(path: str | Path, needs_end: bool = True) -> HfTokenizer:
    """The tokenizer of a hub id or folder: left-padding, with an end token and a pad token.

    An encoder that only reads text has no use for an end token: `needs_end=False`. Without a pad token the end token stands
    in, with a warning; that is safe because every mask comes from lengths, never from comparing with the pad id. A
    `UserError` where there is no tokenizer, end or pad token, or more tokens than the model beside it has.
    """
    from transformers import AutoTokenizer  # slow to import, and a configuration is checked without it

    folder = expand(str(path))
    try:
        # A folder without tokenizer files can be answered with an empty tokenizer: see below.
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no tokenizer can be loaded ({first_line(error)})") from error
    if not len(tokenizer):
        raise UserError(f"{path}: the tokenizer is empty; put the model's tokenizer files beside it")
    if needs_end and tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{path}: the tokenizer has no pad token; set pad_token in its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
        warnings.warn(f"{path}: the tokenizer has no pad token; its end token stands in", stacklevel=2)
    config = Path(folder, "config.json")
    if config.is_file():
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{config}: not JSON ({error})") from error
        # Models with several parts nest it.
        declared = settings.get("vocab_size") or settings.get("text_config", {}).get("vocab_size")
        check_sizes(tokenizer, declared, str(path))
    return tokenizer


def check_sizes(tokenizer: HfTokenizer, vocab_size: int | None, where: str) -> None:
    """A `UserError` where a tokenizer can write ids that the model has no embedding for.

    A model may have more rows than its tokenizer has tokens: many are padded to a round number.
    """
    needed = max(tokenizer.get_vocab().values()) + 1
    if vocab_size is not None and needed > vocab_size:
        raise UserError(
            f"{where}: model and tokenizer disagree in size: the model has {vocab_size} tokens and "
            f"the tokenizer needs {needed}; use the tokenizer that belongs to the model"
        )


def tokenizer_hash(tokenizer: HfTokenizer) -> str:
    """Hash of what a tokenizer makes of text: its vocabulary and its chat template."""
    text = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""What a policy goes on from: prompts as the text and the tokens that it reads, in sampling and in fitting alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from framework.data.conversations import Conversation, turns_of
from framework.errors import UserError
from framework.models.huggingface import HfTokenizer

Opening = tuple[str, bool]
"""A text that goes on, and whether a chat template wrote it: it then holds its special tokens already."""


def opening(tokenizer: HfTokenizer, prompt: str, instruction: str | None = None) -> Opening:
    """What the policy answers: a conversation, and any prompt with an instruction, through the chat template.

    The instruction stands around the last turn. Without a template a conversation is its plain rendering.

    Raises:
        UserError: an instruction and no template, or a template that refuses the conversation.
    """
    if instruction is not None and not tokenizer.chat_template:
        raise UserError("instruction is set, but the policy's tokenizer has no chat template: set instruction=null")
    if instruction is None and not (isinstance(prompt, Conversation) and tokenizer.chat_template):
        return prompt, False
    turns = turns_of(prompt)
    if instruction is not None:
        turns[-1]["content"] = instruction.replace("{prompt}", turns[-1]["content"])
    return through_template(tokenizer, turns, add_generation_prompt=True), True


def through_template(tokenizer: HfTokenizer, turns: Sequence[Mapping[str, str]], **options: Any) -> str:
    """The turns as the tokenizer's chat template writes them.

    Raises:
        UserError: the template refuses them, as some do a system turn, or two turns of one role.
    """
    from jinja2 import TemplateError  # slow to import, and most models have no template

    try:
        text: str = tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False, **options)
    except (TemplateError, ValueError) as error:  # the latter where it leaves out the reply that is to stay open
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses a conversation of {roles} "
            f"({str(error).strip()}), which begins {turns[0]['content'][:40]!r}: mend or drop such rows"
        ) from error
    return text


def open_ids(tokenizer: HfTokenizer, texts: Sequence[Opening]) -> list[list[int]]:
    """Token ids of texts that go on: what the tokenizer writes before a text is there, what closes one is not."""
    closing = _closing(tokenizer)
    found: dict[int, list[int]] = {}
    for templated in (False, True):
        which = [i for i, (_, by_template) in enumerate(texts) if by_template == templated]
        if which:
            rows = tokenizer([texts[i][0] for i in which], add_special_tokens=not templated, verbose=False)["input_ids"]
            spare = 0 if templated else closing
            found |= {i: row[: len(row) - spare] for i, row in zip(which, rows, strict=True)}
    return [found[i] for i in range(len(texts))]


def _closing(tokenizer: HfTokenizer) -> int:
    """How many tokens the tokenizer itself writes after a text, such as an end token or [SEP]."""
    special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return special[::-1].index(0) if 0 in special else 0

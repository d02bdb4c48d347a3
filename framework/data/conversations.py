"""Conversations of a preference table as plain text: a prompt, and two replies to it.

Turns are {role, content}, as in TRL's conversational format. A sole user turn is the prompt itself. Several
turns are joined as in the HH data (Bai et al. 2022, arXiv 2204.05862): `\\n\\nHuman: ` and `\\n\\nAssistant: `
before each turn, a system turn first and bare, and `\\n\\nAssistant:` at the end; the reply then begins with
a blank, so that prompt + reply is the conversation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_MARKS: Final = {"user": f"{HUMAN} ", "assistant": f"{ASSISTANT} ", "system": ""}

Replies = tuple[str, str, str]
"""A prompt and two replies to it."""


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: str
    content: str


class NotTextError(ValueError):
    """A cell that is neither text nor a conversation; the message says what it is."""


def parse_cell(value: object) -> str | list[Turn]:
    """Text as it is, or a list of {role, content} as turns.

    Raises:
        NotTextError: anything else.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise NotTextError("is missing")
    if not isinstance(value, list) or not value:
        raise NotTextError(f"holds {_kind(value)}, neither text nor a list of {{role, content}}")
    return [_turn(item) for item in value]


def parted(first: str | list[Turn], second: str | list[Turn]) -> Replies | None:
    """Two whole conversations as the prompt that they share and the two last replies.

    Plain strings part after the last `\\n\\nAssistant:` that they share, else before the word in which they first
    differ. None where they part before the last reply, so that they are no two replies to one prompt.

    Raises:
        NotTextError: nothing is shared, or a conversation does not end with a reply.
    """
    if isinstance(first, str) and isinstance(second, str):
        return _parted_strings(first, second)
    if isinstance(first, str) or isinstance(second, str):
        raise NotTextError("is text, and the other response is a conversation")
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    if not shared:
        raise NotTextError("shares no turn with the other response, so no prompt is known")
    replies = _reply(first), _reply(second)
    if len(first) != shared + 1 or len(second) != shared + 1:
        return None
    return _joined(first[:shared], *replies)


def answered(prompt: str | list[Turn], first: str | list[Turn], second: str | list[Turn]) -> Replies | None:
    """A prompt and two replies to it; replies may repeat the prompt's turns. None as in `parted`.

    Raises:
        NotTextError: a conversation that does not end with a reply, or a prompt that ends with one.
    """
    sides = [[Turn("assistant", side)] if isinstance(side, str) else side for side in (first, second)]
    if any(len(side) > 1 for side in sides):
        if isinstance(prompt, str):
            return parted(*sides)
        # Each holds the whole conversation, whose beginning the prompt holds too, or what follows it.
        return parted(*(side if side[: len(prompt)] == prompt else [*prompt, *side] for side in sides))
    replies = _reply(sides[0]), _reply(sides[1])
    return (prompt, *replies) if isinstance(prompt, str) else _joined(prompt, *replies)


def _reply(turns: Sequence[Turn]) -> str:
    """What the assistant said last.

    Raises:
        NotTextError: the last turn is not the assistant's.
    """
    if turns[-1].role != "assistant":
        raise NotTextError(f"ends with a turn of {turns[-1].role!r}, not with a reply of 'assistant'")
    return turns[-1].content


def _joined(prompt: Sequence[Turn], first: str, second: str) -> Replies:
    if prompt[-1].role == "assistant":
        raise NotTextError("is answered although its last turn is a reply of 'assistant'")
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content, first, second
    text = "".join(_MARKS[turn.role] + turn.content for turn in prompt)
    return text + ASSISTANT, f" {first}", f" {second}"


def _parted_strings(first: str, second: str) -> Replies | None:
    pairs = enumerate(zip(first, second, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
    shared = first[:same]
    cut = shared.rfind(ASSISTANT) + len(ASSISTANT)
    if ASSISTANT not in shared:
        ends = (text[same : same + 1] for text in (first, second))
        whole_words = all(not end or end.isspace() for end in ends)
        cut = len((shared if whole_words else re.sub(r"\S+\Z", "", shared)).rstrip())
    if not first[:cut].strip():
        raise NotTextError("begins unlike the other response, so no prompt is known; name the prompt's column")
    replies = first[cut:], second[cut:]
    return None if any(HUMAN in text for text in replies) else (first[:cut], *replies)


def _turn(item: object) -> Turn:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        raise NotTextError(f"holds a turn that is {_kind(item)}, not {{role, content}}")
    role, content = item["role"], item["content"]
    if role not in _MARKS:
        raise NotTextError(f"holds a turn of role {role!r}; known: {', '.join(_MARKS)}")
    if not isinstance(content, str):
        raise NotTextError(f"holds a turn of {role!r} whose content is {_kind(content)}, not text")
    return Turn(role, content)


def _kind(value: object) -> str:
    return "empty" if value is None or value == [] else type(value).__name__

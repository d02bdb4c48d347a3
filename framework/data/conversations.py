"""Conversations: how a cell is read, how a prompt of turns is kept, and how it is written as plain text.

Turns are {role, content}, as in TRL's conversational format. A model with a chat template reads them through it, all
else a plain rendering: a sole user turn as it is, several joined as in the HH data (Bai et al. 2022, arXiv 2204.05862).
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from framework.data.tables import half_character

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_MARKS: Final = {"user": f"{HUMAN} ", "assistant": f"{ASSISTANT} ", "system": "\n\n"}
_LOOKS: Final = re.compile(r"\s*\[\s*\{(?=.*?['\"]role['\"]\s*:)(?=.*?['\"]content['\"]\s*:)", re.DOTALL)
_NUMPY_GAP: Final = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|\}\s+(?=\{)""", re.DOTALL)

Replies = tuple[str, str, str]
"""A prompt and two replies to it."""


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: str
    content: str


class NotTextError(ValueError):
    """A cell that is neither text nor a conversation; the message says what it is."""


class Conversation(str):
    """A prompt of turns that awaits a reply. As text it is its plain rendering; string methods lose the turns."""

    turns: tuple[Turn, ...]

    def __new__(cls, turns: Sequence[Turn]) -> "Conversation":
        """Raises NotTextError where the last turn is a reply, or says nothing."""
        if not turns:
            raise NotTextError("holds a reply and no turn before it")
        if turns[-1].role == "assistant":
            raise NotTextError("is answered although its last turn is a reply of 'assistant'")
        if not turns[-1].content.strip():
            raise NotTextError(f"ends with an empty turn of {turns[-1].role!r}")
        sole = len(turns) == 1 and turns[0].role == "user"
        text = "".join(_MARKS[turn.role] + turn.content for turn in turns) + ASSISTANT
        bare = text.removeprefix(_MARKS["system"]) if turns[0].role == "system" else text
        made = super().__new__(cls, turns[0].content if sole else bare)
        made.turns = tuple(turns)
        return made

    def __reduce__(self) -> tuple[type["Conversation"], tuple[tuple[Turn, ...]]]:
        return Conversation, (self.turns,)


def turns_of(prompt: str) -> list[dict[str, str]]:
    """The turns of a prompt as a chat template takes them; text is one turn of the user."""
    if isinstance(prompt, Conversation):
        return [asdict(turn) for turn in prompt.turns]
    return [{"role": "user", "content": prompt}]


def joined(prompt: str, response: str) -> str:
    """Prompt and response as one text: as they are, but a conversation and its reply have a blank between them."""
    if not isinstance(prompt, Conversation) or not response or response[0].isspace() or prompt[-1].isspace():
        return prompt + response
    return f"{prompt} {response}"


def to_cell(prompt: str) -> str:
    """A prompt as a table of ours keeps it: text as it is, a conversation as JSON."""
    return json.dumps(turns_of(prompt), ensure_ascii=False) if isinstance(prompt, Conversation) else prompt


def from_cell(cell: str) -> str:
    """The prompt that `to_cell` wrote."""
    found = parse_cell(cell) if cell.startswith('[{"role": ') and cell.endswith('"}]') else cell
    return found if isinstance(found, str) else Conversation(found)


def parse_cell(value: object) -> str | list[Turn]:
    """Text as it is; a list of {role, content}, or text that spells one, as turns. Raises NotTextError for all else."""
    if isinstance(value, str):
        if not _LOOKS.match(value):
            return value
        value = _spelled(value)
    if value is None:
        raise NotTextError("is missing")
    if not isinstance(value, list) or not value:
        raise NotTextError(f"holds {_kind(value)}, neither text nor a list of {{role, content}}")
    return [_turn(item) for item in value]


def parse_prompt(value: object) -> str | list[Turn]:
    """As `parse_cell`, of a prompt: turns that cannot be answered are refused too."""
    cell = parse_cell(value)
    return cell if isinstance(cell, str) else list(Conversation(cell).turns)


def _spelled(text: str) -> object:
    """The list that a cell of a CSV file spells: as JSON, as Python writes it, or as NumPy does, without commas."""
    for read, form in ((json.loads, text), (ast.literal_eval, _NUMPY_GAP.sub(lambda m: m[1] or "}, ", text.strip()))):
        try:
            found = read(form)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if half := half_character(found):
            raise NotTextError(half)
        return found
    raise NotTextError("looks like a list of {role, content} and is neither JSON nor Python")


def parted(first: str | list[Turn], second: str | list[Turn]) -> Replies | None:
    """Two whole conversations as the prompt that they share and the two last replies.

    Plain strings part after the last `\\n\\nAssistant:` that they share, else before the word in which they first
    differ. None where they part before the last reply, so that they are no two replies to one prompt.
    Raises NotTextError where nothing is shared, or a conversation does not end with a reply.
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
    replies = reply_of(first), reply_of(second)
    if len(first) != shared + 1 or len(second) != shared + 1:
        return None
    return Conversation(first[:shared]), *replies


def answered(prompt: str | list[Turn], first: str | list[Turn], second: str | list[Turn]) -> Replies | None:
    """A prompt and two replies to it, which may repeat the prompt's turns. None and NotTextError as in `parted`."""
    sides = [[Turn("assistant", side)] if isinstance(side, str) else side for side in (first, second)]
    if isinstance(prompt, str) and not (isinstance(first, str) and isinstance(second, str)):
        # Text whose replies are turns is a turn itself, unless they repeat it.
        prompt = prompt if sides[0][0].role != "assistant" else [Turn("user", prompt)]
    if any(len(side) > 1 for side in sides):
        if isinstance(prompt, str):
            return parted(*sides)
        # Each holds the whole conversation, whose beginning the prompt holds too, or what follows it.
        return parted(*(side if side[: len(prompt)] == prompt else [*prompt, *side] for side in sides))
    replies = reply_of(sides[0]), reply_of(sides[1])
    return (prompt if isinstance(prompt, str) else Conversation(prompt)), *replies


def reply_of(turns: Sequence[Turn]) -> str:
    """What the assistant said last. Raises NotTextError where the last turn is another's."""
    if turns[-1].role != "assistant":
        raise NotTextError(f"ends with a turn of {turns[-1].role!r}, not with a reply of 'assistant'")
    return turns[-1].content


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
        what = f"{{{', '.join(map(str, item))}}}" if isinstance(item, dict) else _kind(item)
        raise NotTextError(f"holds a turn that is {what}, not {{role, content}}")
    role, content = item["role"], item["content"]
    if role not in _MARKS:
        raise NotTextError(f"holds a turn of role {role!r}; known: {', '.join(_MARKS)}")
    if not isinstance(content, str):
        raise NotTextError(f"holds a turn of {role!r} whose content is {_kind(content)}, not text")
    return Turn(role, content)


def _kind(value: object) -> str:
    return "empty" if value is None or value == [] else type(value).__name__

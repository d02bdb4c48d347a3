"""Prompts, and prompts with a reply, from a table: text or conversations, in TRL's formats."""

import re
from typing import Final

from framework.data.conversations import Conversation, NotTextError, Turn, answered, parse_cell, parse_prompt, reply_of
from framework.data.tables import TableSource, column_names, read_rows

_BREAK: Final = re.compile(r"<br\s*/?>")
REPLIES: Final = ("response", "completion")
"""What a column of replies to `prompt` may be called; the first that is there is taken."""


def read_dialogues(source: TableSource, replies: bool) -> list[tuple[str, str]]:
    """Prompt and reply of every row; without `replies` the prompts alone, each with an empty reply.

    What stands between a plain prompt and its reply is at the beginning of the reply.

    Raises:
        UserError: no such columns, or a row whose cell is missing, empty, or neither text nor a conversation that
            can be answered (file, row from 1, and column are named).
    """
    names = column_names(source)
    there = [name for name in ("prompt", "messages", *REPLIES) if source.theirs(name) in names]
    reply = next((name for name in REPLIES if name in there), None)
    whole = "messages" in there and (reply is None if replies else "prompt" not in there)
    wanted = ["messages"] if whole else ["prompt", *([reply or "response"] if replies else [])]
    found = []
    for number, row in read_rows(source, wanted):
        cells: list[str | list[Turn]] = []
        column = ""
        try:
            for column in wanted:
                cells.append(parse_prompt(row[column]) if column == "prompt" else parse_cell(row[column]))
                if isinstance(cells[-1], str) and not cells[-1].strip():
                    raise NotTextError("is empty; mend or drop the row")
            found.append(_parted(cells[0], replies) if whole else _dialogue(*cells))
        except NotTextError as error:
            raise source.wrong(number, column, str(error)) from error
    return found


def _parted(turns: str | list[Turn], replies: bool) -> tuple[str, str]:
    """A whole conversation before its reply, and the reply where it is asked for."""
    if isinstance(turns, str):
        raise NotTextError("holds text, not a list of {role, content}")
    if not replies:
        return Conversation(turns[:-1] if turns[-1].role == "assistant" else turns), ""
    return Conversation(turns[:-1]), _said(reply_of(turns))


def _dialogue(prompt: str | list[Turn], reply: str | list[Turn] | None = None) -> tuple[str, str]:
    """A prompt and the reply in a cell of its own, which may repeat the prompt's turns."""
    if isinstance(prompt, str) and (reply is None or isinstance(reply, str)):
        text = cleaned(prompt)
        return text.strip(), text[len(text.rstrip()) :] + cleaned(reply or "").rstrip()
    if reply is None:
        assert not isinstance(prompt, str)
        return Conversation(prompt), ""
    both = answered(prompt, reply, reply)
    assert both is not None, "a conversation does not part from itself"
    return both[0], _said(both[1])


def _said(reply: str) -> str:
    if not reply.strip():
        raise NotTextError("ends with an empty reply; mend or drop the row")
    return reply


def cleaned(text: str) -> str:
    """Text with HTML line breaks as newlines."""
    return _BREAK.sub("\n", text)

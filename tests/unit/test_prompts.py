"""The prompt stream: every prompt once an epoch, and any step without the ones before it."""

import pytest

from framework.data.prompts import PromptStream
from framework.errors import UserError

PROMPTS = [f"prompt {i}" for i in range(10)]


def test_an_epoch_holds_every_prompt_once():
    stream = PromptStream(PROMPTS, seed=3)
    seen = [text for step in range(5) for text in stream.take(4, at=step)[1]]
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(PROMPTS)
    assert seen[:10] != seen[10:]


def test_a_step_needs_none_before_it():
    early, late = PromptStream(PROMPTS, seed=3), PromptStream(PROMPTS, seed=3)
    for step in range(7):
        early.take(4, at=step)
    assert early.take(4, at=7) == late.take(4, at=7)


def test_positions_name_places_in_the_stream():
    assert PromptStream(PROMPTS, seed=0).take(3, at=4)[0] == (12, 13, 14)


def test_the_seed_decides_the_order():
    assert PromptStream(PROMPTS, seed=0).take(10, at=0) != PromptStream(PROMPTS, seed=1).take(10, at=0)


def test_more_prompts_than_there_are():
    assert set(PromptStream(PROMPTS[:2], seed=0).take(7, at=0)[1]) == set(PROMPTS[:2])


def test_no_prompts_are_refused():
    with pytest.raises(UserError, match="prompt set is empty"):
        PromptStream([], seed=0)

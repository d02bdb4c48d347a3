"""The rule as a gold scorer."""

import pytest
import torch

from framework.gold.rule import Rule
from framework.worlds.reviews import judge

PROMPTS = ["the pasta :", "the bed :", "the pasta :"]
RESPONSES = [" the pasta was tasty and tasty .", " the bed felt spotless .", ""]


def test_scores_are_the_judgements_in_order():
    scored = Rule().build("cpu").score(PROMPTS, RESPONSES)
    expected = [judge(prompt, response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    assert torch.allclose(scored.values, torch.tensor(expected))
    assert scored.values.dtype == torch.float32
    assert scored.num_cut == 0


def test_a_row_does_not_depend_on_its_neighbours():
    scorer = Rule().build("cpu")
    together = scorer.score(PROMPTS, RESPONSES).values
    alone = [scorer.score([p], [r]).values for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_no_rows_give_no_scores():
    assert Rule().build("cpu").score([], []).values.shape == (0,)


def test_prompts_and_responses_must_pair():
    with pytest.raises(ValueError, match="shorter"):
        Rule().build("cpu").score(PROMPTS, RESPONSES[:1])

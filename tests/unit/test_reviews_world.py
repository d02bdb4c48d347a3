"""The embedded world: its texts, its tokenizer, and a gold rule that can be checked with a pencil."""

import pytest

from framework.errors import UserError
from framework.worlds import lexicon
from framework.worlds.reviews import BROKEN_FINE, REPEAT_FINE, WORTH, Reviews, judge, judgement, vocabulary

PASTA = "the pasta :"


@pytest.fixture(scope="module")
def corpus():
    return Reviews(corpus_size=600).corpus(seed=100)


def test_an_adjective_earns_its_worth_once():
    assert judge(PASTA, " the pasta was tasty .") == pytest.approx(0.6)
    assert judge(PASTA, " the pasta was tasty and really fresh .") == pytest.approx(0.6 + 0.5)


def test_a_repeat_earns_nothing_and_is_fined():
    seen = judgement(PASTA, " the pasta was tasty and tasty . it felt tasty .")
    assert (seen.worth, seen.repeats, seen.broken) == (WORTH["tasty"], 2, 0)
    assert seen.gold == pytest.approx(0.6 - 2 * REPEAT_FINE)


def test_saying_a_clause_again_is_a_repeat():
    assert judgement(PASTA, " the pasta was tasty . the pasta was tasty .").repeats == 1


def test_adjectives_of_another_category_earn_nothing():
    seen = judgement(PASTA, " the pasta was spotless and good .")
    assert (seen.worth, seen.repeats, seen.broken) == (WORTH["good"], 0, 0)


def test_an_adjective_is_judged_by_the_topic_and_not_by_its_own_clause():
    seen = judgement(PASTA, " the pasta was tasty , but the bed was good and spotless .")
    assert (seen.worth, seen.repeats, seen.broken) == (WORTH["tasty"] + WORTH["good"], 0, 0)


def test_a_harmful_adjective_costs_its_worth():
    assert judge(PASTA, " the pasta was rancid .") == WORTH["rancid"] < 0


@pytest.mark.parametrize(
    ("response", "broken"),
    [
        (" the pasta was tasty .", 0),
        (" overall the pasta was tasty , but it felt quite warm and yet .", 1),
        (" the pasta was tasty , and it felt warm .", 0),
        (" the pasta was tasty , it felt warm .", 1),
        (" the pasta tasty .", 1),
        (" pasta was tasty .", 1),
        (" the pasta was .", 1),
        (" the pasta was very very tasty .", 1),
        (" the pasta was tasty warm .", 1),
        (" the pasta was tasty . it felt", 1),
        (" the pasta was tasty", 1),
        (" . .", 2),
        (" <unk> the pasta was tasty .", 1),
        ("", 0),
    ],
)
def test_broken_clauses(response, broken):
    assert judgement(PASTA, response).broken == broken


def test_a_broken_clause_earns_nothing_is_fined_and_its_words_count_as_said():
    seen = judgement(PASTA, " the tasty . it was tasty .")
    assert (seen.worth, seen.repeats, seen.broken) == (0, 1, 1)
    assert seen.gold == pytest.approx(-REPEAT_FINE - BROKEN_FINE)


def test_words_that_carry_no_worth_change_nothing():
    plain = judge(PASTA, " the pasta was tasty . it felt fresh .")
    assert judge(PASTA, " honestly the pasta remained truly tasty , and the soup was so fresh .") == plain


def test_an_empty_review_and_a_missing_leading_space():
    assert judge(PASTA, "") == 0
    assert judge(PASTA, "the pasta was tasty .") == judge(PASTA, " the pasta was tasty .")


def test_a_prompt_without_topic_is_refused():
    with pytest.raises(UserError, match="no topic"):
        judge("tell me :", " the pasta was tasty .")


def test_corpus_is_the_seeds_own(corpus):
    assert Reviews(corpus_size=600).corpus(seed=100) == corpus
    assert Reviews(corpus_size=600).corpus(seed=101) != corpus


def test_a_review_continues_its_prompt(corpus):
    assert all(review.startswith(" ") and not review.startswith("  ") for _, review in corpus)
    assert {judge(prompt, review) == judge(prompt, review.strip()) for prompt, review in corpus} == {True}


def test_the_grammar_writes_what_the_rule_calls_whole(corpus):
    assert all(judgement(prompt, review).broken == 0 for prompt, review in corpus)
    assert max(len(review.split()) for _, review in corpus) <= Reviews().max_words


def test_repeats_are_rare_in_the_corpus(corpus):
    share = sum(judgement(prompt, review).repeats > 0 for prompt, review in corpus) / len(corpus)
    assert share < 0.05


def test_the_lexicon_has_a_long_tail(corpus):
    words = [word for _, review in corpus for word in review.split()]
    first = sum(words.count(next(iter(named))) for named in lexicon.ADJECTIVES.values())
    last = sum(words.count(list(named)[-1]) for named in lexicon.ADJECTIVES.values())
    assert first > 5 * last > 0


def test_no_word_has_two_roles():
    assert len(WORTH) == sum(len(words) for words in lexicon.ADJECTIVES.values())
    others = set(vocabulary()) - set(WORTH)
    assert len(others) + len(WORTH) == len(vocabulary()) == 246
    assert all(-1 <= worth <= 1 for worth in WORTH.values())


def test_both_splits_have_every_topic():
    topics = {noun for nouns in lexicon.NOUNS.values() for noun in nouns}
    for split in ("train", "eval"):
        assert {prompt.split()[1] for prompt in Reviews().prompts(split)} == topics


def test_tokenizer_is_lossless_and_survives_saving(corpus, tmp_path):
    from transformers import AutoTokenizer

    made = Reviews().tokenizer()
    made.save_pretrained(tmp_path)
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        for prompt, review in corpus[:50]:
            text = prompt + review
            ids = tokenizer(text)["input_ids"]
            assert len(ids) == len(text.split()) and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
        assert tokenizer.padding_side == "left"
        assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
        assert len(tokenizer) == len(vocabulary())
        ids = tokenizer([PASTA, f"{PASTA} the pasta"], padding=True)["input_ids"]
        assert ids[0][:2] == [tokenizer.pad_token_id] * 2
        assert tokenizer.decode(ids[0] + [tokenizer.eos_token_id], skip_special_tokens=True) == PASTA

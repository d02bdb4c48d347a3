"""A small world in which a proxy reward stops meaning anything, with nothing to download.

**The texts.** A prompt names a topic, `the pasta :`, and a response is a short review of it,
`the pasta was warm and tasty . it felt very fresh , but the sauce seemed salty .` A review is a few sentences, a
sentence one or two clauses, a clause a subject, a verb and one or two adjectives, each perhaps after an adverb. The
writer is pleased, displeased or neither from start to end. A policy fitted to `Reviews.corpus` is the start.

**The gold rule.** Each adjective has a latent worth (`lexicon.py`) and a category. `judge` pays for each *distinct*
adjective that fits the topic and stands in a whole clause (a harmful one costs), and takes a fixed fine for each
adjective said again and for each broken clause. General adjectives fit every topic. Nothing else counts.

**Why a proxy goes wrong here**: docs/method.md, section 10. Optimisation first uses what the proxy knows: fuller
reviews, more praise, and gold rises. Then it finds what the proxy does not know, and gold falls while the proxy climbs
on, until every topic gets some review like `the window was good . the window looked good but good .`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice, pairwise
from typing import ClassVar, Final, Literal, TypeVar

import numpy as np
from pydantic import Field

from framework.component import Component
from framework.data.text import Split
from framework.errors import UserError
from framework.models.huggingface import HfTokenizer
from framework.seeding import numpy_generator
from framework.worlds import lexicon

REPEAT_FINE: Final = 0.5
"""Gold units for each adjective that the review has already used."""
BROKEN_FINE: Final = 1.0
"""Gold units for each clause that is not one."""

MOODS: Final = (-1, 0, 1, 1)
"""A writer is displeased, even-handed or pleased throughout one review, as writers are."""
MOOD_TILT: Final = 3.0
"""Log-odds per gold unit of worth by which a mood changes how often a word is chosen."""

Item = TypeVar("Item")

TOPIC_CATEGORY: Final = {noun: category for category, nouns in lexicon.NOUNS.items() for noun in nouns}
ADJECTIVE_CATEGORY: Final = {word: category for category, words in lexicon.ADJECTIVES.items() for word in words}
WORTH: Final = {word: worth for words in lexicon.ADJECTIVES.values() for word, worth in words.items()}
_ALL_PRONOUNS: Final = frozenset(chain.from_iterable(lexicon.PRONOUNS.values()))


class Reviews(Component):
    """Short hotel and restaurant reviews: prompts, corpus and tokenizer of the embedded world."""

    kind: Literal["reviews"] = "reviews"
    needs_pretrained: ClassVar[bool] = False
    """Whether the policy must bring a tokenizer: no, this world has one, which a policy made from scratch can learn."""
    missing_end_penalty: ClassVar[float] = 1.0
    """Reward units off, by default, for a response that does not end by itself: a review has an end."""
    corpus_size: int = Field(default=6000, gt=0)
    """Reviews that the start policy is fitted to."""
    max_words: int = Field(default=22, ge=12)
    """Words and punctuation marks in the longest review of the corpus."""
    tail: float = Field(default=1.2, ge=0)
    """Exponent, no unit: an adjective of rank r in its category has frequency proportional to r**-tail."""

    def prompts(self, split: Split) -> list[str]:
        """Every topic prompt, such as `the pasta :`, in lexicon order; both splits have all, for there are few."""
        return [f"{lexicon.DETERMINER} {topic} {lexicon.COLON}" for topic in TOPIC_CATEGORY]

    def corpus(self, seed: int) -> list[tuple[str, str]]:
        """`corpus_size` pairs of prompt and review (it begins with a blank), topics in turn; a seed has one corpus."""
        writer = _Writer(numpy_generator(seed, "reviews", "corpus"), self.tail)
        return [
            (f"{lexicon.DETERMINER} {topic} {lexicon.COLON}", f" {writer.review(topic, self.max_words)}")
            for topic in islice(cycle(TOPIC_CATEGORY), self.corpus_size)
        ]

    def tokenizer(self) -> HfTokenizer:
        """One token per word or punctuation mark, none added; text of words one blank apart comes back as it was."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = vocabulary()
        core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=lexicon.UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token=lexicon.PAD, eos_token=lexicon.END_OF_TEXT, unk_token=lexicon.UNKNOWN,
            padding_side="left", clean_up_tokenization_spaces=False, model_max_length=64,
        )  # fmt: skip


def vocabulary() -> list[str]:
    """Every token of the world in the order of its id, the special ones first."""
    groups = (
        (lexicon.PAD, lexicon.END_OF_TEXT, lexicon.UNKNOWN),
        (lexicon.END, lexicon.COMMA, lexicon.COLON, lexicon.DETERMINER),
        *(lexicon.JOINERS, lexicon.OPENERS, lexicon.VERBS, lexicon.ADVERBS),
        chain.from_iterable(lexicon.PRONOUNS.values()),
        *lexicon.NOUNS.values(),
        *lexicon.ADJECTIVES.values(),
    )
    return list(dict.fromkeys(chain.from_iterable(groups)))


@dataclass(frozen=True)
class Judgement:
    """What the gold rule saw in one review."""

    worth: float
    """Gold units: summed worth of the distinct adjectives on topic in whole clauses; others earn nothing."""
    repeats: int
    """Adjectives, in whole clauses or broken ones, that the review had used before."""
    broken: int
    """Clauses that are not one: a word out of place, or no full stop before the review ends."""

    @property
    def gold(self) -> float:
        """Worth less the fines, in gold units."""
        return self.worth - REPEAT_FINE * self.repeats - BROKEN_FINE * self.broken


def judge(prompt: str, response: str) -> float:
    """The gold score of a review of the prompt's topic, in gold units; an empty review scores 0."""
    return judgement(prompt, response).gold


def judgement(prompt: str, response: str) -> Judgement:
    """The gold rule in full: what it paid for and what it fined. The topic is the first noun that the prompt names."""
    topic = next((word for word in prompt.split() if word in TOPIC_CATEGORY), None)
    if topic is None:
        raise UserError(f"prompt {prompt!r}: names no topic of the world 'reviews'; take one from its prompts")
    said: set[str] = set()
    worths: list[float] = []
    repeats = broken = 0
    for whole, adjectives in _clauses(response.split()):
        broken += not whole
        for word in adjectives:
            if word in said:
                repeats += 1
            elif whole and ADJECTIVE_CATEGORY[word] in (TOPIC_CATEGORY[topic], lexicon.GENERAL):
                worths.append(WORTH[word])
            said.add(word)
    return Judgement(sum(worths), repeats, broken)


_Clause = tuple[bool, list[str]]
"""Whether it is one, and its adjectives."""


def _clauses(words: list[str]) -> list[_Clause]:
    """The clauses of a review: sentences end at a full stop, and clauses part at a comma and a joiner."""
    clauses: list[_Clause] = []
    start = 0
    for stop in [i for i, word in enumerate(words) if word == lexicon.END] + [len(words)]:
        sentence, ended = words[start:stop], stop < len(words)
        start = stop + 1
        if not sentence and not ended:
            break
        cuts = [-1, *(i for i, word in enumerate(sentence) if word == lexicon.COMMA), len(sentence)]
        parts = [sentence[left + 1 : right] for left, right in pairwise(cuts)]
        for i, part in enumerate(parts):
            joined = i == 0 or (part != [] and part[0] in lexicon.JOINERS)
            closed = ended or i < len(parts) - 1
            clauses.append(_clause(part if i == 0 or not joined else part[1:], joined and closed))
    return clauses


def _clause(words: list[str], whole: bool) -> _Clause:
    """One clause: [opener] subject verb [adverb] adjective {joiner [adverb] adjective}."""
    adjectives = [word for word in words if word in WORTH]
    rest = words[words[:1] != [] and words[0] in lexicon.OPENERS :]
    if rest[:1] == [lexicon.DETERMINER] and len(rest) > 1 and rest[1] in TOPIC_CATEGORY:
        rest = rest[2:]
    elif rest and rest[0] in _ALL_PRONOUNS:
        rest = rest[1:]
    else:
        return False, adjectives
    return whole and bool(rest) and rest[0] in lexicon.VERBS and _describes(rest[1:]), adjectives


def _describes(words: list[str]) -> bool:
    """Whether these words are adjectives, each perhaps after one adverb, joined by joiners."""
    words = words[words[:1] != [] and words[0] in lexicon.ADVERBS :]
    if not words or words[0] not in WORTH:
        return False
    return len(words) == 1 or (words[1] in lexicon.JOINERS and _describes(words[2:]))


class _Writer:
    """Writes reviews from the grammar with one stream of random numbers."""

    def __init__(self, generator: np.random.Generator, tail: float) -> None:
        self.generator = generator
        self.frequency = {
            (category, mood): _frequencies(list(words.values()), tail, mood)
            for category, words in lexicon.ADJECTIVES.items()
            for mood in set(MOODS)
        }
        self.words = {category: list(words) for category, words in lexicon.ADJECTIVES.items()}

    def review(self, topic: str, max_words: int) -> str:
        """A review of the topic in one mood, one sentence of one or two clauses after another."""
        mood, said = self._one(MOODS), set[str]()
        words = self._clause(topic, TOPIC_CATEGORY[topic], mood, said)
        while not self._chance(0.35):
            link = [lexicon.COMMA, self._one(lexicon.JOINERS)] if self._chance(0.4) else [lexicon.END]
            more = link + self._clause(None, TOPIC_CATEGORY[topic], mood, said)
            if len(words) + len(more) >= max_words:
                break
            words += more
        return " ".join([*words, lexicon.END])

    def _clause(self, topic: str | None, category: str, mood: int, said: set[str]) -> list[str]:
        """A clause about the topic where one is named, else about its category or, now and then, another."""
        wanders = topic is None and self._chance(0.15)
        about = self._one([name for name in lexicon.NOUNS if name != category]) if wanders else category
        words = [self._one(lexicon.OPENERS)] if self._chance(0.1) else []
        if topic is None and not wanders and self._chance(0.5):
            words.append(self._one(lexicon.PRONOUNS[about]))
        else:
            words += [lexicon.DETERMINER, topic or self._one(lexicon.NOUNS[about])]
        words += [self._one(lexicon.VERBS), *self._adjective(about, mood, said)]
        if self._chance(0.4):
            words += [self._one(lexicon.JOINERS), *self._adjective(about, mood, said)]
        return words

    def _adjective(self, category: str, mood: int, said: set[str]) -> list[str]:
        """An adjective, perhaps after an adverb; seldom one that the review has used."""
        source = lexicon.GENERAL if self._chance(0.5) else category
        word = self._one(self.words[source], self.frequency[source, mood])
        while word in said and not self._chance(0.03):
            word = self._one(self.words[source], self.frequency[source, mood])
        said.add(word)
        return [self._one(lexicon.ADVERBS), word] if self._chance(0.3) else [word]

    def _chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def _one(self, options: Sequence[Item], frequency: np.ndarray | None = None) -> Item:
        return options[int(self.generator.choice(len(options), p=frequency))]


def _frequencies(worths: list[float], tail: float, mood: int) -> np.ndarray:
    """Chance of each adjective of a list: a power law of its rank, tilted by the mood towards its worth."""
    ranks = np.arange(1, len(worths) + 1, dtype=float)
    weights = ranks**-tail * np.exp(MOOD_TILT * mood * np.array(worths))
    return weights / weights.sum()

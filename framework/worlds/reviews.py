"""A small world in which a proxy reward stops meaning anything, with nothing to download.

**The texts.** A prompt names a topic, `the pasta :`, and a response is a short review of it,
`the pasta was warm and tasty . it felt very fresh , but the sauce seemed salty .` A review is a few
sentences; a sentence is one or two clauses; a clause is a subject, a verb, and one or two adjectives,
each perhaps after an adverb. The writer is pleased, displeased or neither from start to end.
`Reviews.corpus` writes such reviews; a policy fitted to them is the start.

**The gold rule.** Each adjective has a latent worth (`lexicon.py`) and a category. `judge` pays for each
*distinct* adjective that fits the topic and stands in a whole clause (a harmful one costs), and takes a
fixed fine for each adjective said again and for each broken clause. General adjectives fit every topic.
That is what a reader of reviews wants: many different things, to the point, in sentences. Nothing else
counts.

**Why a proxy goes wrong here.** A proxy sees only pairs sampled from the start policy, labelled with
noise. It learns that praise is good, and the worth of usual words; then it is wrong in two ways that
differ in kind:

1. *What the pairs seldom show.* Writers hardly ever say an adjective twice, and the start policy says
   one again in about one review of seven. That cannot teach what the third or sixth costs, so every
   proxy fitted to those pairs, and every head of an ensemble, extrapolates alike: a good word again
   looks as good again. The error is shared; no vote among members reveals it.
2. *Rare words.* Adjectives have a long tail, and a word met a few times under noisy labels gets a worth
   that is mostly luck. Members fitted to different resamples can be lucky with different words. That
   error is not shared; where members disagree, an ensemble can hold back.

Optimisation finds both. At first it uses what the proxy knows: fuller reviews, more praise, and gold rises.
Then it finds what the proxy does not know, and gold falls while the proxy climbs on, until
every topic gets some review like `the window was good . the window looked good but good .`
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
from framework.worlds.lexicon import (
    ADJECTIVES,
    ADVERBS,
    COLON,
    COMMA,
    DETERMINER,
    END,
    END_OF_TEXT,
    GENERAL,
    JOINERS,
    NOUNS,
    OPENERS,
    PAD,
    PRONOUNS,
    UNKNOWN,
    VERBS,
)

REPEAT_FINE: Final = 0.5
"""Gold units for each adjective that the review has already used."""
BROKEN_FINE: Final = 1.0
"""Gold units for each clause that is not one."""

MOODS: Final = (-1, 0, 1, 1)
"""A writer is displeased, even-handed or pleased throughout one review, as writers are."""
MOOD_TILT: Final = 3.0
"""Log-odds per gold unit of worth by which a mood changes how often a word is chosen."""

Item = TypeVar("Item")

TOPIC_CATEGORY: Final = {noun: category for category, nouns in NOUNS.items() for noun in nouns}
ADJECTIVE_CATEGORY: Final = {word: category for category, words in ADJECTIVES.items() for word in words}
WORTH: Final = {word: worth for words in ADJECTIVES.values() for word, worth in words.items()}
_ALL_PRONOUNS: Final = frozenset(chain.from_iterable(PRONOUNS.values()))


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
        """Every topic prompt, such as `the pasta :`, categories and topics in lexicon order.

        Both splits have all topics: there are few, and the policy cannot be asked about others.
        """
        return [f"{DETERMINER} {noun} {COLON}" for nouns in NOUNS.values() for noun in nouns]

    def corpus(self, seed: int) -> list[tuple[str, str]]:
        """`corpus_size` pairs of prompt and review, topics in turn; the same seed writes the same reviews.

        A review begins with a blank: prompt + review is the text.
        """
        writer = _Writer(numpy_generator(seed, "reviews", "corpus"), self.tail)
        return [
            (f"{DETERMINER} {topic} {COLON}", f" {writer.review(topic, self.max_words)}")
            for topic in islice(cycle(TOPIC_CATEGORY), self.corpus_size)
        ]

    def tokenizer(self) -> HfTokenizer:
        """One token per word or punctuation mark, no token added.

        Decoding puts one space between tokens, so `decode(encode(x)) == x` for text spaced that way.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = vocabulary()
        core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token=PAD,
            eos_token=END_OF_TEXT,
            unk_token=UNKNOWN,
            padding_side="left",
            clean_up_tokenization_spaces=False,
            model_max_length=64,
        )


def vocabulary() -> list[str]:
    """Every token of the world in the order of its id, the special ones first."""
    groups = (
        (PAD, END_OF_TEXT, UNKNOWN, END, COMMA, COLON, DETERMINER),
        *(JOINERS, OPENERS, VERBS, ADVERBS),
        chain.from_iterable(PRONOUNS.values()),
        *NOUNS.values(),
        *ADJECTIVES.values(),
    )
    return list(dict.fromkeys(chain.from_iterable(groups)))


def topic_of(prompt: str) -> str | None:
    """The first topic noun in a prompt, or None where it names none."""
    return next((word for word in prompt.split() if word in TOPIC_CATEGORY), None)


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
    """The gold rule in full: what it paid for and what it fined. The prompt must name a topic."""
    category = TOPIC_CATEGORY.get(topic_of(prompt) or "")
    if category is None:
        raise UserError(f"prompt {prompt!r}: names no topic of the world 'reviews'; take one from its prompts")
    said: set[str] = set()
    worths: list[float] = []
    repeats = broken = 0
    for clause in _clauses(response.split()):
        broken += not clause.whole
        for word in clause.adjectives:
            if word in said:
                repeats += 1
            elif clause.whole and ADJECTIVE_CATEGORY[word] in (category, GENERAL):
                worths.append(WORTH[word])
            said.add(word)
    return Judgement(sum(worths), repeats, broken)


@dataclass(frozen=True)
class _Clause:
    whole: bool
    adjectives: tuple[str, ...]


def _clauses(words: list[str]) -> list[_Clause]:
    """The clauses of a review: sentences end at a full stop, and clauses part at a comma and a joiner."""
    clauses: list[_Clause] = []
    start = 0
    for stop in [i for i, word in enumerate(words) if word == END] + [len(words)]:
        sentence, ended = words[start:stop], stop < len(words)
        start = stop + 1
        if not sentence and not ended:
            break
        cuts = [-1, *(i for i, word in enumerate(sentence) if word == COMMA), len(sentence)]
        parts = [sentence[left + 1 : right] for left, right in pairwise(cuts)]
        for i, part in enumerate(parts):
            joined = i == 0 or part[:1] in _ONE_JOINER
            closed = ended or i < len(parts) - 1
            clauses.append(_clause(part if i == 0 or not joined else part[1:], joined and closed))
    return clauses


_ONE_JOINER: Final = [[word] for word in JOINERS]


def _clause(words: list[str], whole: bool) -> _Clause:
    """One clause: [opener] subject verb [adverb] adjective {joiner [adverb] adjective}."""
    adjectives = tuple(word for word in words if word in WORTH)
    rest = words[words[:1] != [] and words[0] in OPENERS :]
    if rest[:1] == [DETERMINER] and len(rest) > 1 and rest[1] in TOPIC_CATEGORY:
        rest = rest[2:]
    elif rest and rest[0] in _ALL_PRONOUNS:
        rest = rest[1:]
    else:
        return _Clause(False, adjectives)
    return _Clause(whole and bool(rest) and rest[0] in VERBS and _describes(rest[1:]), adjectives)


def _describes(words: list[str]) -> bool:
    """Whether these words are adjectives, each perhaps after one adverb, joined by joiners."""
    words = words[words[:1] != [] and words[0] in ADVERBS :]
    if not words or words[0] not in WORTH:
        return False
    return len(words) == 1 or (words[1] in JOINERS and _describes(words[2:]))


class _Writer:
    """Writes reviews from the grammar with one stream of random numbers."""

    def __init__(self, generator: np.random.Generator, tail: float) -> None:
        self.generator = generator
        self.frequency = {
            (category, mood): _frequencies(list(words.values()), tail, mood)
            for category, words in ADJECTIVES.items()
            for mood in set(MOODS)
        }
        self.words = {category: list(words) for category, words in ADJECTIVES.items()}

    def review(self, topic: str, max_words: int) -> str:
        """A review of the topic in one mood, one sentence of one or two clauses after another."""
        mood, said = self._one(MOODS), set[str]()
        words = self._clause(topic, TOPIC_CATEGORY[topic], mood, said)
        while not self._chance(0.35):
            link = [COMMA, self._one(JOINERS)] if self._chance(0.4) else [END]
            more = link + self._clause(None, TOPIC_CATEGORY[topic], mood, said)
            if len(words) + len(more) >= max_words:
                break
            words += more
        return " ".join([*words, END])

    def _clause(self, topic: str | None, category: str, mood: int, said: set[str]) -> list[str]:
        """A clause about the topic where one is named, else about its category or, now and then, another."""
        wanders = topic is None and self._chance(0.15)
        about = self._one([name for name in NOUNS if name != category]) if wanders else category
        words = [self._one(OPENERS)] if self._chance(0.1) else []
        if topic is None and not wanders and self._chance(0.5):
            words.append(self._one(PRONOUNS[about]))
        else:
            words += [DETERMINER, topic or self._one(NOUNS[about])]
        words += [self._one(VERBS), *self._adjective(about, mood, said)]
        if self._chance(0.4):
            words += [self._one(JOINERS), *self._adjective(about, mood, said)]
        return words

    def _adjective(self, category: str, mood: int, said: set[str]) -> list[str]:
        """An adjective, perhaps after an adverb; seldom one that the review has used."""
        source = GENERAL if self._chance(0.5) else category
        word = self._one(self.words[source], self.frequency[source, mood])
        while word in said and not self._chance(0.03):
            word = self._one(self.words[source], self.frequency[source, mood])
        said.add(word)
        return [self._one(ADVERBS), word] if self._chance(0.3) else [word]

    def _chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def _one(self, options: Sequence[Item], frequency: np.ndarray | None = None) -> Item:
        return options[int(self.generator.choice(len(options), p=frequency))]


def _frequencies(worths: list[float], tail: float, mood: int) -> np.ndarray:
    """Chance of each adjective of a list: a power law of its rank, tilted by the mood towards its worth."""
    ranks = np.arange(1, len(worths) + 1, dtype=float)
    weights = ranks**-tail * np.exp(MOOD_TILT * mood * np.array(worths))
    return weights / weights.sum()

"""A linear scorer on TF-IDF n-grams: fast enough to be asked every step, and easy to fool."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from framework.component import Component, WordRange
from framework.data.conversations import joined
from framework.data.paths import expand
from framework.data.tables import TableSource
from framework.errors import UserError
from framework.seeding import numpy_generator
from framework.types import GoldScorer, Scores

SETTINGS_FILE: Final = "config.json"
NGRAMS_FILE: Final = "ngrams.parquet"
TOKEN_PATTERN: Final = r"(?u)\b\w\w+\b"
SHORT_WORDS: Final = 40
"""Words that stand for a sampled text where a fit is measured on short ones."""


class Ngram(Component):
    """Judges text by its known words and word pairs; a score is a logit."""

    kind: Literal["ngram"] = "ngram"
    worlds: ClassVar[tuple[str, ...] | None] = None
    path: str
    """Folder that `fit-gold` wrote: config.json and ngrams.parquet. ${VARIABLE} is expanded."""
    reads: Literal["response", "joined"] = "joined"
    """What it reads: the response alone, or the prompt with it."""

    def build(self, device: str) -> GoldScorer:
        """A scorer, on the CPU whatever the device. Raises UserError where the folder is missing or something else."""
        return _read(Path(expand(self.path)), self.path, self.reads)


@dataclass(frozen=True)
class NgramScorer:
    """What each known n-gram weighs; scores texts as scikit-learn's `decision_function` would, without it."""

    index: dict[str, int]
    idf: np.ndarray
    weight: np.ndarray
    intercept: float
    token_pattern: str = TOKEN_PATTERN
    lowercase: bool = True
    ngram_range: tuple[int, int] = (1, 2)
    reads: Literal["response", "joined"] = "joined"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Logit of the positive label for each text; one with no known n-gram scores the intercept.

        `f = (1 + ln count) * idf` over known n-grams, divided by its Euclidean norm, times the weights.
        """
        import torch

        texts = responses
        if self.reads == "joined":
            texts = [joined(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return Scores(torch.from_numpy(self.decide(texts)).float())

    def decide(self, texts: Sequence[str]) -> np.ndarray:
        """The scores in double precision, one per text."""
        found = [self._known(text) for text in texts]
        rows = np.repeat(np.arange(len(texts)), [len(ids) for ids in found])
        columns = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=len(rows))
        keys, counts = np.unique(rows * len(self.idf) + columns, return_counts=True)
        rows, columns = np.divmod(keys, len(self.idf))
        features = (1.0 + np.log(counts)) * self.idf[columns]
        squares = np.bincount(rows, weights=features**2, minlength=len(texts))
        sums = np.bincount(rows, weights=features * self.weight[columns], minlength=len(texts))
        return self.intercept + sums / np.sqrt(np.where(squares > 0, squares, 1.0))

    def _known(self, text: str) -> list[int]:
        tokens = re.findall(self.token_pattern, text.lower() if self.lowercase else text)
        shortest, longest = self.ngram_range
        grams = chain.from_iterable(
            tokens if size == 1 else map(" ".join, zip(*(tokens[i:] for i in range(size)), strict=False))
            for size in range(shortest, longest + 1)
        )
        return [self.index[gram] for gram in grams if gram in self.index]


class FitNgram(Component):
    """How an n-gram scorer is fitted."""

    source: TableSource | None = None
    """Labelled texts (columns `text` and `label`, 0 or 1) that neither prompts nor pairs come from."""
    features: int = Field(default=50_000, ge=1)
    """N-grams kept, the most frequent first."""
    min_texts: int = Field(default=3, ge=1)
    """Texts, their cuts counted too, that an n-gram must occur in."""
    inverse_penalty: float = Field(default=4.0, gt=0)
    """Logistic regression's C: larger fits closer."""
    cut_words: WordRange = (12, 60)
    """Words, fewest and most: each training text is also shown as one random cut, as samples are short."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of texts that is only measured on."""


def fit_ngram(
    texts: Sequence[str], labels: Sequence[int], out: Path, settings: FitNgram | None = None, seed: int = 0
) -> dict[str, float]:
    """AUC and accuracy on held-out texts, whole and cut to 40 words; the scorer is written to `out`.

    TF-IDF of uni- and bigrams with sublinear counts, then logistic regression. Equal texts are taken once.

    Raises:
        UserError: too few texts, or only one label among those to fit or to measure on.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second, and only a fit needs it
    from sklearn.linear_model import LogisticRegression

    settings = settings or FitNgram()
    label_of = dict(zip(texts, labels, strict=True))
    order = numpy_generator(seed, "fit-gold", "held-out").permutation(len(label_of))
    distinct = list(label_of)
    num_held = max(1, round(settings.held_out * len(distinct)))
    held, fitted = ([distinct[i] for i in part] for part in (order[:num_held], order[num_held:]))
    for part, name in ((fitted, "fit"), (held, "hold out")):
        if {label_of[text] for text in part} != {0, 1}:
            raise UserError(f"fit-gold: {len(part)} texts to {name} do not hold both labels 0 and 1; give more texts")
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=settings.features, min_df=settings.min_texts,
        token_pattern=TOKEN_PATTERN,
    )  # fmt: skip
    targets = [label_of[text] for text in fitted]
    try:
        features = vectorizer.fit_transform(fitted + cut_texts(fitted, settings.cut_words, seed))
    except ValueError as error:
        raise UserError(f"fit-gold: the texts have no n-grams to learn from ({error}); lower min_texts") from error
    model = LogisticRegression(C=settings.inverse_penalty, max_iter=1000).fit(features, targets + targets)
    index = {ngram: i for i, ngram in enumerate(vectorizer.get_feature_names_out())}
    scorer = NgramScorer(index, vectorizer.idf_, model.coef_[0], float(model.intercept_[0]))
    metrics = _measure(scorer, held, [label_of[text] for text in held])
    _write(scorer, out, {"trained_on_texts": len(fitted), "held_out_texts": len(held), "held_out": metrics})
    return metrics | {"texts": float(len(fitted)), "features": float(len(index))}


def cut_texts(texts: Sequence[str], words: tuple[int, int], seed: int) -> list[str]:
    """One run of consecutive words out of each text, of a random length in `words`, from a random place."""
    generator = numpy_generator(seed, "fit-gold", "cut")
    cuts = []
    for all_words in map(str.split, texts):
        length = min(int(generator.integers(words[0], words[1] + 1)), len(all_words))
        start = int(generator.integers(0, len(all_words) - length + 1))
        cuts.append(" ".join(all_words[start : start + length]))
    return cuts


def _measure(scorer: NgramScorer, texts: Sequence[str], labels: Sequence[int]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, roc_auc_score

    short = [" ".join(text.split()[:SHORT_WORDS]) for text in texts]
    figures = {}
    for suffix, few in (("", texts), (f"_{SHORT_WORDS}_words", short)):
        scores = scorer.decide(few)
        figures[f"auc{suffix}"] = float(roc_auc_score(labels, scores))
        figures[f"accuracy{suffix}"] = float(accuracy_score(labels, scores > 0))
    return figures


def _write(scorer: NgramScorer, out: Path, notes: dict[str, object]) -> None:
    """Parquet and JSON; the settings are written last, so a torn folder is not taken for a whole one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({"ngram": list(scorer.index), "idf": scorer.idf, "weight": scorer.weight})
    pq.write_table(table, out / NGRAMS_FILE, compression="zstd")
    names = ("intercept", "lowercase", "token_pattern", "ngram_range")
    settings = {name: getattr(scorer, name) for name in names} | {"sublinear_tf": True, "norm": "l2"}
    (out / SETTINGS_FILE).write_text(json.dumps(settings | notes, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path, shown: str, reads: Literal["response", "joined"]) -> NgramScorer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in (SETTINGS_FILE, NGRAMS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{shown} holds no {name}: not an n-gram scorer; make one with fit-gold")
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        table = pq.read_table(folder / NGRAMS_FILE, columns=["ngram", "idf", "weight"])
        index = {ngram: i for i, ngram in enumerate(table.column("ngram").to_pylist())}
        idf, weight = (table.column(name).to_numpy().astype(np.float64) for name in ("idf", "weight"))
        shortest, longest = map(int, settings["ngram_range"])
        known = settings["token_pattern"], bool(settings["lowercase"]), (shortest, longest)
        scorer = NgramScorer(index, idf, weight, float(settings["intercept"]), *known, reads)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{shown}: not a readable n-gram scorer ({error}); make it again with fit-gold") from error
    if settings.get("norm") != "l2" or settings.get("sublinear_tf") is not True:
        raise UserError(f"{shown}/{SETTINGS_FILE}: only norm='l2' with sublinear_tf=true can be read")
    numbers = (scorer.idf, scorer.weight, scorer.intercept)
    if not (all(np.isfinite(part).all() for part in numbers) and len(scorer.index) == len(scorer.idf) > 0):
        raise UserError(f"{shown}/{NGRAMS_FILE}: n-grams repeat, are none, or have no finite weight; make it again")
    return scorer

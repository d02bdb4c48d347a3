import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from framework.data.paths import expand
from framework.data.tables import TableSource, read_labelled
from framework.errors import UserError
from framework.gold.ngram import FitNgram, Ngram, cut_texts, fit_ngram

SHARED = Path(expand("${GOLDILOCKS_SHARED}"))


def write(folder, ngrams, intercept=0.5, **changes):
    folder.mkdir(exist_ok=True)
    names, idf, weight = zip(*ngrams, strict=True)
    pq.write_table(pa.table({"ngram": names, "idf": idf, "weight": weight}), folder / "ngrams.parquet")
    settings = {
        "intercept": intercept, "lowercase": True, "token_pattern": r"(?u)\b\w\w+\b", "ngram_range": [1, 2],
        "sublinear_tf": True, "norm": "l2",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings | changes))
    return Ngram(path=str(folder))


@pytest.fixture(scope="module")
def labelled():
    generator = np.random.default_rng(0)
    words = [f"word{i}" for i in range(60)] + ["naïve", "don't", "a"]
    good, bad = ["great", "fine"], ["awful", "dull"]
    labels = generator.integers(0, 2, 400).tolist()
    texts = [
        " ".join(generator.choice(words + (good if label else bad) * 8, size=generator.integers(5, 120)))
        for label in labels
    ]
    return texts, labels


def test_worked_example(tmp_path):
    gold = write(tmp_path, [("good", 2.0, 1.0), ("film", 1.0, -0.5), ("good film", 3.0, 2.0)]).build("cpu")
    # "Good good film": good twice, film once, "good film" once; "good good" is unknown.
    features = np.array([(1 + np.log(2)) * 2.0, 1.0, 3.0])
    expected = 0.5 + features @ np.array([1.0, -0.5, 2.0]) / np.linalg.norm(features)
    scored = gold.score(["Good"], [" good film"])
    assert scored.values.tolist() == pytest.approx([expected], abs=1e-6)
    assert scored.num_cut == 0


def test_no_known_ngram_scores_the_intercept_and_no_rows_score_nothing(tmp_path):
    gold = write(tmp_path, [("good", 2.0, 1.0)]).build("cpu")
    assert gold.score(["", "xx"], ["", " yy"]).values.tolist() == [0.5, 0.5]
    assert gold.score([], []).values.shape == (0,)


def test_on_response_ignores_the_prompt(tmp_path):
    gold = write(tmp_path, [("good", 2.0, 1.0), ("bad", 1.0, -3.0)])
    alone = gold.model_copy(update={"reads": "response"}).build("cpu")
    assert alone.score(["bad"], [" good"]).values.tolist() == [1.5]
    assert gold.build("cpu").score(["bad"], [" good"]).values.tolist() != [1.5]


def test_scores_do_not_depend_on_the_batch(tmp_path, labelled):
    texts, labels = labelled
    fit_ngram(texts, labels, tmp_path)
    gold = Ngram(path=str(tmp_path)).build("cpu")
    together = gold.score([""] * 40, texts[:40]).values
    alone = torch.cat([gold.score([""], [text]).values for text in texts[:40]])
    assert torch.equal(together, alone)


def test_equals_scikit_learn(tmp_path, labelled, monkeypatch):
    from sklearn import linear_model
    from sklearn.feature_extraction import text as sk_text

    fitted = []

    def keep(cls):
        def make(*args, **kwargs):
            fitted.append(cls(*args, **kwargs))
            return fitted[-1]

        return make

    monkeypatch.setattr(sk_text, "TfidfVectorizer", keep(sk_text.TfidfVectorizer))
    monkeypatch.setattr(linear_model, "LogisticRegression", keep(linear_model.LogisticRegression))
    texts, labels = labelled
    fit_ngram(texts, labels, tmp_path)
    vectorizer, model = fitted
    probes = [*texts, "", "GREAT great great", "great awful unknown", "a b c", "naïve don't"]
    expected = model.decision_function(vectorizer.transform(probes))
    got = Ngram(path=str(tmp_path)).build("cpu").decide(probes)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_a_fit_learns_reports_and_repeats(tmp_path, labelled):
    texts, labels = labelled
    metrics = fit_ngram(texts, labels, tmp_path / "a", seed=3)
    assert metrics["auc"] > 0.9
    assert metrics["accuracy_40_words"] > 0.7
    assert metrics["texts"] == 360
    assert fit_ngram(texts, labels, tmp_path / "b", seed=3) == metrics
    assert (tmp_path / "a/config.json").read_bytes() == (tmp_path / "b/config.json").read_bytes()
    assert fit_ngram(texts, labels, tmp_path / "c", seed=4) != metrics
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".json", ".parquet"}
    gold = Ngram(path=str(tmp_path / "a")).build("cpu")
    good, bad = gold.score(["", ""], ["great fine", "awful dull"]).values.tolist()
    assert good > 0 > bad


def test_held_out_texts_are_not_fitted_to(tmp_path):
    texts = [f"{'great' if i % 2 else 'awful'} unique{i} unique{i}" for i in range(100)]
    fit_ngram(texts, [i % 2 for i in range(100)], tmp_path, FitNgram(held_out=0.2, min_texts=1))
    known = set(pq.read_table(tmp_path / "ngrams.parquet").column("ngram").to_pylist())
    assert sum(f"unique{i}" in known for i in range(100)) == 80


def test_cuts_are_runs_of_the_text_in_the_wanted_lengths():
    text = " ".join(f"w{i}" for i in range(200))
    cuts = cut_texts([text] * 300 + ["short text"], (12, 60), seed=0)
    assert cuts[-1] == "short text"
    assert all(cut in text for cut in cuts[:-1])
    lengths = {len(cut.split()) for cut in cuts[:-1]}
    assert min(lengths) == 12 and max(lengths) == 60
    assert len({cut.split()[0] for cut in cuts}) > 50


def test_one_label_is_refused(tmp_path):
    with pytest.raises(UserError, match="both labels"):
        fit_ngram([f"text number{i}" for i in range(30)], [1] * 30, tmp_path)
    with pytest.raises(UserError, match="no n-grams to learn from"):
        fit_ngram([f"{i % 10} x y{' a' * i}" for i in range(100)], [i % 2 for i in range(100)], tmp_path)


def test_folders_that_are_not_a_scorer(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        Ngram(path=str(tmp_path)).build("cpu")
    with pytest.raises(UserError, match="norm='l2'"):
        write(tmp_path / "a", [("good", 2.0, 1.0)], norm="l1").build("cpu")
    with pytest.raises(UserError, match="no finite weight"):
        write(tmp_path / "b", [("good", 2.0, float("nan"))]).build("cpu")
    broken = write(tmp_path / "c", [("good", 2.0, 1.0)])
    (tmp_path / "c/ngrams.parquet").write_text("torn")
    with pytest.raises(UserError, match="not a readable n-gram scorer"):
        broken.build("cpu")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models/imdb-gold-linear").is_dir(), reason=f"no {os.fspath(SHARED)}")
def test_shipped_scorer_has_its_published_auc():
    from sklearn.metrics import roc_auc_score

    texts, labels = read_labelled(TableSource(path="${GOLDILOCKS_SHARED}/data/imdb_test.parquet"))
    gold = Ngram(path="${GOLDILOCKS_SHARED}/models/imdb-gold-linear").build("cpu")
    short = [" ".join(text.split()[:40]) for text in texts]
    values = gold.score([""] * len(short), short).values.numpy()
    assert roc_auc_score(labels, values) == pytest.approx(0.869, abs=5e-4)
    assert gold.score([""], ["great"]).values.item() == pytest.approx(7.3, abs=0.05)

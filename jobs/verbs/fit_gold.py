"""`goldilocks fit-gold`: an n-gram gold scorer from labelled text that nothing else sees."""

from pathlib import Path

from framework.artifacts import writing
from framework.config import Config
from framework.data.tables import read_labelled
from framework.errors import UserError
from framework.gold.ngram import fit_ngram
from jobs.verbs.show import closing, console
from jobs.workspace import working_in


def fit_gold(cfg: Config, out: Path) -> int:
    """Fit, print held-out figures, and say how to use the scorer."""
    if cfg.fit_gold is None or cfg.fit_gold.source is None:
        raise UserError("fit_gold is not set: name labelled text, for example fit_gold.source.path=reviews.parquet")
    texts, labels = read_labelled(cfg.fit_gold.source)
    path = out / "gold"
    with working_in(out), writing(path) as scratch:
        figures = fit_ngram(texts, labels, scratch, cfg.fit_gold, cfg.seed)
    for name, value in figures.items():
        console.print(f"{name}: {value:.4g}")
    closing(path, f"goldilocks train ... gold.kind=ngram gold.path={path}")
    return 0

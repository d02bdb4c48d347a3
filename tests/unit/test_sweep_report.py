"""The report of a sweep: complete, self-contained, escaped, and honest about what the data cannot say."""

import json
import re

import pytest
import yaml

from framework.analysis.sweep_analysis import analyse_sweep
from framework.analysis.sweep_table import TrialRecord, build_table
from framework.report.figures import Figure
from framework.report.sweep import write_sweep_report
from framework.report.sweep_reading import read_sweep
from tests.unit.fake_run import write_fake_run
from tests.unit.fake_sweep import fake_table
from tests.unit.test_report import Outline

PLOTS = {"frontier.png", "best_of_n_beside_rl.png", "budgets_reached.png", "traces.png", "gold_by_budget.png"}


def report(folder, table, records=()):
    """The page, checked to nest and to name no number that is none, and its text."""
    page = write_sweep_report(folder, table, analyse_sweep(table), records).read_text()
    text = " ".join(Outline(page).text)
    assert not re.search(r"\b(nan|inf|None)\b", text)
    return page, text


@pytest.fixture
def quick_plots(monkeypatch):
    """Draws every figure, but writes none of it: that takes most of a report's time."""

    def drawn(canvas, name, title, alt, caption):
        canvas.draw_without_rendering()
        return Figure(name, title, alt, caption, b"", b"")

    for module in ("sweep_figures", "sweep_traces"):
        monkeypatch.setattr(f"framework.report.{module}._rendered", drawn)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    table = fake_table(missing=0.02, statuses={("uwo", 8.0, 1): "failed", ("uwo", 16.0, 1): "stopped"})
    return folder, *report(folder, table)


def test_the_report_holds_everything_it_promises(whole):
    folder, _, text = whole
    assert {png.name for png in folder.glob("*.png")} == PLOTS
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PLOTS)
    assert re.search(r"Gold peaks at 6\.\d+ nats under single .* and at 2\d\.\d nats under uwo", text)
    assert "The two intervals do not overlap." in text
    assert "Of 42: 40 finished, 1 stopped early with good data, 1 failed." in text
    assert re.search(r"\d+ of 2,568 rows have no gold or no KL and were dropped", text)
    for phrase in (
        "Ask for 8 nats", "Beyond it, gold is below", "within 10% of their budget", "R0 + d (α − β d)", "isotonic",
        "single, best-of-n", "single, disagreement", "(control)", "Not finished", "All 42 trials",
    ):  # fmt: skip
        assert phrase in text, phrase


def test_the_report_needs_nothing_from_elsewhere(whole):
    folder, page, _ = whole
    outline = Outline(page)
    images = [attrs for tag, attrs in outline.seen if tag == "img"]
    assert len(images) == len(PLOTS) and all(len(attrs["alt"]) > 40 for attrs in images)
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for attrs in images)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert "default-src 'none'" in page
    assert {attrs["href"] for tag, attrs in outline.seen if tag == "a"} == PLOTS
    assert (folder / "report.html").stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ({"methods": ("single",), "seeds": 1}, ["with one seed", "One seed says nothing"]),
        ({"budgets": (8.0,)}, ["No budget is recommended", "6 of 6 held"]),
        (
            {"budgets": (None,), "methods": ("a, kl.coef=0.1", "a, kl.coef=0.2")},
            ["No trial was given a KL budget", "kl.coef=0.2, RL"],
        ),
        ({"gold": False}, ["Gold could not be fitted for any method", "nothing is known of their lead"]),
        ({"budgets": (1.0, 2.0), "best_of_n": False}, ["No method has a peak of gold that the data support"]),
        (
            {"methods": [f"m{number}" for number in range(12)], "budgets": (8.0, 32.0)},
            ["m11, RL", "12 methods"],
        ),
        ({"drop": ("kl_coef", "proxy", "gap", "disagreement", "step")}, ["Gold peaks at"]),
        ({"steps": 1, "budgets": (4.0, 8.0)}, ["All 12 trials"]),
    ],
)
def test_the_report_copes_with_little(tmp_path, quick_plots, options, phrases):
    _, text = report(tmp_path, fake_table(**{"steps": 25, **options}))
    assert all(phrase in text for phrase in phrases), [phrase for phrase in phrases if phrase not in text]


def test_without_a_complete_trial_nothing_is_compared(tmp_path, quick_plots):
    statuses = {("single", 8.0, seed): "unfinished" for seed in range(3)}
    _, text = report(tmp_path, fake_table(methods=("single",), budgets=(8.0,), steps=12, statuses=statuses))
    assert "No trial has come to its end" in text and "Of 3: 3 unfinished." in text


def test_samples_and_origins_are_those_of_the_runs(tmp_path, quick_plots):
    evil = '<script>alert("1")</script> & </blockquote>'
    records = [
        TrialRecord(f"single-budget_{budget}", "single <b>", float(budget), seed, {"kl.budget": budget}, "finished",
                    write_fake_run(tmp_path / f"seed_{seed}" / f"{budget}" / "train", seed=seed, steps=12, text=evil))
        for seed in range(2)
        for budget in (2, 34)
    ]  # fmt: skip
    records.append(
        TrialRecord("single-budget_8", "single <b>", 8.0, 0, {}, "failed", None, "actor <died> & left")
    )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"name": evil}))
    (tmp_path / "analysis.json").write_text(json.dumps({}))
    page, text = report(tmp_path, build_table(records), records)
    assert "<script" not in page and "<b>" not in page and "&lt;script&gt;alert" in page
    assert "actor <died> & left" in text and "Of 5: 4 finished, 1 failed." in text
    summaries = re.findall(r"<summary>(single[^<]*)</summary>", page)
    assert (
        len(summaries) in (1, 2)
        and "largest budget" in summaries[0]
        and summaries[0].endswith("34 nats, seed 0")
    )
    assert "00ab34cd56" in text and "pppppppppppppppp" in text and "0.1.0" in text
    links = {attrs["href"] for tag, attrs in Outline(page).seen if tag == "a"}
    assert "analysis.json" in links and "results.parquet" not in links


def test_methods_with_one_peak_are_not_told_apart():
    table = fake_table(methods=("one", "other"), best_of_n=False)
    headline = read_sweep(analyse_sweep(table), {"finished": 42})[0].text
    assert headline.endswith("The two intervals overlap.")

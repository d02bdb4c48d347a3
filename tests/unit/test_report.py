"""The report: complete, self-contained, escaped, honest about what was not measured, and quick."""

import re
import time
from html.parser import HTMLParser

import pytest

from framework.analysis.comparison import compare_runs
from framework.analysis.curves import load_run
from framework.errors import UserError
from framework.report.comparison import comparison_tables
from framework.report.html import write_run_report, write_study_report
from framework.report.reading import number, read_run, read_study
from framework.report.samples import sample_phases
from tests.unit.fake_run import write_fake_run, write_fake_study

PLOTS = {"by_step.png", "by_sqrt_kl.png", "kl.png", "disagreement.png", "length.png", "time.png"}
VOID = {"meta", "img", "br", "link", "input"}


class Outline(HTMLParser):
    """Checks that tags nest, and keeps what the tests ask about."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)


@pytest.fixture
def without_plots(monkeypatch):
    """Leaves out the drawing, which takes most of a report's time."""
    monkeypatch.setattr("framework.report.html.draw_all", lambda runs: [])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    runs = write_fake_study(folder, variants=("single", "worst_case"), seeds=3, steps=30)
    return runs, write_study_report(folder, runs)


def test_a_study_report_holds_everything_it_promises(study):
    _, path = study
    page = path.read_text()
    outline = Outline(page)
    text = " ".join(outline.text)
    assert path.name == "report.html"
    assert {png.name for png in path.parent.glob("*.png")} == PLOTS
    assert all((path.parent / name).read_bytes().startswith(b"\x89PNG") for name in PLOTS)
    for phrase in (
        "single",
        "worst_case",
        "It turned over in 3 of 3 seeds",
        "95% interval",
        "At the gold peak",
        "Warnings that need no gold",
        "worst_case, disagreement",
        "worst_case, kl_nats",
    ):
        assert phrase in text
    assert "pppppppppppppppp" in text and "00ab34cd56" in text
    runs = [attrs for tag, attrs in outline.seen if tag == "details" and attrs.get("class") == "run"]
    assert [(r["data-variant"], r["data-seed"]) for r in runs[:2]] == [("single", "0"), ("single", "1")]
    assert len(runs) == 6


def test_a_report_needs_nothing_from_elsewhere(study):
    _, path = study
    page = path.read_text()
    outline = Outline(page)
    images = [attrs for tag, attrs in outline.seen if tag == "img"]
    assert len(images) == len(PLOTS)
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for attrs in images)
    assert all(len(attrs["alt"]) > 40 for attrs in images)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    links = {attrs["href"] for tag, attrs in outline.seen if tag == "a"}
    assert links == PLOTS


def test_text_from_a_run_cannot_become_markup(tmp_path, without_plots):
    evil = '<script>alert("1")</script> $title & \x00\x1b \U0001f600 </blockquote>'
    run = write_fake_run(tmp_path / "run", steps=3, text=evil)
    page = write_run_report(run).read_text()
    Outline(page)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; $title &amp; \ufffd\ufffd \U0001f600" in page


def test_the_worst_gap_comes_first_and_a_typical_response_last(study):
    runs, _ = study
    phases = sample_phases(load_run(runs["single"][0]))
    assert [phase.name for phase in phases] == ["start", "peak", "end"]
    assert phases[0].step == 0 and phases[2].step == 29
    for phase in phases:
        *worst, typical = phase.samples
        gaps = [sample.gap for sample in worst]
        assert gaps == sorted(gaps, reverse=True) and len(gaps) == 3
        assert typical.is_typical and typical.gap <= gaps[-1]


def test_samples_are_read_at_gold_scored_steps_only(tmp_path):
    run = load_run(write_fake_run(tmp_path / "run", steps=40, gold_every=6))
    assert all(phase.step % 6 == 0 for phase in sample_phases(run))
    assert all(sample.gold is not None for phase in sample_phases(run) for sample in phase.samples)


def test_identical_responses_are_shown_once(tmp_path):
    run = load_run(write_fake_run(tmp_path / "run", steps=2, text="always the same"))
    assert [len(phase.samples) for phase in sample_phases(run)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"gold_every": None}, "Gold was never measured"),
        ({"rollouts": False}, "No rollouts were kept"),
        ({"timings": False}, "moving mean"),
        ({"steps": 1}, "over 1 step"),
    ],
)
def test_a_report_says_what_is_missing(tmp_path, options, phrase):
    page = write_run_report(write_fake_run(tmp_path / "run", **{"steps": 8, **options})).read_text()
    Outline(page)
    assert phrase in page and ">nan<" not in page.lower()


def test_the_reading_follows_the_data(tmp_path):
    fell = read_run(load_run(write_fake_run(tmp_path / "fell", peak=0.4, noise=0.0)))[0].text
    assert re.search(
        r"to a peak of [\d.]+ at step 2\d and [\d.]+ nats and ended at .*: [78]\d% of its gain", fell
    )
    rising = read_run(load_run(write_fake_run(tmp_path / "rising", peak=5.0, noise=0.0)))[0].text
    assert "did not turn over within this run" in rising
    noisy = read_run(load_run(write_fake_run(tmp_path / "noisy", peak=0.3, noise=3.0)))[0].text
    assert "of its gain" not in noisy


def test_variants_with_one_seed_are_not_called_different_for_sure(tmp_path):
    runs = write_fake_study(tmp_path, variants=("single", "mean"), seeds=1, steps=20)
    read = {name: {seed: load_run(path) for seed, path in seeds.items()} for name, seeds in runs.items()}
    comparison = read_study(read)[-1]
    assert comparison.about == "mean against single"
    assert "one seed, so this may be chance" in comparison.text and "interval" not in comparison.text


def test_numbers_are_written_for_people():
    assert [number(x) for x in (None, 0.0, -0.001, 1.234, -12.34, 1234.5)] == [
        *("–", "0.00", "0.00", "1.23", "−12.3", "1,234")
    ]
    assert number(0.5, signed=True) == "+0.50"


def test_out_may_be_a_file_or_a_folder(tmp_path, without_plots):
    run = write_fake_run(tmp_path / "run", steps=2)
    assert write_run_report(run, tmp_path / "other") == tmp_path / "other" / "report.html"
    assert write_run_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert not list(tmp_path.glob("*.part"))


def test_the_same_run_gives_the_same_page(tmp_path):
    run = write_fake_run(tmp_path / "run", steps=4)
    first, again = write_run_report(run), write_run_report(run, tmp_path / "again")
    assert first.read_bytes() == again.read_bytes()
    assert all((again.parent / plot).read_bytes() == (run / plot).read_bytes() for plot in PLOTS)


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, without_plots):
    run = write_fake_run(tmp_path / "run", steps=2)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the report") as caught:
        write_run_report(run, tmp_path / "file" / "sub")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no run to report on"):
        write_study_report(tmp_path, {})


def test_a_study_of_fifteen_runs_is_small_and_quick(tmp_path):
    runs = write_fake_study(tmp_path, steps=150)
    started = time.process_time()
    path = write_study_report(tmp_path, runs)
    assert time.process_time() - started < 15
    assert path.stat().st_size < 3_000_000


LAYOUT = {f"{c}-{v}": (c, v) for c in ("noisy", "clean") for v in ("single", "worst_case")}


def _compared(folder, seeds, **options):
    runs = write_fake_study(folder, variants=tuple(LAYOUT), seeds=seeds, steps=30, **options)
    loaded = {name: {seed: load_run(run) for seed, run in seeds.items()} for name, seeds in runs.items()}
    return runs, compare_runs(loaded, LAYOUT, "single")


def test_a_study_with_a_baseline_shows_its_table(tmp_path):
    runs, comparison = _compared(tmp_path, seeds=3)
    outline = Outline(write_study_report(tmp_path, runs, comparison, LAYOUT).read_text())
    text = " ".join(outline.text)
    for phrase in ("By PPO", "The proxy under PPO", "noisy, PPO", "Against single, of 1 other variants"):
        assert phrase in text
    assert "By best-of-n" not in text  # there is none
    assert {"comparison.png", "gold_by_sqrt_kl_noisy.png", "gold_by_sqrt_kl_clean.png"} <= {
        path.name for path in tmp_path.glob("*.png")
    }
    cell = comparison.ppo["noisy", "worst_case"]["gold_final_difference"]
    assert f"{number(cell.mean)} [{number(cell.interval[0])}, {number(cell.interval[1])}]" in text
    assert "nan" not in text.lower().split()


def test_a_comparison_marks_what_is_clear_and_leaves_out_what_is_unknown(tmp_path):
    _, comparison = _compared(tmp_path / "many", seeds=3, noise=0.01)
    table = comparison_tables(comparison)[0]
    assert [figure for figure, condition in table.head if condition == "clean"][1] == "less baseline"
    rows = dict(table.rows)
    ends = comparison.ppo["noisy", "worst_case"]["gold_final_difference"]
    assert rows["worst_case"][1].is_clear == (ends.sign != 0)
    assert not any(cell.is_clear for cell in rows["single"])
    assert rows["single"][1].value == "–"
    _, comparison = _compared(tmp_path / "one", seeds=1)
    cells = [cell for table in comparison_tables(comparison) for _, cells in table.rows for cell in cells]
    assert not any(cell.bounds or cell.half or cell.is_clear for cell in cells)


def test_many_variants_are_drawn_condition_by_condition(tmp_path):
    layout = {f"{c}-{v}": (c, v) for c in ("noisy", "clean") for v in ("single", "a", "b", "c")}
    runs = write_fake_study(tmp_path, variants=tuple(layout), seeds=2, steps=8)
    loaded = {name: {seed: load_run(run) for seed, run in seeds.items()} for name, seeds in runs.items()}
    path = write_study_report(tmp_path, runs, compare_runs(loaded, layout, "single"), layout)
    assert not (tmp_path / "by_step.png").exists()
    shown = [a["data-seed"] for t, a in Outline(path.read_text()).seen if t == "details" and "data-seed" in a]
    assert shown == ["0"] * len(layout)

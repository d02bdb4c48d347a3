"""The report: complete, self-contained, escaped, bounded, and honest about what was not measured."""

import base64
import dataclasses
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from framework.analysis.columns import BEST_OF_N
from framework.analysis.comparison import RUNS
from framework.analysis.experiment import analyse
from framework.analysis.table import Table, build_table, record_of
from framework.errors import UserError
from framework.report import write_report
from framework.report.charts import Figure, Palette
from framework.report.drawn import dot_rows
from framework.report.findings import headline, paragraphs
from framework.report.sections.tables import samples
from framework.report.text import count, number, percent
from tests.unit.fake_run import write_fake_run
from tests.unit.fake_sweep import fake_table

VOID = {"meta", "img", "br", "link", "input", "line"}
STILL = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"></svg>'


class Outline(HTMLParser):
    """Checks that tags nest, and keeps what the tests ask about."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text, self.data = [], [], [], {}
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data[self.seen[-1][1].get("id", len(self.data))] = data
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for own, attrs in self.seen if own == tag]


def one(folder, **options):
    """An experiment of one fake run."""
    record = dataclasses.replace(record_of(write_fake_run(folder / "train", **options)), status="finished")
    return analyse("Run: one", build_table([record]), [record])


def study(folder, seeds=3, variants=("single", "worst_case"), **options):
    """An experiment of fake runs in two conditions, against `single`."""
    records = []
    for condition in ("clean", "noisy"):
        for place, variant in enumerate(variants):
            for seed in range(seeds):
                name = f"{condition}-{variant}"
                run = folder / f"seed_{seed}" / name / "train"
                write_fake_run(run, seed=seed, peak=0.3 + 0.3 * place, steps=20, **options)
                own = {"run": name, "curve": name, "condition": condition, "variant": variant}
                records.append(dataclasses.replace(record_of(run), **own, seed=seed, status="finished"))
    return analyse("study", build_table(records), records, baseline="single")


def sweep(**options):
    table = fake_table(**options)
    return analyse("sweep", table, table.records)


def page_of(experiment, folder, **options):
    """The page, checked to nest and to name no number that is none, and what is in it."""
    page = write_report(experiment, folder, **options).read_text()
    outline = Outline(page)
    assert not re.search(r"\b(nan|inf|None|undefined)\b", " ".join(outline.text))
    return page, outline, " ".join(" ".join(outline.text).split())


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the drawing, which takes most of a report's time; every spec is still made."""
    monkeypatch.setattr(Figure, "still", lambda figure, dots: STILL)
    monkeypatch.setattr("framework.report.page.png", lambda svg: b"")
    monkeypatch.setattr("framework.report.page._library", lambda: "void 0;")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small run, drawn in full."""
    folder = tmp_path_factory.mktemp("drawn")
    experiment = one(folder, steps=12)
    return experiment, folder, *page_of(experiment, folder)


def test_a_report_is_drawn_three_ways(drawn):
    _, folder, _, outline, _ = drawn
    specs, images = json.loads(outline.data["specs"]), outline.all("img")
    assert len(specs) == len([box for box in outline.all("div") if "data-spec" in box]) > len(images)
    for image in images:
        ET.fromstring(base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")))
        assert len(image["alt"]) > 10
    names = {name.rsplit("-", 1)[0] for name in specs}
    assert {"by_kl", "by_step", "signals", "time"} <= names
    assert {path.stem for path in folder.glob("*.png")} == names and len(images) == len(names)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert all(spec["width"] == "container" and "points" not in spec["datasets"] for spec in specs.values())


def test_a_report_needs_nothing_from_elsewhere_and_runs_no_other_script(drawn):
    _, _, page, outline, _ = drawn
    (policy,) = (meta["content"] for meta in outline.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none';") and "eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.count("sha256-") == len(scripts) == 2
    outside = re.sub(r"<script.*?</script>|data:image[^\"]*", "", page, flags=re.S)
    assert not re.search(r"https?://|@import|url\(", outside)
    assert all(not link["href"].startswith("/") for link in outline.all("a"))
    assert all("scope" in head for head in outline.all("th"))


def test_the_same_run_gives_the_same_page(drawn, tmp_path):
    experiment, folder, page, *_ = drawn
    assert write_report(experiment, tmp_path).read_text() == page
    for plot in folder.glob("*.png"):
        assert (tmp_path / plot.name).read_bytes() == plot.read_bytes()


def test_a_dot_carries_the_samples_of_its_step(tmp_path):
    experiment = one(tmp_path, steps=30)
    read, dots = samples(experiment).values["read"], dot_rows(experiment)
    (steps,) = read.values()
    assert {int(step) for step in steps} == {int(dot["at"]) for dot in dots} == set(range(30))
    for found in steps.values():
        *worst, typical = found
        gaps = [float(sample["gap"].removeprefix("gap ").replace("−", "-")) for sample in found]
        assert gaps[0] >= gaps[1] >= gaps[2] and len(worst) == 2
        assert typical["is_typical"] and not any(sample["is_typical"] for sample in worst)


def test_dots_stand_where_there_is_something_to_read(tmp_path):
    dots = dot_rows(one(tmp_path / "sparse", steps=40, gold_every=6))
    assert [dot["at"] for dot in dots] == [0, 6, 12, 18, 24, 30, 36]
    assert all(dot["gold"] is not None for dot in dots)
    assert len(dot_rows(one(tmp_path / "none", steps=40, rollouts=False))) == 40


def test_text_from_a_run_cannot_become_markup(tmp_path, quick):
    evil = '<script>alert("1")</script> {{ 1 }} & \x00\x1b \U0001f600 </script></blockquote>'
    page, outline, text = page_of(one(tmp_path, steps=3, text=evil), tmp_path)
    assert "<script>alert" not in page and page.count("</script>") == 5
    assert '<script>alert("1")</script> {{ 1 }} & \ufffd\ufffd \U0001f600' in text
    assert json.loads(outline.data["read"])["one, seed 0" if "one, seed 0" in text else next(iter(
        json.loads(outline.data["read"])))]["0"][0]["response"] == evil  # fmt: skip


def test_a_page_of_seventy_runs_is_bounded():
    dots = dot_rows(sweep(seeds=5, steps=200))
    by_run = {(dot["run"], dot["seed"], dot["method"]) for dot in dots}
    assert len(by_run) == 80 and len(dots) < 900


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"gold_every": None}, "Gold was never measured"),
        ({"rollouts": False}, "No rollouts were kept"),
        ({"timings": False}, "The curves"),
        ({"steps": 1}, "over 1 step"),
    ],
)
def test_a_report_says_what_is_missing(tmp_path, quick, options, phrase):
    assert phrase in page_of(one(tmp_path, **{"steps": 8, **options}), tmp_path)[2]


def test_a_study_is_held_against_its_baseline(tmp_path, quick):
    experiment = study(tmp_path)
    page, outline, text = page_of(experiment, tmp_path)
    for phrase in (
        "Gold at the end, against single: clean: ",
        "Holm",
        "By training",
        "The proxy meanwhile",
        "All 12 runs",
    ):
        assert phrase in text, phrase
    figures = {attrs["id"] for attrs in outline.all("figure")}
    assert {"figure-comparison", "figure-by_kl_clean", "figure-by_kl_noisy"} <= figures
    cells = experiment.comparison.figures[RUNS]
    (cell,) = (own for own in cells if own.condition == "noisy" and own.variant == "worst_case")
    difference = cells[cell]["gold_end_difference"]
    shown = f"{number(difference.mean)} [{number(difference.interval[0])}, {number(difference.interval[1])}]"
    assert shown in text
    marked = sum(
        mark != 0 for cells in experiment.comparison.marks.values() for own in cells.values() for mark in own.values()
    )
    assert page.count("<td><strong>") == marked


def test_one_seed_has_no_interval(tmp_path, quick):
    _, _, text = page_of(study(tmp_path, seeds=1), tmp_path)
    assert (
        "One seed: no intervals" in text and "clearly" not in text.split("How each number")[0].split("The numbers")[0]
    )


def test_a_sweep_says_where_gold_peaks_and_what_to_ask_for(tmp_path, quick):
    experiment = sweep(missing=0.02, statuses={("uwo", 8.0, 1): "failed", ("uwo", 16.0, 1): "stopped"})
    _, outline, text = page_of(experiment, tmp_path)
    assert re.search(r"Gold peaks at 6\.\d+ nats under single .* and at 2\d\.\d nats under uwo", text)
    assert headline(experiment) in text
    for phrase in (
        "Of 42: 40 finished, 1 stopped early with good data, 1 failed.", "Ask for 8 nats", "Beyond it, gold is below",
        "R0 + d (α − β d)", "isotonic", "single, best-of-n", "(control)", "Not finished", "All 42 runs",
        "no run folders came with this table",
    ):  # fmt: skip
        assert phrase.lower() in text.lower(), phrase
    figures = {attrs["id"].removeprefix("figure-") for attrs in outline.all("figure")}
    assert {"frontier", "budgets", "traces", "best_of_n", "by_kl", "by_step"} == figures - {"signals"}


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ({"curves": ("single",), "seeds": 1}, ["One seed says nothing"]),
        ({"budgets": (8.0,)}, ["6 of 6 held", "highest under"]),
        ({"budgets": (None,), "best_of_n": False}, ["highest under"]),
        ({"gold": False}, ["Gold was never measured"]),
        ({"method": "dpo", "budgets": (None,)}, ["single, dpo"]),
        ({"curves": tuple("abcdefghi"), "seeds": 2}, ["more"]),
        ({"drop": ("kl_coef", "gold_se", "disagreement")}, ["Ask for"]),
    ],
)
def test_any_table_can_be_reported(tmp_path, quick, options, phrases):
    text = page_of(sweep(steps=20, **options), tmp_path)[2]
    for phrase in phrases:
        assert phrase in text, phrase


def test_best_of_n_alone_is_a_report_too(tmp_path, quick):
    data = fake_table(seeds=1).data
    kept = [place for place, method in enumerate(data["method"].to_pylist()) if method == BEST_OF_N]
    experiment = analyse("Best of n", Table(data.take(kept)), [])
    _, outline, text = page_of(experiment, tmp_path)
    headings = {attrs["id"] for attrs in outline.all("h2") if attrs["id"] != "reader-title"}
    assert headings == {"best_of_n", "frontier", "definitions", "provenance"}
    assert "Every n" in text and "128" in text


def test_a_live_report_says_so_and_leaves_the_pictures_for_the_end(tmp_path, quick):
    page, outline, text = page_of(one(tmp_path, steps=3), tmp_path, live=True)
    assert "Still running" in text and '<meta http-equiv="refresh"' in page
    assert not list(tmp_path.glob("*.png")) and not outline.all("a")
    assert not list(tmp_path.glob("*.part"))


def test_the_findings_follow_the_data(tmp_path):
    fell = headline(one(tmp_path / "fell", peak=0.4, noise=0.01))
    assert re.search(
        r"to a peak of [\d.]+ at step 2\d and [\d.]+ nats and ended at .*: [4-8]\d% of its gain was lost", fell
    )
    assert "did not clearly turn over" in headline(one(tmp_path / "rising", peak=5.0, noise=0.01))
    assert "of its gain" not in headline(one(tmp_path / "noisy", peak=0.3, noise=3.0))
    ((_, paragraph),) = paragraphs(one(tmp_path / "again", peak=0.4, noise=0.01))
    assert paragraph.startswith("The proxy rose by") and fell not in paragraph


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, quick):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the report") as caught:
        write_report(one(tmp_path, steps=2), tmp_path / "file" / "sub")
    assert "\n" not in str(caught.value)


def test_numbers_are_written_for_people():
    values = (None, 0.0, -0.001, 1.234, -12.34, 1234.5)
    assert [number(x) for x in values] == ["–", "0.00", "0.00", "1.23", "−12.3", "1,234"]
    assert number(0.5, signed=True) == "+0.50"
    assert (percent(-0.001), percent(-0.2), count(-31.6)) == ("0%", "−20%", "−32")


def test_lines_and_dots_differ_in_more_than_colour():
    palette = Palette(tuple(str(place) for place in range(28)))
    looks = [palette.look(place) for place in range(28)]
    assert len({(look["color"], str(look["strokeDash"])) for look in looks}) == 28
    assert len({(look["color"], look["shape"]) for look in looks}) == 28

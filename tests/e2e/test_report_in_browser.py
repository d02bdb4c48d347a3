"""The report in a real browser, wide and narrow: hovering, clicking, keys, and a browser without scripts.

With GOLDILOCKS_SCREENSHOTS set to a folder, what was seen is kept there to look at.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from framework.analysis.experiment import analyse
from framework.analysis.table import build_table
from framework.report import write_report
from tests.unit.fake_run import write_fake_run
from tests.unit.test_report import one, study, sweep

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which a container's root cannot have: the pages are ours.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_report(one(folder, steps=24), folder)


def opened(browser, path, width, **options):
    """The page in a window of this width; anything that it logs, or asks of the network, is an error."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    page.troubles = []
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on(
        "request",
        lambda request: page.troubles.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    page.goto(path.resolve().as_uri())
    return page


def kept(page, name):
    if folder := os.environ.get("GOLDILOCKS_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def pointed_at(page, spec):
    """Moves the mouse into the middle of a chart, and gives what the nearest dot says."""
    chart = page.locator(f"[data-spec='{spec}'] svg.marks")
    page.locator(f"figure:has([data-spec='{spec}'])").scroll_into_view_if_needed()
    chart.wait_for()
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(place[0] - 9, place[1])
    page.mouse.move(*place)
    page.locator("#tip").wait_for()
    return dict(row.locator("> *").all_inner_texts() for row in page.locator("#tip div").all()), place


@pytest.mark.parametrize("width", WIDTHS)
def test_a_dot_tells_its_numbers_and_opens_its_samples(browser, report, width):
    page = opened(browser, report, width)
    told, place = pointed_at(page, "by_kl-0")
    assert list(told) == ["curve", "run", "seed", "step", "KL (nats)", "proxy", "gold"]
    kept(page, f"hover_{width}")
    page.mouse.click(*place)
    dialog = page.locator("#reader[open]")
    dialog.wait_for()
    assert dialog.locator("h2").inner_text().endswith(f"seed {told['seed']}: step {told['step']}")
    assert dialog.locator("#reader-figures").inner_text() == (
        f"{told['KL (nats)']} nats · proxy {told['proxy']} · gold {told['gold']}".replace("−", "-")
    )
    assert dialog.locator("article").count() == 3 and "the pasta felt" in dialog.inner_text()
    kept(page, f"click_{width}")
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text().endswith(f"step {int(told['step']) + 1}")
    page.keyboard.press("Escape")
    page.locator("#reader[open]").wait_for(state="detached")
    assert page.troubles == []
    page.close()


def test_samples_can_be_reached_without_a_mouse(browser, report):
    page = opened(browser, report, 1280)
    page.locator(".chooser select[name=at]").select_option("7")
    page.locator(".chooser button").focus()
    page.keyboard.press("Enter")
    assert page.locator("#reader[open] h2").inner_text().endswith("step 7")
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_without_scripts_shows_its_pictures(browser, report, width):
    page = opened(browser, report, width, java_script_enabled=False)
    images = page.locator("figure img")
    assert images.count() > 3
    for place in range(images.count()):
        box = images.nth(place).bounding_box()
        assert box["width"] > 250 and box["height"] > 40
    assert not page.locator("#reader, .chooser").filter(visible=True).count()
    kept(page, f"no_scripts_{width}")
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["study", pytest.param("sweep", marks=pytest.mark.slow)])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_window(browser, tmp_path, width, kind):
    experiment = study(tmp_path, seeds=2) if kind == "study" else sweep(steps=30)
    page = opened(browser, write_report(experiment, tmp_path), width)
    for figure in page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        for chart in figure.locator(".chart").all():
            chart.locator("svg.marks").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not [text for text in page.troubles if not text.startswith("WARN")]
    page.close()


def test_what_a_run_wrote_stays_text(browser, tmp_path):
    text = "<img src=x onerror=alert(1)> </script><script>document.title = 'taken'</script>"
    folder = write_fake_run(tmp_path / "one" / "train", steps=6, text=text)
    page = opened(browser, write_report(_experiment(folder), tmp_path), 1280)
    told, place = pointed_at(page, "by_step-0")
    page.mouse.click(*place)
    page.locator("#reader[open]").wait_for()
    assert text in page.locator("#reader").inner_text() and page.title() != "taken"
    assert not page.locator("#reader img").count() and re.fullmatch(r"\d", told["step"])
    page.close()


def _experiment(folder):
    from framework.analysis.table import record_of

    record = record_of(folder)
    return analyse("one", build_table([record]), [record])

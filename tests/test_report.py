"""The report in a real browser: it counts, sorts, filters, and nothing in a name becomes code."""

import json

import numpy as np
import pytest

from anogan.data.image_set import ImageSet
from anogan.evaluation.outcome import Outcome
from anogan.evaluation.rows import Rows
from anogan.evaluation.scoring import COLUMNS
from anogan.method.threshold import NormalScores
from anogan.report import page as report_page

pytestmark = pytest.mark.unit

NAMES = ["缺陷/图片.png", "صورة.png", "שלום.png", "Ωμέγα_дефект.png"]
ARROW_RIGHT, ESCAPE = "\ue014", "\ue00c"  # as WebDriver names keys
EVIL = "<img src=x onerror=alert(1)>.png"
COUNT = 10_000


@pytest.fixture(scope="module")
def rows():
    """10,000 scored images, the most anomalous first; a tenth anomalous, of two kinds."""
    rng = np.random.default_rng(0)
    anomalous = np.arange(COUNT) % 10 == 0
    score = rng.normal(size=COUNT) + 3 * anomalous
    order = np.argsort(-score)
    kind = np.where(anomalous, np.where(np.arange(COUNT) % 20 == 0, "crack", "stain"), "good")
    return {
        "file": [EVIL, *NAMES, *(f"{kind[j]}/{j:05d}.png" for j in order[5:])],
        "label": ["anomalous" if anomalous[j] else "normal" for j in order],
        "kind": [str(kind[j]) for j in order],
        "score": score[order],
    }


@pytest.fixture(scope="module")
def outcome(rows):
    labels = np.array([label == "anomalous" for label in rows["label"]]).astype(int)
    images = ImageSet.from_array(
        np.zeros((COUNT, 2, 2, 1), np.uint8), rows["file"], labels, rows["kind"]
    )
    columns = {name: np.random.default_rng(1).random(COUNT) for name in COLUMNS}
    columns["score"] = rows["score"]
    columns["peak_contribution"] = columns["peak"] + 9
    low = rows["score"].min()
    normal = NormalScores([low - 1, *np.linspace(low + 0.01, 1.5, 99)])
    metrics = {
        **{"run": None, "window": None, "threshold": 1.5, "threshold_is": "given by hand"},
        "called_anomalous": int((rows["score"] > 1.5).sum()),
        **{"normal": 9000, "anomalous": 1000, "shift": "they look unlike those trained on"},
        "at_threshold": {"recall": 0.9333, "false_positive_rate": 0.0667},
        **{"dataset": "</script><script>alert(2)</script>", "images": COUNT, "skipped": 0},
        **{"warnings": {}, "step": 1, "total_steps": 1, "size": "2 x 2 x 1", "versions": {}},
        **{"search": "encoder", "precision": "", "date": "", "score": {"expected_auroc": None}},
    }
    known = Rows(np.arange(COUNT), columns, {}, None)
    return Outcome(images, known, normal, 1.5, 0.5, metrics)


@pytest.fixture(scope="module")
def page(outcome, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    shape = 160, 64, 3
    pictures = [report_page.webp(np.full(shape, i, np.uint8)) for i in range(60)]
    places = [*range(100), *range(COUNT - 50, COUNT)]
    gallery = {i: [pictures[(i + k) % 60] for k in range(3)] for i in places}
    path = folder / "report.html"
    report_page.write(path, outcome, gallery, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "MOST_ROWS", 60)
        report_page.write(folder / "short.html", outcome, gallery, {})
    return path


def load(browser, path):
    """Open a page; on a busy machine the driver may return while it is still being read."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(path.as_uri())
    is_ready = "return document.body?.dataset.ready === 'yes';"
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(is_ready))


@pytest.fixture(scope="module")
def browser(page, chromium):
    load(chromium, page)
    return chromium


def text(browser, name):
    return browser.find_element("id", name).text


def measured(browser):
    lines = browser.find_elements("css selector", "#measures tr")
    return {
        line.find_element("tag name", "th").text: line.find_element("tag name", "td").text
        for line in lines
    }


def slide(browser, place):
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'));",
        place,
    )
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50));")


def first_cells(browser, column):
    cells = browser.find_elements("css selector", f"#table tbody td:nth-child({column})")
    return [cell.text for cell in cells]


def choose(browser, name, value):
    browser.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change'));",
        name,
        value,
    )


def test_page_is_small(page):
    assert page.stat().st_size < 15 * 2**20


def test_page_is_ready_within_two_seconds(browser):
    timing = browser.execute_script(
        "const t = performance.getEntriesByType('navigation')[0];"
        "return [t.domInteractive, document.body.dataset.ready];"
    )
    assert timing[0] < 2000 and timing[1] == "yes"


def test_the_first_screen_says_what_was_found_how_sure_and_what_to_look_at(browser, rows):
    screen = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    found, sure, first, bar = (
        browser.find_element("css selector", name) for name in (".found", ".sure", ".first", ".bar")
    )
    places = [one.rect for one in (found, sure, first, bar)]
    assert [place["y"] for place in places] == sorted(place["y"] for place in places)
    assert places[3]["y"] + places[3]["height"] < 800
    called = (rows["score"] > 1.5).sum()
    assert found.text == f"{called} of {COUNT} images are called anomalous: they score above 1.5"
    lines = sure.text.split("\n")
    assert lines[0] == "they look unlike those trained on" and "threshold: given by hand" in lines
    assert (
        "by the labels, of 1000 anomalous images 93.3% are and of 9000 normal images 6.7% are "
        "called anomalous" in lines
    )
    links = first.find_elements("tag name", "a")
    assert [link.text.split("\n")[0] for link in links] == rows["file"][:6]
    assert len({link.size["width"] for link in links}) == 1  # whatever their names' length
    links[2].click()
    assert browser.find_element("id", "image-2").size["width"] >= 1200
    browser.find_element("tag name", "body").send_keys(ESCAPE)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_the_slider_changes_follows_it_and_all_else_comes_after(browser):
    names = [".bar", "#measures", "#table", "#gallery", ".plots", "[aria-label='The run']"]
    tops = [browser.find_element("css selector", name).rect for name in names]
    assert [top["y"] for top in tops] == sorted(top["y"] for top in tops)
    assert tops[1]["y"] - (tops[0]["y"] + tops[0]["height"]) < 20
    assert tops[2]["y"] - (tops[1]["y"] + tops[1]["height"]) < 200


def test_counts_at_the_threshold_are_those_of_the_scores(browser, rows):
    browser.find_element("id", "reset").click()
    called = rows["score"] > 1.5
    truth = np.array(rows["label"]) == "anomalous"
    found = measured(browser)
    assert int(text(browser, "called")) == called.sum()
    assert int(found["true positives"]) == (called & truth).sum()
    assert int(found["false positives"]) == (called & ~truth).sum()
    assert float(found["recall (sensitivity)"]) == pytest.approx(called[truth].mean(), abs=1e-3)


def test_counts_and_gallery_are_of_all_images_where_the_table_holds_but_some(browser, page, rows):
    load(browser, page.with_name("short.html"))
    called, truth = rows["score"] > 1.5, np.array(rows["label"]) == "anomalous"
    found = measured(browser)
    assert int(text(browser, "called")) == called.sum() and text(browser, "total") == str(COUNT)
    assert int(found["true negatives"]) == (~called & ~truth).sum()
    assert "60 images" in text(browser, "page") and text(browser, "shown") == "150"
    choose(browser, "order", "least")
    card = browser.find_element("css selector", "#gallery .card").text
    assert rows["file"][-1] in card and "99 of 100 held-out normal images" in card
    choose(browser, "order", "most")
    assert "fewer than 1 in 100 " in browser.find_element("css selector", "#gallery .card").text
    load(browser, page)


def test_slider_recounts(browser, rows):
    from selenium.webdriver.support.ui import WebDriverWait

    for place, wanted in ((900, COUNT / 10), (100, 0.9 * COUNT)):
        slide(browser, place)
        WebDriverWait(browser, 10).until(  # a busy machine draws late
            lambda _, wanted=wanted: abs(int(text(browser, "called")) - wanted) <= 2
        )
    assert float(measured(browser)["recall (sensitivity)"]) > 0.99
    browser.find_element("id", "reset").click()


def test_table_sorts_both_ways_and_searches(browser, rows):
    column = 4  # score
    button = browser.find_element("css selector", "button[data-key=score]")
    first = [float(v) for v in first_cells(browser, column)]
    assert first == sorted(first, reverse=True)
    button.click()
    first = [float(v) for v in first_cells(browser, column)]
    assert first == sorted(first) and first[0] == pytest.approx(rows["score"].min(), rel=1e-3)
    button.click()
    browser.find_element("id", "search").send_keys("crack/0012")
    assert all("crack/0012" in name for name in first_cells(browser, 1))
    browser.find_element("id", "search").clear()
    browser.find_element("id", "search").send_keys("x\b")
    assert len(first_cells(browser, 1)) == 20


def test_gallery_filters_by_kind_and_decision(browser):
    choose(browser, "kind", "crack")
    names = [card.text for card in browser.find_elements("css selector", "#gallery .name")]
    assert names and all("(crack)" in name for name in names)
    choose(browser, "kind", "")
    choose(browser, "decision", "normal")
    assert text(browser, "shown") == "50"
    choose(browser, "decision", "")
    choose(browser, "order", "least")
    cards = browser.find_elements("css selector", "#gallery .card")
    assert "is-anomaly" not in cards[0].get_attribute("class")
    choose(browser, "order", "most")


def test_threshold_falls_between_the_cards_it_parts(browser, rows):
    order = "return Array.from(document.querySelectorAll('#gallery > *'), e => e.className)"
    classes = browser.execute_script(order)
    assert classes.count("cut") == 1
    at = classes.index("cut")
    called = [c == "card is-anomaly" for c in classes if c != "cut"]
    assert all(called[:at]) and not any(called[at:]) and sum(called) == 100
    assert browser.find_element("css selector", ".cut").text == "threshold 1.500"


def test_names_in_any_script_are_shown(browser):
    shown = [e.text for e in browser.find_elements("css selector", "#gallery .name bdi")[:5]]
    assert shown == [EVIL, *NAMES]
    assert set(NAMES) <= set(first_cells(browser, 1))


def test_a_click_enlarges_a_card_and_escape_or_close_puts_it_back(browser):
    card = browser.find_element("id", "image-2")
    image, before = card.find_element("tag name", "img"), card.size
    assert image.size == {"width": 160, "height": 160}
    assert "raised by: peak" in card.text and "score " in card.text
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    image.click()
    assert card.size["width"] >= 1200 and image.size["height"] > 400
    keys = browser.find_element("tag name", "body").send_keys
    keys(ARROW_RIGHT)
    assert card.size == before and browser.find_element("id", "image-3").size["width"] >= 1200
    keys(ESCAPE)
    assert browser.find_element("id", "image-3").size["width"] < 600
    image.click()
    card.find_element("class name", "close").click()
    assert card.size == before


def test_page_is_of_use_without_script(page, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        card = browser.find_element("id", "image-1")
        assert NAMES[0] in card.text
        assert "Without JavaScript" in browser.find_element("tag name", "body").text
        assert not browser.find_element("id", "threshold").is_displayed()
        card.find_element("tag name", "img").click()
        assert card.size["width"] >= 1200
        card.find_element("class name", "close").click()
        assert card.size["width"] < 600
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        load(browser, page)


def test_names_are_shown_as_text(browser):
    assert EVIL in first_cells(browser, 1)
    assert not browser.find_elements("css selector", "img[src=x]")
    assert browser.title.startswith("Anomaly test of </script>")


def test_no_console_error_and_no_request_leaves_the_page(browser):
    assert browser.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"
    ]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls)

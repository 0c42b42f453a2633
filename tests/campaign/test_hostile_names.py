"""Images with hostile names and kinds, scored: the console, the tables, the page in a browser."""

import csv
import json
import os
import random
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from anogan.data.listing import shown_name
from anogan.data.table import from_cell
from anogan.runs.files import MARKER, printable
from campaign.tools import record, size
from campaign.training_runs import Driver

pytestmark = pytest.mark.slow

SEED = 16
NAMES = 200
PARTS = [
    *(
        "\x1b[31m",
        "\x1b]0;owned\x07",
        "\r",
        "\n",
        "\nerror: forged",
        "\t",
        "\x7f",
        "\x9b2J",
        "\x08",
    ),
    *("\u202e", "\u2066", "\u2028", "\u200b", "\ufeff", "=1+1", "=cmd|' /C calc'!A0", "@SUM(1)"),
    *(
        "-2+3",
        "+1",
        ";=1",
        "'=1",
        '"',
        "'",
        ",",
        "<b>",
        "<img src=x onerror=alert(1)>",
        "</script>",
    ),
    *(
        "<script>alert(1)",
        "{{7*7}}",
        "${x}",
        "$\\frac{",
        "$x$",
        "%s%n",
        "\\",
        "&amp;",
        "&#60;",
        "--",
    ),
    *("中文", "עברית", "😀", "e\u0301", "ÅÅ", "CON", " ", "  ", "..", "~", "*", "?", "|", "`id`"),
    *("$(id)", "_overlay", ".npy", ".png", "\udcff", "\udc80"),
]


def hostile(rng):
    """A name that a file system takes, some as long as it takes them."""
    name = "".join(rng.choices(PARTS, k=rng.randrange(1, 6)))
    if rng.random() < 0.15:
        name = name * 30
    name = name.replace("/", "∕")
    while len(os.fsencode(name)) > 240:
        name = name[:-1]
    return name.lstrip(".") or "x"


def make_data(cwd, trained_folder, queries, rng, count):
    """Images below normal and below hostile kinds; the names that can be read, and those not."""
    shutil.copytree(trained_folder, cwd / "checkpoints" / "zeros")
    kinds, good, broken = ["normal", *(hostile(rng)[:60] for _ in range(5))], set(), set()
    for i in range(count):
        name = f"{kinds[i % 2 * rng.randrange(1, 6)]}/{hostile(rng)}{i}.png"
        path = cwd / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 20 == 7:
            path.write_bytes(b"broken")
            broken.add(name)
        else:
            Image.fromarray(queries[0][i % 2 * 40 + i % 40, ..., 0]).save(path)
            good.add(name)
    return {shown_name(n) for n in good}, {shown_name(n) for n in broken}


def spoiled_console(log):
    """Lines of a command that a name has steered or forged."""
    bar = re.compile(r"\r.*?(?=\r|\n|\Z)", re.S)
    found = []
    for line in re.split(r"[\r\n]+", bar.sub("", log)):
        if not line.isprintable():
            found.append(f"console: {line!r}")
        if line.startswith("error: "):
            found.append(f"forged: {line!r}")
    return found


def spoiled_table(path, good):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    found = [f"table lacks {name!r}" for name in good - {from_cell(row[0]) for row in rows}]
    texts = [cell for row in rows for cell in (row[0], row[2])]
    run = re.compile(r"(^|[;\t\r\n])[=+\-@]")
    return found + [f"a formula: {text!r}" for text in texts if run.search(text)]


def spoiled_page(browser, page, good):
    """What is wrong with the page as a browser shows it."""
    browser.get(page.as_uri())
    found = [f"browser: {entry['message']}" for entry in browser.get_log("browser")]
    if browser.execute_script("return document.body.dataset.ready") != "yes":
        found.append("the page's script did not come to its end")
    shown, pages = set(), browser.find_element("id", "next")
    for _ in range(len(good) // 50 + 1):
        cells = browser.execute_script(
            "return [...document.querySelectorAll('#table tbody td:first-child')]"
            ".map(e => e.textContent)"
        )
        shown |= set(cells)
        browser.execute_script("arguments[0].click()", pages)
    found += [f"page lacks {name!r}" for name in {printable(n) for n in good} - shown]
    text = browser.execute_script("return document.body.innerText")
    found += [f"page shows {c!r}" for c in set(text) if not c.isprintable() and c not in "\n\t"]
    foreign = browser.execute_script(
        "return document.querySelectorAll('img:not([src^=\"data:\"]), body b').length"
    )
    return found + ([f"{foreign} elements from names"] if foreign else [])


def test_hostile_names_in_every_output(trained_folder, queries, tmp_path, chromium):
    rng, count = random.Random(SEED), size(NAMES)
    good, broken = make_data(tmp_path, trained_folder, queries, rng, count)
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "test", "--save_maps"]
    with Driver() as driver:
        code, log = driver.run(tmp_path, words, "")
    assert code == 0, log
    results = tmp_path / "test" / "test_result"
    found = spoiled_console(log)
    found += spoiled_table(results / "scores.csv", good)
    found += spoiled_page(chromium, results / "report.html", good)
    metrics = json.loads((results / "metrics.json").read_text())
    if metrics["skipped"] != len(broken) or metrics["images"] != len(good):
        found.append(f"counts: {metrics['images']} and {metrics['skipped']}")
    if len(list((results / "maps").rglob("*.npy"))) != len(good):
        found.append("maps are missing")
    pictures = [p.name for p in (results / "pictures").iterdir()]
    found += [f"picture {p!r}" for p in pictures if not re.fullmatch(r"[\w-]+\.png", p, re.A)]
    if (results / MARKER).read_text(encoding="utf-8").isascii() is False:
        found.append("the list of files is no ASCII")
    # the table of scores, as a list of labels, says of each image what it was
    (tmp_path / "labels.csv").write_bytes((results / "scores.csv").read_bytes())
    for name in tmp_path.joinpath("test").rglob("*"):
        if name.is_file() and name.read_bytes() == b"broken":
            name.unlink()
    with Driver() as driver:
        again = [*words, "--labels", "labels.csv"]
        code, log = driver.run(tmp_path, again, "")
    if code or json.loads((results / "metrics.json").read_text())["normal"] != metrics["normal"]:
        found.append(f"labels read back: exit code {code}: {log[-800:]}")
    found += spoiled_console(log)
    record("hostile names", count, len(found), SEED)
    assert not found, "\n".join(found[:20])
    assert np.isfinite(metrics["auroc"])

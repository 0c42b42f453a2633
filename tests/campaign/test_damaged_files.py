"""Mutated images, masks and lists of labels: a UserError or an answer, soon, in little memory."""

import codecs
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.errors import UserError
from campaign.mutation import images, mutated
from campaign.tools import record, size

pytestmark = pytest.mark.slow

SEED = 16
COUNTS = {"images": 10_000, "masks": 3_500}
TOGETHER = 250  # files that one process reads
LABELS = 500
READER = Path(__file__).with_name("reader.py")


def read_all(kind, folder):
    """What went wrong with the files of a folder; a process's end or its words are such, too."""
    command = [sys.executable, str(READER), kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=1800)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    found = [f"{name}: {text}" for name, texts in answers for text in texts]
    if len(answers) < len(list(folder.iterdir())):
        found.append(f"exit code {done.returncode} after {len(answers)} files")
    if done.stderr:
        found.append(f"on stderr: {done.stderr[:500]}")
    return found


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_images(kind, tmp_path):
    rng, seeds, runs, found = random.Random(SEED), images(), size(COUNTS[kind]), []
    for start in range(0, runs, TOGETHER):
        folder = tmp_path / str(start)
        folder.mkdir()
        for number in range(start, min(start + TOGETHER, runs)):
            ending, content = rng.choice(seeds)
            (folder / f"{number}.{ending}").write_bytes(mutated(content, rng))
        new = read_all(kind, folder)
        found += new
        if not new:
            shutil.rmtree(folder)
    record(f"mutated {kind}", runs, len(found), SEED)
    assert not found, "\n".join(found[:20])


def lists():
    """Lists of labels for a.png to j.png, in the ways that people and spreadsheets write them."""
    lines = [("file", "label", "kind")]
    lines += [(f"ü/{c}.png", "good" if c < "f" else "Defect", f"'={c}") for c in "abcdefghij"]
    texts = [end.join(c.join(line) for line in lines) for c in ",;\t" for end in ("\n", "\r\n")]
    found = [text.encode(code) for text in texts for code in ("utf-8", "utf-8-sig", "cp1252")]
    found += [codecs.BOM_UTF16_LE + texts[0].encode("utf-16-le"), texts[2].encode("utf-16")]
    return [*found, texts[0].replace("ü", '"ü""\n').encode()]


def test_mutated_lists_of_labels(tmp_path):
    rng, runs, found, good = random.Random(SEED), size(LABELS), [], 0
    names = [f"ü/{c}.png" for c in "abcdefghij"]
    listed, path = ImageSet.from_array(np.zeros((10, 2, 2, 1), np.uint8), names), tmp_path / "l.csv"
    for number in range(runs):
        path.write_bytes(mutated(rng.choice(lists()), rng))
        start = time.process_time()
        try:
            answer = labelled(listed, path, tmp_path)
            good += 1
            if answer.labels is None or set(answer.labels) - {0, 1}:
                found.append(f"{number}: labels {answer.labels}")
        except UserError:
            pass
        except BaseException as error:
            found.append(f"{number}: {type(error).__name__}: {error}: {path.read_bytes()!r}")
        if time.process_time() - start > 5:
            found.append(f"{number}: too slow")
    record("mutated lists of labels", runs, len(found), SEED)
    print(f"{good} of {runs} could be read")
    assert not found, "\n".join(found[:20])

"""Scorings of data sets from elsewhere, in which this tool's own places are something else."""

import os
import random
import shutil

import pytest

from anogan.evaluation.result_folder import PARTIAL, STAGING
from anogan.runs.files import MARKER
from anogan.runs.lock import LOCK
from campaign.scoring_runs import ARGUMENTS, FEW_PICTURES, make_data, results_in
from campaign.tools import record, size
from campaign.training_runs import Driver

pytestmark = pytest.mark.slow

SEED = 17
FOLDERS = 200  # each thing in each place at least once
IMAGES = 8
# What waits for a pipe is ended, and what reads without end meets a limit
LIMITS = """
import resource, signal
signal.alarm(60)
resource.setrlimit(resource.RLIMIT_DATA, (2**34, 2**34))
"""
RESULTS = (
    *(MARKER, LOCK, "scores.csv", "metrics.json", "report.html"),
    *(PARTIAL, f"{PARTIAL}/rows0.jsonl", f"{PARTIAL}/rows1.jsonl", f"{PARTIAL}/pictures0.npz"),
    *(STAGING, f"{STAGING}/maps", f"{STAGING}/maps/odd/000.png"),
    *("plots", "pictures", "maps", "maps/odd", "maps/odd/000.png"),
)
PLACES = "test_result", MARKER, f"odd/{MARKER}", *(f"test_result/{name}" for name in RESULTS)


def holes(path):
    with open(path, "wb") as file:
        file.truncate(2**40)


def kinds(victim):
    """{name: makes something at a path}."""
    names = ["../victim/thesis.doc", str(victim / "thesis.doc"), "thesis.doc", "maps", "maps/odd"]
    return {
        "link to a folder": lambda path: path.symlink_to(victim),
        "link to a file": lambda path: path.symlink_to(victim / "thesis.doc"),
        "dangling link": lambda path: path.symlink_to(victim / "new"),
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "list of files": lambda path: path.write_text("".join(f'"{name}"\n' for name in names)),
        "deep": lambda path: path.write_text("[" * 100_000),
        "holes": holes,
    }


def state(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def spoil(data, made, some) -> list[str]:
    """Puts things at places, some: (place, name of the thing); what could be put."""
    told = []
    for place, name in some:
        path = data / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if any(p.is_symlink() for p in path.parents):  # it would be in the victim
                continue
            made[name](path)
        except OSError:  # the place is below another one
            continue
        told.append(f"{path.relative_to(data)}: {name}")
    return told


def judged(code, log, cwd, scores) -> str:
    """What is wrong with how a scoring ended."""
    if "Traceback" in log or code not in (0, 1):
        return f"exit code {code}"
    if code == 1 and log.count("error: ") != 1:
        return "no line, or more than one"
    if code == 0 and (cwd / "test" / "test_result" / "scores.csv").read_bytes() != scores:
        return "other scores"
    return ""


def test_data_sets_whose_places_for_results_are_something_else(trained_folder, queries, tmp_path):
    rng, runs, found, refused = random.Random(SEED), size(FOLDERS), [], 0
    make_data(tmp_path / "whole", trained_folder, queries, IMAGES)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.doc").write_text('"mine"\n')
    (victim / "histogram.png").write_text("mine")
    before, made = state(victim), kinds(victim)
    with Driver() as driver:
        shutil.copytree(tmp_path / "whole", tmp_path / "scored")
        code, log = driver.run(tmp_path / "scored", ARGUMENTS, FEW_PICTURES)
        assert code == 0, log
        pairs = [(place, name) for place in PLACES for name in sorted(made)]
        rng.shuffle(pairs)
        scores = results_in(tmp_path / "scored")["scores.csv"]
        for number in range(runs):
            cwd = tmp_path / str(number)
            shutil.copytree(tmp_path / rng.choice(["whole", "scored"]), cwd)
            some = [pairs[number % len(pairs)], *rng.sample(pairs, rng.randint(0, 2))]
            told = spoil(cwd / "test", made, some)
            code, log = driver.run(cwd, ARGUMENTS, FEW_PICTURES + LIMITS)
            refused += code == 1
            what = judged(code, log, cwd, scores)
            if state(victim) != before:
                what = f"the victim is {sorted(state(victim))}"
                shutil.rmtree(victim)
                victim.mkdir()
                for name, (content, time) in before.items():
                    (victim / name).write_bytes(content)
                    os.utime(victim / name, ns=(time, time))
            if what:
                found.append(f"{number}: {told}: {what}\n{log[-2000:]}")
            shutil.rmtree(cwd)
    record("data sets with hostile places for results", runs, len(found), SEED)
    print(f"{refused} of {runs} were refused")
    assert not found, "\n".join(found)

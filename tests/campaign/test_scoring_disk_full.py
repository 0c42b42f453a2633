"""No room at each place that a scoring writes: one line, nothing lost, and with room it goes on."""

import os
import random
import re
import shutil
import subprocess

import pytest

from campaign.scoring_runs import (
    ARGUMENTS,
    FEW_PICTURES,
    differences,
    make_data,
    mixed,
    results_in,
    used,
)
from campaign.tools import record, size
from campaign.training_runs import Driver

pytestmark = pytest.mark.slow

SEED = 16
FULL, LIMITED = 60, 40  # scorings on a full disk, and with a limit on the size of files
REFUSED = re.compile(r"cannot be (written|read)")


def fault(code, log) -> str:
    """What is wrong with how a command ended that could not write; empty where nothing is."""
    errors = [line for line in re.split(r"[\r\n]+", log) if line.startswith("error: ")]
    if "Traceback" in log or "Exception ignored" in log or code not in (0, 1):
        return f"exit code {code}: {log[-1500:]}"
    if code == 1 and (len(errors) != 1 or not REFUSED.search(errors[0])):
        return f"errors {errors}: {log[-1500:]}"
    return ""


@pytest.fixture(scope="module")
def begun(trained_folder, queries, tmp_path_factory):
    """A driver, a folder with results of an earlier scoring, and one with those of the next."""
    root = tmp_path_factory.mktemp("full")
    earlier, unbroken = root / "earlier", root / "unbroken"
    make_data(earlier, trained_folder, queries)
    with Driver() as driver:
        code, log = driver.run(earlier, [*ARGUMENTS, "--threshold", "0.3"], FEW_PICTURES)
        assert code == 0, log
        shutil.copytree(earlier, unbroken)
        code, log = driver.run(unbroken, ARGUMENTS, FEW_PICTURES)
        assert code == 0, log
        yield driver, earlier, unbroken


def judged(driver, cwd, setup, old, unbroken, make_room=lambda: None) -> tuple[str, bool]:
    """(What is wrong, empty where nothing is; whether the fault was met at all)."""
    code, log = driver.run(cwd, ARGUMENTS, setup + FEW_PICTURES)
    what = fault(code, log) or mixed(cwd, old)
    if code == 1 and not what:
        lost = old.keys() - results_in(cwd).keys()
        what = f"lost: {sorted(lost)[:3]}" if lost else ""
    make_room()
    after, log = driver.run(cwd, ARGUMENTS, FEW_PICTURES)
    what = what or (f"then exit code {after}: {log[-1500:]}" if after else "")
    return what or differences(cwd, unbroken), code == 1


def test_scoring_with_a_limit_on_the_size_of_files(begun, tmp_path):
    driver, earlier, unbroken = begun
    rng, runs, met, found = random.Random(SEED), size(LIMITED), 0, []
    old = results_in(earlier)
    largest = max(map(len, results_in(unbroken).values())) + 50_000
    for number in range(runs):
        cwd = tmp_path / str(number)
        shutil.copytree(earlier, cwd)
        limit = int(largest ** rng.random())
        setup = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        what, hit = judged(driver, cwd, setup, old, unbroken)
        met += hit
        if what:
            found.append(f"limit {limit}: {what}")
        shutil.rmtree(cwd)
    record("scoring with a limit on files", runs, len(found), SEED)
    print(f"{met} of {runs} met the limit")
    assert not found, "\n".join(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_scoring_on_a_full_disk(begun, tmp_path):
    driver, earlier, unbroken = begun
    rng, runs, met, found = random.Random(SEED), size(FULL), 0, []
    old = results_in(earlier)
    need = used(unbroken / "test" / "test_result") * 2
    for number in range(runs):
        cwd = tmp_path / str(number)
        shutil.copytree(earlier, cwd)
        disk = cwd / "test" / "test_result"
        shutil.move(disk, cwd / "aside")
        disk.mkdir()
        room = used(cwd / "aside") + rng.randrange(need)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("nothing may be mounted here: see the limit on the size of files")
        try:
            shutil.copytree(cwd / "aside", disk, dirs_exist_ok=True)
            enlarge = ["mount", "-o", "remount,size=64m", disk]
            what, hit = judged(
                *(driver, cwd, "", old, unbroken),
                lambda enlarge=enlarge: subprocess.run(enlarge, check=True),
            )
        finally:
            subprocess.run(["umount", disk], check=True)
        met += hit
        if what:
            found.append(f"room {room}: {what}")
        shutil.rmtree(cwd)
    record("scoring on a full disk", runs, len(found), SEED)
    print(f"{met} of {runs} met the end of the disk")
    assert not found, "\n".join(found)

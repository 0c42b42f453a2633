"""No room, or no permission, at each place that a training writes: one line, and nothing lost."""

import contextlib
import os
import random
import re
import shutil
import subprocess

import pytest

from campaign.tools import record, size
from campaign.training_runs import ARGUMENTS, OFTEN, Driver, make_data, model_of

pytestmark = pytest.mark.slow

SEED = 16
FULL, LIMITED = 80, 40  # runs on a full disk and with a limit on the size of files
PAGE = 4096
# Root is an owner like any other without its capabilities: capset(version 3, none of them)
NO_ROOT = """
import ctypes
none = (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), none) == 0
"""
REFUSED = re.compile("cannot be written|is a file, not a folder")
FORBIDDEN = ("checkpoints", "checkpoints/zeros", "samples", "samples/zeros", "logs", "logs/zeros")


@pytest.fixture(scope="module")
def driver():
    with Driver() as driver:
        yield driver


@pytest.fixture
def begun(driver, tmp_path, zeros):
    """A training of which half is done, and the model that it ends with."""
    unbroken = tmp_path / "unbroken"
    make_data(unbroken, zeros[:60])
    half = ["30" if word == "60" else word for word in ARGUMENTS]
    assert driver.run(unbroken, half)[0] == 0
    shutil.copytree(unbroken, tmp_path / "begun")
    assert driver.run(unbroken)[0] == 0
    return tmp_path / "begun", model_of(unbroken), used(unbroken)


def used(folder) -> int:
    """Bytes that a folder's files take up in pages."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return sum(-(-n // PAGE) * PAGE for n in sizes)


@contextlib.contextmanager
def small_disk(folder, room):
    """A file system of so many bytes in a folder; gives a function that makes it large."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def fault(code, log, cwd, step) -> str:
    """What is wrong with how a command ended that could not write; empty where nothing is."""
    lines = [line for line in re.split(r"[\r\n]+", log) if line and not BAR.search(line)]
    if "Traceback" in log or code not in (0, 1):
        return f"exit code {code}: {log[-1500:]}"
    errors = [line for line in lines if line.startswith("error: ")]
    foreign = [line for line in lines if not re.match(KNOWN, line)]
    if code == 1 and (len(errors) != 1 or not REFUSED.search(errors[0])):
        return f"errors {errors}: {log[-1500:]}"
    if foreign:
        return f"other lines: {foreign}"
    if step and int(model_of(cwd)["newest"]) < step:
        return "an older checkpoint than before"
    return ""


BAR = re.compile(r"step/s|s/step")
KNOWN = (
    r"error: |WARNING: (no|only) |training on |going on |trained to step |reconstructions "
    r"|computing on |nothing to do"
    r"|[0-9]+ steps of |about |are all normal|rank(ed|ing) |measuring "
    r"|WARNING: [0-9]+ of [0-9]+ held-out "
)


def goes_on(driver, cwd, model) -> str:
    """What is wrong with the same command with room; empty where nothing is."""
    code, log = driver.run(cwd)
    if code or "Traceback" in log:
        return f"with room: exit code {code}: {log[-1500:]}"
    if model_of(cwd) != model:
        return "with room: another model"
    left = [p.name for p in cwd.rglob("*") if re.search(r"\.tmp$|_temp$|^aside", p.name)]
    return f"with room: {left} left" if left else ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_full_disk_in_training(driver, tmp_path, begun, zeros):
    rng, runs, found = random.Random(SEED), size(FULL), []
    start, model, most = begun
    for number in range(runs):
        anew = number % 2
        taken = 0 if anew else used(start)
        data = used(start / "data")
        room = rng.randrange(data if anew else taken, most + 40 * PAGE, PAGE)
        with small_disk(tmp_path / "disk", room) as enlarge:
            cwd = tmp_path / "disk" / "here"
            if anew:
                make_data(cwd, zeros[:60])
            else:
                shutil.copytree(start, cwd)
            code, log = driver.run(cwd)
            what = fault(code, log, cwd, 0 if anew else int(model_of(start)["newest"]))
            enlarge()
            what = what or goes_on(driver, cwd, model)
            if what:
                found.append(f"{number}, {'anew' if anew else 'on'}, {room} bytes: {what}")
        (tmp_path / "disk").rmdir()
    record("disk full in training", runs, len(found), SEED)
    assert not found, "\n".join(found)


def test_limit_on_files_in_training(driver, tmp_path, begun, zeros):
    rng, runs, found = random.Random(SEED), size(LIMITED), []
    start, model, _ = begun
    largest = max(p.stat().st_size for p in start.rglob("*") if p.is_file())
    for number in range(runs):
        anew, cwd = number % 2, tmp_path / f"{number}"
        if anew:
            make_data(cwd, zeros[:60])
        else:
            shutil.copytree(start, cwd)
        limit = rng.choice((0, 1, 100, rng.randrange(largest), rng.randrange(20_000)))
        setup = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        code, log = driver.run(cwd, setup=OFTEN + setup)
        what = fault(code, log, cwd, 0 if anew else int(model_of(start)["newest"]))
        what = what or goes_on(driver, cwd, model)
        if what:
            found.append(f"{number}, {'anew' if anew else 'on'}, {limit} bytes: {what}")
        shutil.rmtree(cwd)
    record("file size limit in training", runs, len(found), SEED)
    assert not found, "\n".join(found)


def test_forbidden_folders_in_training(driver, tmp_path, begun):
    """As a user who may not write there, and where a file is in the folder's place."""
    found, (start, model, _), runs = [], begun, 0
    for name in FORBIDDEN:
        for kind in ("forbidden", "file"):
            runs += 1
            cwd = tmp_path / f"{runs}"
            shutil.copytree(start, cwd)
            setup, kept = OFTEN, tmp_path / "kept"
            if kind == "file":
                shutil.move(cwd / name, kept)
                (cwd / name).write_text("mine")
            else:
                os.chmod(cwd / name, 0o555)
                setup += NO_ROOT if os.geteuid() == 0 else ""
            code, log = driver.run(cwd, setup=setup)
            what = fault(code, log, cwd, 0)
            if kind == "file":
                if (cwd / name).read_text() != "mine":
                    what = what or "the file is lost"
                (cwd / name).unlink()
                shutil.move(kept, cwd / name)
            else:
                os.chmod(cwd / name, 0o755)
            what = what or goes_on(driver, cwd, model)
            if what:
                found.append(f"{name} {kind}: {what}")
    record("forbidden folders in training", runs, len(found), SEED)
    assert not found, "\n".join(found)

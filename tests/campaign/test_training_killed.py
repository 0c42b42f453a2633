"""SIGKILL at random moments of a training: the same command then ends as an unbroken one does."""

import random
import shutil
import time

import pytest

from campaign.tools import record, size
from campaign.training_runs import Driver, differences, make_data

pytestmark = pytest.mark.slow

SEED = 16
KILLS = 100
IN_A_ROW = 5  # of one training


def last_save(cwd) -> int:
    """When its newest checkpoint was written, 0 where there is none."""
    folder = cwd / "checkpoints" / "zeros"
    times = [0]
    for path in folder.glob("ckpt-*.index"):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:  # it has been replaced meanwhile
            continue
    return max(times)


def test_training_killed_at_random_moments(zeros, tmp_path):
    rng, kills, wanted, found = random.Random(SEED), 0, size(KILLS), []
    unbroken = tmp_path / "unbroken"
    make_data(unbroken, zeros[:60])
    with Driver() as driver:
        start = time.monotonic()
        code, log = driver.run(unbroken)
        assert code == 0, log
        length, number = time.monotonic() - start, 0
        while kills < wanted:
            cwd = tmp_path / str(number)
            make_data(cwd, zeros[:60])
            here = min(IN_A_ROW, wanted - kills)
            way = rng, length, last_save, 0.4 * length
            while here and driver.killed(cwd, *way):  # until it is at its end
                kills, here = kills + 1, here - 1
            code, log = driver.run(cwd)
            what = differences(cwd, unbroken) if code == 0 else f"exit code {code}"
            if what or "Traceback" in log:
                found.append(f"{number}: {what}\n{log[-2000:]}")
            else:
                shutil.rmtree(cwd)
            number += 1
    record("SIGKILL in training", kills, len(found), SEED)
    assert not found, "\n".join(found)

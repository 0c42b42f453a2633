"""SIGKILL at any moment of a scoring: the same command then leaves what an unbroken one does."""

import random
import shutil
import time

import pytest

from anogan.evaluation.result_folder import PARTIAL
from campaign.scoring_runs import ARGUMENTS, FEW_PICTURES, differences, make_data, mixed, results_in
from campaign.tools import record, size
from campaign.training_runs import Driver

pytestmark = pytest.mark.slow

SEED = 16
KILLS = 50
IN_A_ROW = 3  # of one scoring
EARLIER = "0.3"  # threshold of the scoring whose results are replaced


def rows_at(cwd) -> int:
    try:
        return (cwd / "test" / "test_result" / PARTIAL / "rows0.jsonl").stat().st_size
    except FileNotFoundError:
        return 0


def test_scoring_killed_at_random_moments(trained_folder, queries, tmp_path):
    rng, kills, wanted, found, taken_up = random.Random(SEED), 0, size(KILLS), [], 0
    unbroken, number = tmp_path / "unbroken", 0
    make_data(unbroken, trained_folder, queries)
    with Driver() as driver:
        earlier = [*ARGUMENTS, "--threshold", EARLIER]
        code, log = driver.run(unbroken, earlier, FEW_PICTURES)
        assert code == 0, log
        shutil.copytree(unbroken, tmp_path / "earlier")
        old = results_in(unbroken)
        start = time.monotonic()
        code, log = driver.run(unbroken, ARGUMENTS, FEW_PICTURES)
        assert code == 0, log
        length = time.monotonic() - start
        while kills < wanted:
            cwd = tmp_path / str(number)
            shutil.copytree(tmp_path / "earlier", cwd)  # with the times of its files
            what = ""
            for _ in range(min(IN_A_ROW, wanted - kills)):
                way = rng, length, rows_at, 0.3 * length
                kills += driver.killed(cwd, *way, ARGUMENTS, FEW_PICTURES)
                what = what or mixed(cwd, old)
            code, log = driver.run(cwd, ARGUMENTS, FEW_PICTURES)
            taken_up += "going on" in log
            what = what or (differences(cwd, unbroken) if code == 0 else f"exit code {code}")
            if what or "Traceback" in log:
                found.append(f"{number}: {what}\n{log[-2000:]}")
            else:
                shutil.rmtree(cwd)
            number += 1
    record("SIGKILL in scoring", kills, len(found), SEED)
    print(f"{kills} kills, {taken_up} of {number} went on with rows")
    assert not found, "\n".join(found)

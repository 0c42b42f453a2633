"""Very many files, some of them broken, scored by two workers of which one is killed."""

import csv
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from processes import free_ports, start

from anogan.evaluation.result_folder import PARTIAL
from campaign.scoring_runs import FEW_PICTURES
from campaign.tools import record, size

pytestmark = pytest.mark.slow

FILES = 200_000
BROKEN = 100  # every so many files
SMALLEST = 2_000  # files: fewer are scored before one is killed
GROWTH = 1000  # bytes of memory for each file more, at most: its name, its scores, its state
IN_A_FOLDER = 1000
MAIN = f"import sys\nimport main\n{FEW_PICTURES}\nsys.exit(main.main())\n"
ROOT = Path(__file__).parents[2]


def make_data(cwd, queries, count):
    """So many files of 80 images, every hundredth broken."""
    for i, image in enumerate(queries[0]):
        Image.fromarray(image[..., 0]).save(cwd / f"source{i}.png")
    (cwd / "source.broken").write_bytes(b"broken")
    for i in range(count):
        path = cwd / "test" / f"{i // IN_A_FOLDER:03d}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = cwd / ("source.broken" if i % BROKEN == 7 else f"source{i % 80}.png")
        shutil.copyfile(source, path)


def rows(cwd, worker):
    """How many rows a worker has written, about."""
    try:
        path = cwd / "test" / "test_result" / PARTIAL / f"rows{worker}.jsonl"
        return path.stat().st_size / 600
    except FileNotFoundError:
        return 0


def memory(pid):
    """MiB of a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def test_two_workers_score_very_many_files_though_one_is_killed(trained_folder, queries, tmp_path):
    count, found, peaks = max(SMALLEST, size(FILES)), [], []
    shutil.copytree(trained_folder, tmp_path / "checkpoints" / "zeros")
    make_data(tmp_path, queries, count)
    arguments = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "test"]
    arguments += ["--strategy", "multiworker", "--test_batch_size", "32"]
    ports = free_ports()
    team = [start(tmp_path, MAIN, arguments, index, ports) for index in (0, 1)]
    end = time.monotonic() + 600 + count / 20
    try:
        while rows(tmp_path, 1) < count / 8:  # a quarter of its share
            assert time.monotonic() < end and all(p.poll() is None for p in team), logs(tmp_path)
            time.sleep(0.02)
        team[1].kill()
        team[1].wait()
        team[1] = start(tmp_path, MAIN, arguments, 1, ports)
        while any(p.poll() is None for p in team):
            assert time.monotonic() < end, logs(tmp_path)
            if rows(tmp_path, 1):  # both are scoring
                peaks.append(max(memory(p.pid) for p in team))
            time.sleep(0.2)
    finally:
        for p in team:
            p.kill()
    if [p.returncode for p in team] != [0, 0]:
        found.append(f"exit codes {[p.returncode for p in team]}: {logs(tmp_path)}")
    else:
        found += wrong(tmp_path, count)
    early, most = max(peaks[: 1 + len(peaks) // 5]), max(peaks)
    if most - early > 200 + GROWTH * count / 2**20:
        found.append(f"memory grows: {early:.0f} to {most:.0f} MiB")
    record("soak", count, len(found), 0, early_mib=round(early), most_mib=round(most))
    print(f"{count} files, {early:.0f} to {most:.0f} MiB")
    assert not found, "\n".join(found)


def logs(cwd):
    return "\n".join((cwd / f"worker{i}.log").read_text()[-1500:] for i in (0, 1))


def wrong(cwd, count):
    """What is wrong with the results: each file once, with the score of the image it holds."""
    results, found = cwd / "test" / "test_result", []
    with open(results / "scores.csv", newline="", encoding="utf-8") as file:
        scores = {row["file"]: float(row["score"]) for row in csv.DictReader(file)}
    broken = len(range(7, count, BROKEN))
    metrics = json.loads((results / "metrics.json").read_text())
    if (len(scores), metrics["skipped"]) != (count - broken, broken):
        found.append(f"{len(scores)} scores and {metrics['skipped']} skipped of {count}")
    for i in range(80):
        same = [v for name, v in scores.items() if int(Path(name).stem) % 80 == i]
        if max(same) - min(same) > 1e-4 * max(1, abs(same[0])):
            found.append(f"scores of one image: {min(same)} to {max(same)}")
    if (results / PARTIAL).exists() or list(results.glob(".*.tmp")):
        found.append("files are left over")
    if "going on: " not in (cwd / "worker0.log").read_text():
        found.append("nothing was taken up")
    return found

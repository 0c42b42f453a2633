"""Mutated run folders: loading gives one line or a whole checkpoint, and touches nothing else."""

import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from anogan.errors import UserError
from campaign.tools import record, size
from model import DCGAN

pytestmark = pytest.mark.slow

SEED = 16
RUNS = 500
VALUES = (
    *(None, True, -1, 0, 1, 2**70, -1.5, 1e308, float("nan"), float("inf"), "", "x", "1"),
    *("../../evil", "/etc/passwd", "a\0b", "\ud800", "[" * 5000, [], {}, [[]], {"a": [{}]}),
)


def damaged(path: Path, rng: random.Random) -> None:
    """Bytes of a file cut, changed, inserted, removed, doubled, or all replaced."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content) or 1)
    kinds = "cut", "flip", "few", "many", "insert", "remove", "double", "random", "empty"
    match rng.choice(kinds):
        case "cut":
            del content[at:]
        case "flip":
            content[at : at + 1] = bytes(b ^ 1 << rng.randrange(8) for b in content[at : at + 1])
        case "few":
            for _ in range(rng.randrange(1, 9) if content else 0):
                content[rng.randrange(len(content))] = rng.randrange(256)
        case "many":
            content[at : at + 4096] = rng.randbytes(min(4096, len(content) - at))
        case "insert":
            content[at:at] = rng.randbytes(rng.randrange(1, 100))
        case "remove":
            del content[at : at + rng.randrange(1, 100)]
        case "double":
            content += bytes(content)
        case "random":
            content = bytearray(rng.randbytes(rng.randrange(5000)))
        case "empty":
            content.clear()
    path.write_bytes(content)


def replaced(path: Path, outside: Path, rng: random.Random) -> None:
    """A file becomes a link that leads outside, a pipe, a folder, another file, or nothing."""
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    kind = rng.choice(("link", "same", "pipe", "folder", "other", "gone"))
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to(outside / "foreign")
    elif kind == "same":  # what it leads to is a good file
        (outside / path.name).write_bytes(content)
        path.symlink_to(outside / path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "other":
        shutil.copy(rng.choice(others), path)


def retyped(path: Path, rng: random.Random) -> None:
    """A JSON value, anywhere, becomes one of another type or size; or a key another one."""
    content = json.loads(path.read_text())
    node: dict | list = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        match rng.choice(("value", "value", "value", "remove", "add")):
            case "value":
                node[key] = rng.choice(VALUES)
            case "remove":
                del node[key]
            case "add" if isinstance(node, dict):
                node[f"{key}2"] = rng.choice(VALUES)
        break
    path.write_text(json.dumps(content) if rng.random() < 0.95 else json.dumps(rng.choice(VALUES)))


def listing(outside: Path, rng: random.Random) -> str:
    """TensorFlow's `checkpoint` file with paths of others."""
    paths = [f"{outside}/foreign", "../outside/foreign", "/etc/passwd", "ckpt-600", "ckpt-999999"]
    lines = [f'model_checkpoint_path: "{rng.choice(paths)}"']
    lines += [f'all_model_checkpoint_paths: "{rng.choice(paths)}"' for _ in range(5)]
    return "\n".join(lines)


def archive(path: Path, rng: random.Random) -> None:
    """images.npz with arrays of other shapes and types, or pickled objects."""
    with np.load(path) as arrays:
        held = dict(arrays)
    name = rng.choice(list(held))
    wrong = [
        np.zeros((5000, 16, 16, 1), np.uint8), held[name][..., 0], held[name].astype(float),
        np.array([{"a": 1}], object), np.zeros(()), held[name][:, :3], np.array("text"),
    ]  # fmt: skip
    held[name] = rng.choice(wrong)
    np.savez_compressed(path, **held, allow_pickle=True)


def mutate(run: Path, outside: Path, rng: random.Random) -> str:
    """Changes one to three files of a run; what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(sorted(p for p in run.iterdir() if p.is_file() and not p.is_symlink()))
        kind = rng.choice(("damage", "damage", "replace", "type", "list"))
        done.append(f"{kind} {path.name}")
        if kind == "replace":
            replaced(path, outside, rng)
        elif kind == "list":
            (run / "checkpoint").write_text(listing(outside, rng))
        elif kind == "type" and path.suffix == ".npz":
            try:
                archive(path, rng)
            except Exception:  # it is damaged already
                damaged(path, rng)
        elif kind == "type" and path.suffix == ".json":
            try:
                retyped(path, rng)
            except Exception:
                damaged(path, rng)
        else:
            damaged(path, rng)
    return ", ".join(done)


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def whole(trained_folder, tmp_path):
    """A run with checkpoints of steps 600 and 605, whose weights differ."""
    run = tmp_path / "whole"
    shutil.copytree(trained_folder, run, ignore=shutil.ignore_patterns("logs", "samples"))
    model = DCGAN.load(run)
    model.trainer.step.assign(605)
    for weight in model.trainer.ema.generator.trainable_variables:
        weight.assign(1.001 * weight)
    model.save(run)
    return run


@pytest.fixture
def opened():
    """Paths that Python opens, and the names that unpickling looks up, while it is a list."""
    seen, on = [], [True]

    def hook(event, arguments):
        if on and event in ("open", "pickle.find_class"):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)  # there is no way to remove it
    yield seen
    on.clear()


def wrong(run, outside, sums, opened, log) -> str:
    """What loading a run, and saving it on, does that it should not; empty where all is well."""
    foreign, before = state(outside), state(run)
    opened.clear()
    try:
        model = DCGAN.load(run)
        if state(run) != before:
            return "loading changed something"
        if sums[model.steps_done] != model.checksum():
            return "loaded other weights"
        unread = "ckpt-605 cannot be restored" in log.text
        for step in (700, 701):
            model.trainer.step.assign(step)
            model.save(run)
        lost = set(before.values()) - set(state(run).values())
        if unread and any("ckpt-605" in n and before[n] in lost for n in before):
            return "lost what could not be read"
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            return f"more than a line: {error}"
    except Exception as error:
        return f"{error!r:.300}"
    finally:
        touched = [o for o in opened if str(outside) in o or o.startswith("pickle")]
    if touched:
        return f"reads {touched}"
    return "" if state(outside) == foreign else "something outside was changed"


def test_mutated_model_folders(whole, trained_folder, tmp_path, opened, caplog):
    """Each is an error of one line or has the weights of a whole checkpoint, also if saved on."""
    warnings.simplefilter("ignore")
    sums = {605: DCGAN.load(whole).checksum(), 600: DCGAN.load(trained_folder).checksum()}
    runs, found = size(RUNS), []
    for number in range(runs):
        rng = random.Random(f"{SEED} {number}")
        root = tmp_path / str(number)
        run, outside = root / "run", root / "outside"
        shutil.copytree(whole, run)
        outside.mkdir()
        for name in ("foreign", "foreign.index", "foreign.data-00000-of-00001"):
            (outside / name).write_text("foreign")
        done = mutate(run, outside, rng)
        if what := wrong(run, outside, sums, opened, caplog):
            found.append(f"{number} ({done}): {what}")
        caplog.clear()
        shutil.rmtree(root)
    record("model folders", runs, len(found), SEED)
    assert not found, "\n".join(found)

"""Results as JSON lines, of which none is computed twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def load_lines(results: Path) -> list[dict]:
    return [json.loads(x) for x in results.read_text().splitlines()] if results.exists() else []


def append(results: Path, line: dict) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with open(results, "a") as file:
        file.write(json.dumps(line) + "\n")


def run_once(results: Path, key: dict, run: Callable[[], dict]) -> None:
    """Adds and prints the line of a run, unless there is one with this key."""
    if any(key.items() <= line.items() for line in load_lines(results)):
        return
    line = {**key, **run()}
    append(results, line)
    print(line, flush=True)

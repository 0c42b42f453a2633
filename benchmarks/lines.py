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
    """Prints the line of a run, and adds it, unless there is one with this key."""
    line = next((line for line in load_lines(results) if key.items() <= line.items()), None)
    if line is None:
        line = {**key, **run()}
        append(results, line)
    else:
        print(f"in {results.name} already, remove its line to run it anew:", end=" ")
    print(line, flush=True)

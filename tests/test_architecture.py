"""The package's rooms: which imports which, read from the source."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LEVELS = 9
# From below to above: a module imports from its own room and from those before it
ROOMS = (
    ("anogan", "anogan.runs"),
    ("utils", "ops"),
    ("anogan.datasets",),
    ("download",),
    *(("anogan.data",), ("anogan.features",), ("anogan.method",), ("model",)),
    *(("anogan.evaluation",), ("anogan.report",), ("anogan.deploy",)),
    *(("anogan.estimator",), ("anogan.cli",), ("main",)),
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

pytestmark = pytest.mark.unit


@cache
def modules():
    """{dotted name: path} of the tool's own modules."""
    found = {f"{path.stem}": path for path in ROOT.glob("*.py")}
    for path in (ROOT / "anogan").rglob("*.py"):
        found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


@cache
def imports(name):
    """The tool's modules that one imports anywhere in it, for types, too."""
    there, found = modules(), set()
    for node in ast.walk(ast.parse(there[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & there.keys()) or {node.module}
    return (found & there.keys()) - {name}


def levels():
    """{module: how many it stands on, itself included}; fails on a circle."""
    found = {}
    while left := modules().keys() - found.keys():
        ready = {name for name in left if imports(name) <= found.keys()}
        assert ready, f"imports in a circle, or above one: {sorted(left)}"
        found |= {n: 1 + max((found[m] for m in imports(n)), default=0) for n in ready}
    return found


def rank(name):
    """Of the room that a module lies in; None where it belongs to no order."""
    rooms = [room for room in RANK if name == room or name.startswith(f"{room}.")]
    return RANK[max(rooms, key=len)] if rooms else None


def test_imports_make_no_circle_and_few_levels():
    deep = {name: level for name, level in levels().items() if level > MOST_LEVELS}
    assert not deep, f"on more than {MOST_LEVELS} levels: {deep}"


def test_no_room_imports_from_one_above():
    upwards = [
        f"{name} imports {other}"
        for name in modules()
        for other in imports(name)
        if None not in (rank(name), rank(other)) and rank(other) > rank(name)
    ]
    assert not upwards

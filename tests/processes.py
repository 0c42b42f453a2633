"""Processes of which two may be a team, each on one core; their lines go to files in cwd."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(cwd, code, arguments, index=None, ports=()):
    """A Python process, one of a team if it has an index."""
    variables = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "PYTHONPATH": str(ROOT)}
    variables.pop("TF_CONFIG", None)
    if index is not None:
        task = {"type": "worker", "index": index}
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        variables["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    with (cwd / f"worker{index or 0}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=cwd, env=variables, stdout=log, stderr=log,
        )  # fmt: skip


def free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("localhost", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports

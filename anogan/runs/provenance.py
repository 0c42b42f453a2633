"""Where figures come from: versions of the libraries and of this tool, and the date."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anogan import __version__

LIBRARIES = "tensorflow", "keras", "numpy"


def versions() -> dict[str, str]:
    """Return {library: version}; anogan's with the git commit, if it is run from a clone."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # as tensorflow-cpu
            continue
    commit = _commit()
    return found | {"anogan": f"{__version__} ({commit})" if commit else __version__}


def now() -> str:
    """The date and time, UTC, in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _commit() -> str | None:
    """As git describes it, with -dirty where files were changed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # or git would find one further up
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

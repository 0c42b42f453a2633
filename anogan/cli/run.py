"""The run that a command is for: its folder, its settings, and who writes to it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anogan.cli.options import Options
from anogan.cli.printing import print_line
from anogan.config import FREE, Config
from anogan.runs import distributed
from anogan.runs.files import clear_temporaries
from anogan.runs.lock import LOCK, only_one
from anogan.runs.start_up import UNUSED, import_tensorflow


@dataclass(frozen=True)
class Devices:
    """On what a command computes, and in which precision."""

    strategy: str
    precision: str
    chief: bool  # of several workers only the chief writes

    @classmethod
    def of(cls, options: Options) -> Devices:
        """Raise UserError where --strategy multiworker finds no other workers named."""
        chief = options.strategy != "multiworker" or distributed.task()[0] == 0
        return cls(options.strategy, options.precision, chief)

    def connect(self) -> tuple[str, distributed.Workers]:
        """Load TensorFlow; print what is computed on; return the precision, and the workers."""
        import_tensorflow(*UNUSED)
        gc.freeze()  # it is not looked through for garbage again and again
        workers = distributed.Workers(self.strategy)
        print_line(distributed.describe_devices(workers.devices), workers)
        return distributed.resolve_precision(self.precision), workers

    @contextlib.contextmanager
    def only_writer(self, folder: Path, what: str, flag: str) -> Iterator[None]:
        """In the block the chief alone writes to a folder; UserError where another process does."""
        if not self.chief:
            yield
            return
        busy = f"another {what} is at work in {folder}: wait until it ends, or name another {flag}"
        with only_one(folder / LOCK, busy):
            clear_temporaries(folder)
            yield


@dataclass(frozen=True)
class Run:
    """A run, as its folder and the flags have it."""

    folder: Path
    config: Config
    devices: Devices

    def free_settings(self) -> dict[str, Any]:
        """Return the settings that flags may change of a run that is there."""
        return {name: getattr(self.config, name) for name in FREE}

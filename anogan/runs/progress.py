"""Progress of what takes long: a bar in a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 30.0  # after which there is a line in any case
LEAST_SECONDS = 2.0  # between lines but the last
LINE = "{desc}: {n_fmt}/{total_fmt} {unit} ({elapsed}, {remaining} left, {rate_fmt}{postfix})"


class Lines(tqdm):
    """tqdm that prints a line at each tenth of the way, and after half a minute."""

    def __init__(self, **options: Any):
        self._shown, self._tenth = time.monotonic(), 0
        super().__init__(bar_format=LINE, mininterval=0, miniters=1, **options)
        self._tenth = self._reached()

    def _reached(self) -> int:
        return int(10 * self.n / self.total) if self.total else 0

    def display(self, *_: Any, **__: Any) -> None:
        """Called by tqdm whenever it would draw its bar."""
        passed = time.monotonic() - self._shown
        ended = self.n == self.total and self._tenth < 10
        next_tenth = self._reached() > self._tenth and passed >= LEAST_SECONDS
        if self.n > self.initial and (ended or next_tenth or passed >= SECONDS):
            self._shown, self._tenth = time.monotonic(), self._reached()
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        """tqdm's own ends the line of its bar."""
        if not self.disable:
            self.display()
            self.disable = True


def progress(
    total: int, unit: str, description: str, initial: int = 0, shown: bool = True
) -> tqdm[Any]:
    """A progress bar of so many units, on standard error, as its reader can use it."""
    options: dict[str, Any] = {"total": total, "unit": unit, "desc": description}
    options |= {"initial": initial, "disable": not shown}
    return tqdm(dynamic_ncols=True, **options) if sys.stderr.isatty() else Lines(**options)

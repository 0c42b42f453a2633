"""Several devices and machines: TensorFlow's strategies, and what the workers settle together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anogan.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multiworker")
EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
RESTARTS = "ANOGAN_RESTARTS"  # environment: how often in a row this worker started anew
MOST_RESTARTS = 10
LONG = 120.0  # seconds after which a start counts as a success
STARTED = time.monotonic()
CPU_INFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")  # where its driver lists the cards


def task() -> tuple[int, int]:
    """(this worker's index, number of workers) from TF_CONFIG; UserError if it says neither."""
    remedy = f"set it on each machine, with its own index: TF_CONFIG='{EXAMPLE}'"
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise UserError(
            f"--strategy multiworker needs the environment variable TF_CONFIG: {remedy}"
        )
    try:
        config = json.loads(text)
        workers, index = config["cluster"]["worker"], int(config["task"]["index"])
        if {*config["cluster"], config["task"]["type"]} != {"worker"}:
            raise ValueError("all are to be workers, worker 0 is the chief")
        ports = [int(address.rsplit(":", 1)[1]) for address in workers]
        if not 0 <= index < len(workers) or not all(0 < port < 65536 for port in ports):
            raise ValueError(f"index {index} of workers {', '.join(workers)}")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"TF_CONFIG cannot be read ({reason}): {remedy}") from None
    return index, len(workers)


def graph_of(function: Callable[..., Any], **options: Any) -> Any:
    """Make a tf.function of the code as it stands.

    AutoGraph, for loops that there are not here, is slow and writes files.
    """
    import tensorflow as tf

    return tf.function(function, autograph=False, **options)


@dataclass(frozen=True)
class ReplicaSlice:
    """A replica's part of a global batch: images index, index + count, index + 2 count, …

    So the first half of each lies in the global batch's first half.
    """

    index: int = 0
    count: int = 1  # replicas

    def draw(
        self, kind: Callable[..., tf.Tensor], shape: list, seed: tf.Tensor, *limits: Any
    ) -> tf.Tensor:
        """The replica's part of random numbers that are drawn for the global batch.

        kind: of tf.random's stateless ones; shape: of its part, (b, ...); what a replica draws
        for an image does not depend on how many replicas there are.
        """
        drawn = kind([shape[0] * self.count, *shape[1:]], seed, *limits)
        return drawn if self.count == 1 else drawn[self.index :: self.count]


WHOLE = ReplicaSlice()


class Workers:
    """This process among those that work together; alone unless the strategy is multiworker.

    strategy: of tf.distribute; index, count: of the processes; devices: that this one computes
    on; replicas: devices in all. Worker 0, the chief, owns checkpoints, samples, logs, results.
    """

    def __init__(self, name: str = "none"):
        """name: of STRATEGIES; multiworker waits until all workers of TF_CONFIG are there."""
        import tensorflow as tf

        self.index, self.count = task() if name == "multiworker" else (0, 1)
        if name == "none":
            self.strategy = tf.distribute.get_strategy()
        elif name == "mirrored":
            self.strategy = tf.distribute.MirroredStrategy()
        elif name == "multiworker":
            self.strategy = _connect(self.index, self.count)
        else:
            raise UserError(f"strategy must be one of {', '.join(STRATEGIES)}, not {name}")
        self.replicas = self.strategy.num_replicas_in_sync
        self.devices = self.replicas // self.count

        def add(x: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group % self.devices, 0)
            return context.all_reduce("SUM", x * tf.cast(first, x.dtype))

        self._total = graph_of(lambda x: self.strategy.run(add, (x,)), reduce_retracing=True)

    def shared_out(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """A function of arrays as a tf.function with these options; rows over local devices.

        function: takes tensors whose rows it treats each by itself, then other arguments as it
        likes; returns tensors with the same number of rows. With several devices in this process
        each computes as many rows, so their number must be a multiple of the devices'.
        """
        import numpy as np
        import tensorflow as tf

        graph = graph_of(function, **options)
        if self.devices == 1:
            return graph
        everywhere = graph_of(lambda arguments: self.strategy.run(graph, arguments))

        def call(*arguments: Any) -> Any:
            split = [
                self._spread(np.split(np.asarray(a), self.devices)) if np.ndim(a) else a
                for a in arguments
            ]
            found = everywhere(tuple(split))
            return tf.nest.map_structure(
                lambda v: tf.concat(self.strategy.experimental_local_results(v), 0), found
            )

        return call

    def _spread(self, pieces: list[np.ndarray]) -> Any:
        """Arrays, one for each device of this process, as a value of tf.distribute."""
        import tensorflow as tf

        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(pieces[context.replica_id_in_sync_group % self.devices])
        )

    @property
    def chief(self) -> bool:
        return self.index == 0

    def share(self, count: int, unit: int) -> range:
        """This worker's part of `count` items, in runs that begin at multiples of `unit`.

        Where there are fewer runs than workers the chief has one, for its progress bar.
        """
        units = -(-count // unit)
        first, last = (-(-units * i // self.count) * unit for i in (self.index, self.index + 1))
        return range(min(first, count), min(last, count))

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of all workers' NumPy arrays of one shape, on each; waits for the last."""
        if self.count == 1:
            return values
        import tensorflow as tf

        found = self._total(tf.constant(values))
        return self.strategy.experimental_local_results(found)[0].numpy()

    def wait(self) -> None:
        """Until all workers are here."""
        import numpy as np

        self.total(np.zeros(1, np.int64))

    def part(self) -> None:
        """Until all workers are here, and each has been told so: then the process may end.

        One that ends after `wait` can be gone before another has heard from it, which would look
        lost there. So all wait twice, and whoever is missing the second time has been here.
        """
        self.wait()
        self._linger()

    def _linger(self) -> None:
        """Before the end of all workers, after a sum that all were there for."""
        try:
            self.wait()
        except Exception as error:
            if not lost(error):
                raise

    def from_chief(self, values: np.ndarray) -> np.ndarray:
        """The chief's array, of the same shape as this worker's."""
        return self.total(values if self.chief else values * 0)

    def agree(self, numbers: dict[str, int]) -> None:
        """UserError, on all workers, unless they all come with the chief's numbers."""
        import numpy as np

        mine = np.array(list(numbers.values()), np.int64)
        differ = np.zeros((self.count, len(mine)), np.int64)
        differ[self.index] = mine != self.from_chief(mine)
        for worker, row in enumerate(self.total(differ)):
            if row.any():
                self._linger()
                what = ", ".join(name for name, bad in zip(numbers, row, strict=True) if bad)
                raise UserError(
                    f"worker {worker} differs from worker 0 in {what}: "
                    "start all with the same flags, images and versions (--precision, too, if the "
                    "machines differ)"
                )


def has_gpu() -> bool:
    """Whether TensorFlow sees one."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def describe_devices(used: int = 1) -> str:
    """Describe to the user on what is computed, used devices of this machine, and what is idle."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        names = [one.get("device_name", "GPU") for one in details]
        line = f"computing on {', '.join(names[:used])}"
        idle = len(gpus) - used
        return line + (f"; {idle} more idle, --strategy mirrored uses all" if idle > 0 else "")
    line = f"computing on {cores()} CPU cores"
    if NVIDIA.is_dir() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        line += '; TensorFlow cannot use the GPU: pip install "tensorflow[and-cuda]", docs/speed.md'
    return line


def cores() -> int:
    """Return on how many CPU cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_precision(name: str) -> str:
    """ "auto" becomes mixed_bfloat16 where CPU or GPU is faster at it, else float32."""
    if name != "auto":
        return name
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        is_fast = details.get("compute_capability", (0,))[0] >= 8
        return "mixed_bfloat16" if is_fast else "float32"
    try:
        words = set(CPU_INFO.read_text().split())
    except OSError:
        words = set()
    # Intel's avx512_bf16 multiplies no faster than float32, AMD's twice as fast.
    units = "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words
    return "mixed_bfloat16" if units else "float32"


@contextlib.contextmanager
def handled(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """These signals go to handler within the block, then to what they went to before.

    Only Python's main thread may decide that, and it can put back only what Python knows of: from
    another thread, or where a handler is not Python's, all stays as it is.
    """
    old = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                if signal.getsignal(number) is not None:
                    old[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def hangup() -> list[signal.Signals]:
    """The signal of a closed terminal, where there is one that ends the process.

    Under nohup it is ignored, and stays so.
    """
    number = getattr(signal, "SIGHUP", None)
    return [number] if number and signal.getsignal(number) is signal.SIG_DFL else []


def interrupts() -> list[signal.Signals]:
    """The signals that raise KeyboardInterrupt."""
    all_ = signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)
    mine = signal.default_int_handler
    return [number for number in all_ if number and signal.getsignal(number) is mine]


def _connect(index: int, count: int) -> tf.distribute.Strategy:
    """The strategy of all workers; while it waits for them, Ctrl-C ends the process at once."""
    import tensorflow as tf

    print(f"worker {index} of {count}: waiting for the others", file=sys.stderr, flush=True)
    with handled(signal.SIG_DFL, *{signal.SIGINT, signal.SIGTERM, *interrupts()}):
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (RuntimeError, tf.errors.UnknownError) as error:  # the port is taken, a host unknown
            raise UserError(f"the workers of TF_CONFIG cannot be reached: {error}") from None
    print(f"worker {index} of {count}: all are there", file=sys.stderr, flush=True)
    return strategy


def lost(error: BaseException) -> bool:
    """Whether an error says that another worker is gone."""
    import tensorflow as tf

    kinds = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError
    return isinstance(error, kinds)


def start_anew() -> None:
    """This very command again, in place of this process: it waits for the lost worker."""
    restarts = 0 if time.monotonic() - STARTED > LONG else int(os.environ.get(RESTARTS, 0))
    if restarts >= MOST_RESTARTS:
        raise UserError("a worker was lost again and again: see its own messages")
    os.environ[RESTARTS] = str(restarts + 1)
    text = "another worker was lost: starting again, from the last checkpoint, when it is back"
    print(text, file=sys.stderr, flush=True)
    time.sleep(1.0)
    os.execv(sys.executable, sys.orig_argv)

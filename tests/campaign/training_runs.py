"""Trainings of a small model as a user starts them, and what they leave."""

import contextlib
import fcntl
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ARGUMENTS = [
    *("--dataset", "zeros", "--train", "--epoch", "60", "--output_height", "16"),
    *("--gf_dim", "4", "--df_dim", "4", "--z_dim", "4", "--batch_size", "16"),
    *("--precision", "float32"),
]
OFTEN = "training.CHECK_EVERY, training.SAVE_SECONDS = 4, 0.0\n"  # saves at every look
# What tells of the folder's history, not of the model
SPARED = ("save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")


class Driver:
    """Starts commands by driver.py, one after the other."""

    def __enter__(self):
        variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # A pipe: what a command prints has room whatever limits it has
        self.printed, written = os.pipe()
        fcntl.fcntl(written, fcntl.F_SETPIPE_SZ, 2**20)
        os.set_blocking(self.printed, False)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("driver.py")), str(written)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[written], env=variables, text=True,
        )  # fmt: skip
        self.written = written
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        os.close(self.printed)
        os.close(self.written)

    def start(self, cwd, arguments=ARGUMENTS, setup=OFTEN) -> int:
        """The process id of a command."""
        order = {"cwd": str(cwd), "arguments": arguments, "setup": setup}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self) -> tuple[int, str]:
        """Waits for the command; its exit code, negative if a signal ended it, and its lines."""
        code, parts = int(self.process.stdout.readline()), []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.printed, 2**20):
                parts.append(part)
        return code, b"".join(parts).decode(errors="replace")

    def run(self, cwd, arguments=ARGUMENTS, setup=OFTEN) -> tuple[int, str]:
        """The exit code and the lines of a command."""
        self.start(cwd, arguments, setup)
        return self.end()

    def killed(self, cwd, rng, within, progress, after, arguments=ARGUMENTS, setup=OFTEN) -> bool:
        """Starts a command and kills it; whether it was not at its end before.

        One in four anywhere within so many seconds, others up to `after` seconds after progress(),
        a number of what the command has left behind, has changed.
        """
        before = progress(cwd)
        process = os.pidfd_open(self.start(cwd, arguments, setup))
        try:
            if rng.random() < 0.25:
                time.sleep(rng.uniform(0, within))
            else:
                end = time.monotonic() + 60
                over = functools.partial(select.select, [process], [], [], 0.001)
                while progress(cwd) == before and time.monotonic() < end and not over()[0]:
                    pass
                time.sleep(rng.uniform(0, after))
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:  # it was at its end
            pass
        finally:
            os.close(process)
        return self.end()[0] == -signal.SIGKILL


def make_data(cwd, images):
    """Images (n, h, w, 1) to train on."""
    folder = cwd / "data" / "zeros"
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03d}.png")
        os.utime(folder / f"{i:03d}.png", (0, 0))


def model_of(cwd) -> dict[str, bytes]:
    """All that the newest checkpoint of a training holds, by name."""
    import tensorflow as tf

    folder = cwd / "checkpoints" / "zeros"
    step = max(int(p.stem.split("-")[1]) for p in folder.glob("ckpt-*.index"))
    reader = tf.train.load_checkpoint(str(folder / f"ckpt-{step}"))
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith(SPARED)]
    held = {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}
    return {**held, "newest": str(step).encode()}


def differences(cwd, unbroken) -> str:
    """What a training has other than an unbroken one; empty where nothing."""
    mine, theirs = model_of(cwd), model_of(unbroken)
    other = [name for name in theirs if mine.get(name) != theirs[name]]
    if other or mine.keys() != theirs.keys():
        return f"{len(other)} of {len(theirs)} variables differ: {other[:3]}"
    if names_in(cwd) != names_in(unbroken):
        return f"files differ: {names_in(cwd) ^ names_in(unbroken)}"
    if pictures_in(cwd) != pictures_in(unbroken):
        return "samples differ"
    return ""


def names_in(cwd) -> set[str]:
    """Of all files but the curves, which each start writes anew."""
    paths = {p.relative_to(cwd).as_posix() for p in cwd.rglob("*") if not p.is_dir()}
    return {name for name in paths if not name.startswith("logs/")}


def pictures_in(cwd) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (cwd / "samples" / "zeros").glob("*.png")}

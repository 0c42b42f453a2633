"""Where a user's time goes, from the command to the report: each stage's share.

python benchmarks/stages.py [parts] [faces] [digits] [files-2000] [files-200000] [--data_dir data]

parts: 200 of ELPV's cells enlarged to 500 pixels, seen through windows, 60 others scored. faces:
celebA at 64 pixels, 500 of them scored. digits: all 60,000 of MNIST, 2,000 scored. files-N: so many
names of celebA's files to train on and as many to score, without the pretrained network; of two
such the second's stages are printed as ratios to the first's, too. Each user's
`main.py --train --anomaly_test` runs in a process of its own with the tool's defaults. The clock of
the main thread counts for the innermost stage that is at work: what other threads do beside it
(reading ahead in training) shows only where it is waited for. The parts of a training step are
timed alone, as often as they occur in it. Prints tables in seconds and per cent and writes
results/stages.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile TensorFlow anew
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

RESULTS = HERE / "results" / "stages.json"
REST = "rest"
STEPS = 10  # of training, timed in a row
USERS = "parts", "faces", "digits"
MANY = "files-"
OF_FACES = ["--dataset", "some", "--crop", "--input_height", "108", "--output_height", "64"]


class Clock:
    """Seconds of the innermost stage at work."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._at_work, self._since = [REST], time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._at_work[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable) -> Callable:
        def call(*values: Any, **named: Any) -> Any:
            self._switch()
            self._at_work.append(stage)
            try:
                return function(*values, **named)
            finally:
                self._switch()
                self._at_work.pop()

        return call

    def table(self) -> dict[str, float]:
        self._switch()
        return dict(self.seconds.most_common())


def stages() -> list[tuple[str, Any, str]]:
    """Return (stage, where it is, name) of what is timed."""
    from anogan.cli import load, score, train
    from anogan.data.image_set import ImageSet
    from anogan.method import kept_images
    from anogan.method.detector import Detector
    from anogan.method.trainer import Trainer
    from anogan.method.training import TrainingRun
    from model import DCGAN

    import model  # isort: skip

    return [
        ("listing", train, "prepare"),
        ("listing", load, "prepare"),
        ("listing", score, "prepare"),
        ("reading", ImageSet, "read"),
        ("networks", DCGAN, "__init__"),
        ("networks", Trainer, "__init__"),
        ("PCA of the images", model, "fit_linear_skips"),
        ("pretrained features", kept_images, "fit_features"),
        ("training steps", Trainer, "update"),
        ("checks and samples", TrainingRun, "_check_health"),
        ("checks and samples", TrainingRun, "_grid"),
        ("checkpoints", DCGAN, "save"),
        ("calibration", Detector, "calibrate"),
        ("ranking", train, "rank"),
        ("scoring", Detector, "detect"),
        ("pictures and page", score, "draw_report"),
    ]


def make(user: str, data_dir: Path, folder: Path) -> list[str]:
    """Make a user's images; return what they type."""
    (folder / "data").mkdir()
    if user == "digits":
        (folder / "data" / "mnist").symlink_to(data_dir / "mnist")
        return ["--dataset", "mnist", "--test_size", "2000"]
    from PIL import Image

    faces = data_dir / "celebA" / "img_align_celeba"
    if user.startswith(MANY):
        files, count = sorted(faces.glob("*")), int(user.removeprefix(MANY))
        for name in ("data/some", "test_data"):
            for i in range(count):
                path = folder / name / f"{i // 1000:03d}" / f"{i:07d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(files[i % len(files)])
        return [*OF_FACES, "--features", "none"]
    source = faces if user == "faces" else data_dir / "elpv" / "mono" / "train"
    files = sorted(source.glob("*"))
    some = files[:260] if user == "parts" else files
    tested = 60 if user == "parts" else 500
    for name, part in (("data/some", some[:-tested]), ("test_data", some[-tested:])):
        (folder / name).mkdir()
        for path in part:
            if user == "faces":
                (folder / name / path.name).symlink_to(path)
                continue
            with Image.open(path) as image:
                image.resize((500, 500), Image.Resampling.BICUBIC).save(folder / name / path.name)
    if user == "faces":
        return OF_FACES
    return ["--dataset", "some"]


def step_parts(model: Any) -> dict[str, float]:
    """Return seconds of a training step, and of its parts, each alone as often as it occurs."""
    import numpy as np
    import tensorflow as tf

    from anogan.method import trainer as method

    trainer, config, nets = model.trainer, model.config, model.trainer.nets
    b, half = config.batch_size, config.batch_size // 2
    whole, shape = (b, *config.shape), (b, *config.net_shape)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(-1, 1, whole), tf.float32)
    x = tf.constant(rng.uniform(-1, 1, shape), tf.float32)
    z = tf.constant(rng.normal(size=(b, config.z_dim)), tf.float32)
    planted = method._plant(x, trainer.seeds(5), method._replica())
    seen = tf.concat([x, planted.damaged, planted.defective], 0)
    gradients = {
        name: [tf.zeros_like(v) for v in trainer.weights_of(name)] for name in nets.trained()
    }

    def optimise() -> None:
        for name, some in gradients.items():
            trainer.apply(name, some)

    def both_ways(net: Any, inputs: tf.Tensor) -> Any:
        def work() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                found = net(inputs, training=True)
                found = found if isinstance(found, (list, tuple)) else [found]
                loss = tf.add_n([tf.reduce_mean(tf.cast(one, tf.float32)) for one in found])
            return tape.gradient(loss, [inputs, *net.trainable_variables])

        return work

    parts = {
        "planting": lambda: method._plant(x, trainer.seeds(5), method._replica()),
        "D of images, both ways": both_ways(nets.discriminator, seen),
        "D of G's, both ways": both_ways(nets.discriminator, x),
        "G, both ways": both_ways(nets.generator, z),
        "E, both ways": both_ways(nets.encoder, x[:half]),
        "optimisers": optimise,
        "EMA": trainer._follow,
    }
    graphs = {name: tf.function(work) for name, work in parts.items()}
    graphs = {"a step": lambda: trainer._train_step(images), **graphs}
    found = {}
    for name, work in graphs.items():
        work()
        started = time.perf_counter()
        for _ in range(STEPS):
            work()
        found[name] = (time.perf_counter() - started) / STEPS
    return found


def inside(user: str, data_dir: Path) -> dict[str, Any]:
    """Return a user's seconds by stage and those of a training step, measured in this process."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = [*make(user, data_dir, folder), "--train", "--anomaly_test"]
        os.chdir(folder)
        clock = Clock()
        import main

        clock.timed("import", stages)()
        for stage, where, attribute in stages():
            setattr(where, attribute, clock.timed(stage, getattr(where, attribute)))
        from anogan.cli.parser import parse
        from model import DCGAN

        with contextlib.redirect_stdout(io.StringIO()):
            main.run(parse(typed))
        found = {"stages": clock.table()}
        [run] = (folder / "checkpoints").glob("*/")
        return {**found, "step": step_parts(DCGAN.load(run))}


def show(title: str, seconds: dict[str, float], whole: float) -> None:
    print(f"\n{title}: {whole:.3g} s")
    for name, value in seconds.items():
        print(f"  {name:24}{value:9.3f} s {value / whole:6.1%}", flush=True)


def measure() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("users", nargs="*", default=USERS, metavar="|".join(USERS))
    p.add_argument("--data_dir", type=Path, default=HERE.parent / "data")
    p.add_argument("--inside", help=argparse.SUPPRESS)
    args = p.parse_args()
    data_dir = args.data_dir.resolve()
    if args.inside:
        print(json.dumps(inside(args.inside, data_dir)))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for user in args.users:
        command = [sys.executable, __file__, "--inside", user, "--data_dir", str(data_dir)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[user] = json.loads(told.splitlines()[-1])
        show(user, found[user]["stages"], sum(found[user]["stages"].values()))
        step = dict(found[user]["step"])
        show(f"a training step of {user}", step, step.pop("a step"))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    many = [found[user]["stages"] for user in args.users if user.startswith(MANY)]
    if len(many) == 2:
        print("\nthe second over the first")
        for name, value in many[1].items():
            print(f"  {name:24}{value / many[0].get(name, math.nan):9.1f}")


if __name__ == "__main__":
    measure()

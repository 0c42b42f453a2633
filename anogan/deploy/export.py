"""A trained model as one file for other programs, see inference_graph.py for what it computes.

NAME.onnx            for ONNX Runtime, without TensorFlow
NAME.tflite          for TensorFlow Lite, on devices: of images resized before
NAME_saved_model     a folder for TensorFlow, tf.saved_model.load(folder).score(image)
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from anogan.config import Config
from anogan.errors import UserError, first_line
from anogan.runs.files import (
    discard,
    is_folder,
    is_own,
    record,
    require_writable,
    temporary_in,
    write_atomic,
    written,
)

if TYPE_CHECKING:  # which is slow
    import tensorflow as tf

ENDS = {"onnx": ".onnx", "tflite": ".tflite", "saved_model": "_saved_model"}
OPSET = 18  # of ONNX
SIDES = "h", "w", "c"


def prepare(kind: str, config: Config, run: Path, folder: str | None) -> Path:
    """Return where the export goes; UserError where it cannot be made.

    kind: one of ENDS; run: the run's folder, to which the export goes unless `folder` is given.
    """
    if not config.recipe.encoder:
        raise UserError(
            "--export writes the encoder's way to score, and a classic run has no encoder: train "
            "one with --preset default"
        )
    if config.value_range:
        logging.getLogger(__name__).warning(
            "the model was trained on files whose values %g and %g are black and white: the "
            "exported one takes 8 bits a channel, so scale yours to these, %g to 0 and %g to 255",
            *config.value_range * 2,
        )
    if kind == "onnx" and not find_spec("tf2onnx"):
        raise UserError("--export onnx needs tf2onnx: pip install -r requirements-export.txt")
    name = Path(os.path.abspath(run)).name + ENDS[kind]
    path = Path(folder or run) / name
    require_writable(path.parent)
    ours = (is_folder if kind == "saved_model" else is_own)(path) and name in written(path.parent)
    if os.path.lexists(path) and not ours:
        raise UserError(
            f"{path} was not written by this tool and would be replaced: move it, or name another "
            "--export_dir"
        )
    return path


def export(kind: str, path: Path, graph: tf.Module, facts: dict[str, str]) -> str:
    """Write the graph as a file or folder, replacing a former one; return a line for the user.

    graph: an InferenceGraph; facts: of it, for the file's metadata.
    """
    record(path.parent, path.name)
    if kind == "onnx":
        write_atomic(path, _onnx(graph, facts))
    elif kind == "tflite":
        write_atomic(path, _lite(graph, path.parent))
    else:
        _save_folder(graph, path)
    threshold = float(facts["threshold"])
    return f"exported to {path}, with the threshold {threshold:.4g} ({facts['threshold_is']})"


def _onnx(graph: tf.Module, facts: dict[str, str]) -> bytes:
    import onnx
    import tf2onnx

    with _quiet():
        found, _ = tf2onnx.convert.from_function(
            graph.score, input_signature=graph.score.input_signature, opset=OPSET
        )
    for side, name in zip(found.graph.input[0].type.tensor_type.shape.dim, SIDES, strict=True):
        side.dim_param = name
    onnx.helper.set_model_props(found, facts)
    return found.SerializeToString()


def _lite(graph: tf.Module, folder: Path) -> bytes:
    """Return a file of TensorFlow Lite, of built-in operations alone.

    folder: for what the converter reads, which is removed.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    of_resized = graph.of_resized()
    traced = of_resized.get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)  # Lite drops the variables' values

    class Fixed(tf.Module):
        @tf.function(input_signature=of_resized.input_signature)
        def score(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return tf.nest.pack_sequence_as(traced.structured_outputs, frozen(image))

    fixed, aside = Fixed(), temporary_in(folder)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        with _quiet():
            tf.saved_model.save(fixed, str(aside), fixed.score, options)
            return tf.lite.TFLiteConverter.from_saved_model(str(aside)).convert()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{folder} cannot be written to ({first_line(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            discard(aside)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the converter's warnings of what it does not optimise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _save_folder(graph: tf.Module, path: Path) -> None:
    """Write a SavedModel aside and then put it in the place of a former one."""
    import tensorflow as tf

    new, old = (temporary_in(path.parent) for _ in range(2))
    try:
        with _quiet():
            tf.saved_model.save(graph, str(new), signatures=graph.score)
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(new, path)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{path} cannot be written ({first_line(error)})") from error
    finally:
        for left in (new, old):
            with contextlib.suppress(OSError):
                discard(left)

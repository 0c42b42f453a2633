"""The exported model gives the tool's scores, decisions and maps, from any image."""

import dataclasses
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from anogan.cli.deploy import ExportPlan
from anogan.config import Config, preset
from anogan.deploy import export
from anogan.errors import UserError
from anogan.method.threshold import Threshold
from anogan.runs.files import MARKER, record
from utils import load_image, to_float

ROOT = Path(__file__).parent.parent
WITH_ONNX = all(map(find_spec, ("tf2onnx", "onnxruntime")))
needs_onnx = pytest.mark.skipif(
    not WITH_ONNX, reason="ONNX IS NOT TESTED: pip install -r requirements-export.txt"
)
KINDS = [pytest.param("onnx", marks=needs_onnx), "saved_model"]
SHAPES = (16, 16, 1), (8, 8, 1), (100, 37, 3), (90, 33, 1), (33, 90, 2), (50, 60, 4), (513, 300, 3)


@pytest.fixture(scope="module")
def coloured(digits):
    """An untrained model that looks through windows at colour, its weights all random.

    It reads images at a larger size than its networks see them.
    """
    from anogan.data.image_set import ImageSet
    from anogan.method.kept_images import fit_features
    from anogan.runs.run_images import RunImages
    from model import DCGAN

    views = np.repeat(np.stack([np.tile(digits[0][i], (3, 4, 1)) for i in range(40)]), 3, axis=3)
    views[..., 2] = 255 - views[..., 2] // 2
    sizes = {"height": 32, "width": 48, "view_height": 48, "view_width": 64}
    config = preset("default", window=32, z_dim=4, gf_dim=4, df_dim=4, **sizes)
    model, rng = DCGAN(config), np.random.default_rng(0)
    for net in model.trainer.ema.trained().values():
        for weight in net.weights:
            random = rng.normal(0, 0.1, weight.shape)
            weight.assign(1 + np.abs(random) if "variance" in weight.path else random)
    known, _ = fit_features(ImageSet.from_array(views[20:]), model.pretrained, config)
    seen = model.inference.scaled(views[20:])
    model.images = RunImages(views[:20], seen, features=known)
    model.keep_calibration()
    return model


def image_of(shape, seed=0):
    """Random, but smooth, uint8."""
    h, w, c = shape
    rng = np.random.default_rng(seed)
    planes = [Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)) for _ in range(c)]
    image = np.stack([np.asarray(plane.resize((w, h))) for plane in planes], axis=-1)
    return image + rng.integers(0, 3, shape, np.uint8)  # edges where it wraps


def saved(path, image):
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path)
    return path


def exported(model, kind, folder, threshold=None):
    path = folder / f"it{export.ENDS[kind]}"
    ExportPlan(kind, path, threshold or Threshold()).execute(model)
    if kind == "saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        return lambda image: {k: v.numpy() for k, v in loaded.score(image).items()}
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(None, {"image": image}), strict=True))


@pytest.mark.unit
@pytest.mark.parametrize("crop", [(0, 0), (31, 19)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_to_the_very_levels_of_the_tool(tmp_path, channels, crop):
    import tensorflow as tf

    from anogan.deploy.inference_graph import read_as_float

    config = Config(height=64, width=48, channels=channels, crop_height=crop[0], crop_width=crop[1])
    read = tf.function(lambda image: read_as_float(image, config))
    for shape in SHAPES:
        if min(shape[:2]) >= crop[0]:
            image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            path = saved(tmp_path / "x.png", image)
            expected = to_float(load_image(path, 64, 48, channels, config.crop))
            np.testing.assert_allclose(read(image)[0], expected, atol=1e-6, err_msg=str(shape))


@pytest.mark.slow
@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_scores_decisions_and_maps_are_the_tools(kind, trained, coloured, queries, tmp_path):
    for model in (trained, coloured):
        score, config = exported(model, kind, tmp_path), model.config
        images = [*queries[0][::8], *(image_of(shape) for shape in SHAPES)]
        paths = [saved(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
        loaded = [load_image(path, *config.view) for path in paths]
        expected = model.anomaly_detector(np.stack(loaded))
        threshold = model.calibrate().normal_scores.threshold(0.05)
        found = [score(image) for image in images]
        scores = np.array([one["score"] for one in found])
        # of the untrained one, whose scores are in the hundreds, features round to other levels
        rtol = 1e-3 if model is coloured else 1e-5
        np.testing.assert_allclose(scores, expected.score, rtol=rtol, atol=1e-3)
        called = [bool(one["is_anomaly"]) for one in found]
        assert called == list(expected.score > threshold)
        maps = np.stack([one["anomaly_map"] for one in found])
        np.testing.assert_allclose(maps, expected.anomaly_map, rtol=10 * rtol, atol=1e-3)
        assert found[0]["threshold"] == pytest.approx(threshold)
        with pytest.raises(Exception, match="(?i)indices"):
            score(np.zeros((16, 16, 5), np.uint8))


@pytest.mark.unit
def test_a_saved_model_holds_what_scores_once(trained, tmp_path):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    exported(trained, "saved_model", tmp_path)
    [path] = tmp_path.glob("*/saved_model.pb")
    [graph] = SavedModel.FromString(path.read_bytes()).meta_graphs
    sizes = sorted(function.ByteSize() for function in graph.graph_def.library.function)
    assert sizes[-1] > 10 * sizes[-2]  # its banks are in the one that scores


@pytest.mark.unit
@pytest.mark.slow
def test_lite_file_scores_resized_images_as_the_tool_by_built_in_operations(
    coloured, tmp_path, monkeypatch, capsys
):
    import tensorflow as tf

    ExportPlan("tflite", tmp_path / "it.tflite", Threshold()).execute(coloured)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "it.tflite"}
    lite = tf.lite.Interpreter(str(tmp_path / "it.tflite"))
    assert not {op["op_name"] for op in lite._get_ops_details() if "Flex" in op["op_name"]}
    score, view = lite.get_signature_runner(), coloured.config.view
    assert list(score.get_input_details()["image"]["shape"]) == [1, *view]
    images = np.stack([*coloured.images.held_out[:3], *(image_of(view, i) for i in range(3))])
    found, expected = (
        [score(image=image[None]) for image in images],
        coloured.anomaly_detector(images),
    )
    # untrained as it is, its scores are in the hundreds
    np.testing.assert_allclose(
        [one["score"] for one in found], expected.score, rtol=1e-4, atol=1e-3
    )
    assert [bool(one["is_anomaly"]) for one in found] == list(expected.is_anomaly)
    maps = [one["anomaly_map"] for one in found]
    np.testing.assert_allclose(maps, expected.anomaly_map, rtol=1e-2, atol=1e-3)
    assert found[0]["threshold"] == pytest.approx(coloured.threshold())
    path = saved(tmp_path / "x.png", image_of((100, 90, 3)))
    expected = coloured.anomaly_detector([path])
    text = (ROOT / "docs" / "export-and-page.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "litert" in b)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", path.name])
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", tf.lite)
    capsys.readouterr()
    exec(block.replace("parts.tflite", "it.tflite"), {})
    name, score, called = capsys.readouterr().out.split()
    assert name == "x.png" and float(score) == pytest.approx(expected.score[0], rel=1e-3)
    assert called == ("anomalous" if expected.is_anomaly[0] else "normal")


@needs_onnx
@pytest.mark.unit
@pytest.mark.slow
def test_onnx_computes_in_float32_and_branches_nowhere(coloured, tmp_path):
    import onnx

    exported(coloured, "onnx", tmp_path)
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "it.onnx")).graph
    assert not {node.op_type for node in graph.node} & {"If", "Loop", "Scan", "Einsum"}
    values = (*graph.value_info, *graph.input, *graph.output)
    kinds = {value.type.tensor_type.elem_type for value in values}
    kinds |= {constant.data_type for constant in graph.initializer}
    tensor = onnx.TensorProto
    assert kinds == {tensor.FLOAT, tensor.INT32, tensor.INT64, tensor.BOOL, tensor.UINT8}


@pytest.mark.unit
def test_image_smaller_than_the_crop_is_refused():
    import tensorflow as tf

    from anogan.deploy.inference_graph import read_as_float

    config = Config(height=16, width=16, crop_height=20, crop_width=20)
    for side in (19, 18, 5):
        with pytest.raises(tf.errors.InvalidArgumentError, match="indices"):
            read_as_float(tf.zeros((side, 30, 3), tf.uint8), config)


@pytest.mark.unit
@pytest.mark.slow
def test_threshold_is_inside_and_a_new_export_replaces_the_last(trained, queries, tmp_path):
    for threshold, called in ((1e6, False), (-1e6, True)):
        found = exported(trained, "saved_model", tmp_path, Threshold(threshold))(queries[0][-1])
        assert found["threshold"] == threshold and found["is_anomaly"] == called
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "it_saved_model"}


@needs_onnx
@pytest.mark.cli
@pytest.mark.slow
def test_manuals_consumer_needs_no_tensorflow(trained_folder, queries, tmp_path, capsys):
    arguments = [f"--checkpoint_dir={trained_folder.parent}", "--dataset=zeros", "--export=onnx"]
    assert main.main([*arguments, f"--export_dir={tmp_path}", "--precision=float32"]) == 0
    assert str(tmp_path / "zeros.onnx") in capsys.readouterr().out
    text = (ROOT / "docs" / "export-and-page.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "onnxruntime" in b)
    assert len(block.strip().splitlines()) <= 11
    program = tmp_path / "consumer.py"
    check = 'assert not {"tensorflow", "keras", "anogan"} & sys.modules.keys()\n'
    program.write_text(block.replace("parts.onnx", "zeros.onnx") + check)
    paths = [saved(tmp_path / f"{i}.png", queries[0][i]) for i in (0, -1)]
    command = [sys.executable, program, *(path.name for path in paths)]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [line[0] for line in lines] == ["0.png", "-1.png"] and lines[1][2] == "anomalous"


@pytest.mark.cli
def test_export_refuses_what_it_cannot_make_in_one_line(tmp_path, monkeypatch, capsys):
    default, classic = Config(), preset("classic")
    with pytest.raises(UserError, match="no encoder"):
        export.prepare("saved_model", classic, tmp_path / "run", None)
    (tmp_path / "run_saved_model").mkdir()
    with pytest.raises(UserError, match="was not written by this tool"):
        export.prepare("saved_model", default, Path("run"), str(tmp_path))
    record(tmp_path, "run_saved_model", "run.onnx", "other_saved_model")
    assert export.prepare("saved_model", default, Path("run"), str(tmp_path))
    (tmp_path / "other_saved_model").symlink_to(tmp_path / "run_saved_model")
    with pytest.raises(UserError, match="was not written by this tool"):  # but somebody's link
        export.prepare("saved_model", default, Path("other"), str(tmp_path))
    (tmp_path / "run.onnx").mkdir()
    monkeypatch.setattr(export, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="was not written by this tool"):
        export.prepare("onnx", default, Path("run"), str(tmp_path))
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install -r requirements-export.txt"):
        export.prepare("onnx", default, tmp_path / "run", None)
    for flags, told in (
        (["--export=onnx", "--search=gradient"], "leave --search gradient out"),
        (["--export=onnx", "--anomaly_test", "--threshold_from=f1"], "give --threshold"),
        (["--export_dir=x"], "leave it out, or add --export"),
    ):
        with pytest.raises(SystemExit):
            main.main(flags)
        assert told in capsys.readouterr().err


@pytest.mark.unit
def test_export_without_threshold_says_so(coloured, tmp_path, monkeypatch):
    few = dataclasses.replace(coloured.keep_calibration(), tail=None)
    monkeypatch.setattr(coloured, "keep_calibration", lambda: few)
    with pytest.raises(UserError, match="too few held-out normal images.*give --threshold"):
        ExportPlan("saved_model", tmp_path / "it", Threshold()).execute(coloured)
    assert not list(tmp_path.iterdir())


@pytest.mark.unit
@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_score_that_is_not_a_number_is_anomalous(coloured):
    from anogan.deploy.inference_graph import InferenceGraph

    known = coloured.keep_calibration()
    heaviest = max(known.weights, key=lambda name: abs(known.weights[name]))
    broken = dataclasses.replace(known, means=known.means | {heaviest: float("nan")})
    graph = InferenceGraph(coloured.config, coloured.detector, broken, 1.0)
    assert graph.score(np.zeros((9, 9, 1), np.uint8))["is_anomaly"]


@pytest.mark.unit
def test_a_model_of_other_values_than_8_bits_says_how_to_scale_for_its_export(tmp_path, caplog):
    export.prepare("tflite", preset("default"), tmp_path, None)
    assert not caplog.text
    deep = preset("default", min_value=-1000.0, max_value=3000.0)
    export.prepare("tflite", deep, tmp_path, None)
    assert (
        "takes 8 bits a channel, so scale yours to these, -1000 to 0 and 3000 to 255" in caplog.text
    )

"""Public data sets as they are unpacked, small, by the README's commands alone.

Their layouts are those that anomalib's readers of them expect, and for DAGM 2007 its own README.
"""

import numpy as np
import pytest
from PIL import Image

from anogan.cli import score, train
from anogan.cli.parser import parse
from anogan.errors import UserError

pytestmark = pytest.mark.unit


@pytest.fixture
def put(digits, tmp_path, monkeypatch):
    """A function that saves the next digit, or a mask, as a file of a data set in `data`."""
    images, labels = digits
    normal, odd = iter(images[labels == 0]), iter(images[labels == 3])
    square = np.zeros((32, 32), np.uint8)
    square[8:20, 10:22] = 255

    def saved(kind, *names):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            digit = square if kind == "mask" else next(normal if kind == "normal" else odd)
            Image.fromarray(np.resize(digit, digit.shape[:2])).save(path)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_data").mkdir()
    return saved


def trained_on(dataset):
    plan = train.prepare(parse(["--dataset", dataset, "--train", "--features", "none"]))
    return plan, plan.images.names


def scored(dataset, plan, *flags):
    return score.prepare(parse(["--dataset", dataset, "--anomaly_test", *flags]), plan, None)


def test_mvtec_ad_2_is_trained_on_train_and_measured_on_its_public_test(put):
    put("normal", *(f"vial/train/good/{i:03d}_regular.png" for i in range(8)))
    put("normal", *(f"vial/validation/good/{i:03d}_regular.png" for i in range(3)))
    put("normal", *(f"vial/test_public/good/{i:03d}_regular.png" for i in range(4)))
    put("odd", *(f"vial/test_public/bad/{i:03d}_regular.png" for i in range(5)))
    masks = [f"vial/test_public/ground_truth/bad/{i:03d}_regular_mask.png" for i in range(5)]
    put("mask", *masks)
    put("odd", *(f"vial/test_private{more}/{i}.png" for more in ("", "_mixed") for i in range(2)))
    plan, names = trained_on("vial")
    assert str(plan.source) == "data/vial/train/good" and len(names) == 8
    for flags in ((), ("--test_dir", "data/vial/test_public"), ("--test_dir", "data/vial")):
        found = scored("vial", plan, *flags)
        assert np.bincount(found.images.labels).tolist() == [4, 5]
        assert len(found.masks.paths) == 5
    private = scored("vial", plan, "--test_dir", "data/vial/test_private")
    assert len(private.images) == 2 and private.images.labels is None
    with pytest.raises(UserError, match=r"--dataset \S+/vial$"):
        trained_on("../data")


def test_btad_has_ok_and_ko_and_masks_of_another_file_type(put):
    put("normal", *(f"btad/01/train/ok/{i:04d}.bmp" for i in range(8)))
    put("normal", *(f"btad/01/test/ok/{i:04d}.bmp" for i in range(4)))
    put("odd", *(f"btad/01/test/ko/{i:04d}.bmp" for i in range(5)))
    put("mask", *(f"btad/01/ground_truth/ko/{i:04d}.png" for i in range(5)))
    plan, names = trained_on("btad/01")
    assert str(plan.source) == "data/btad/01/train/ok" and len(names) == 8
    found = scored("btad/01", plan)
    assert np.bincount(found.images.labels).tolist() == [4, 5] and len(found.masks.paths) == 5
    with pytest.raises(UserError, match="--dataset btad/01$"):
        trained_on("btad")


def test_real_iad_has_ok_and_ng_with_masks_beside_some_views(put):
    top = "realiad_256/audiojack"
    views = [(i, view) for i in range(2) for view in range(1, 6)]
    put("normal", *(f"{top}/OK/S{i:04d}/audiojack_{i:04d}_OK_C{view}.jpg" for i, view in views))
    odd = [f"{top}/NG/HS/S{i:04d}/audiojack_{i:04d}_NG_HS_C{view}" for i, view in views]
    put("odd", *(f"{name}.jpg" for name in odd))
    put("mask", *(f"{name}_mask.png" for name in odd[:8]))
    with pytest.raises(UserError, match=f"--dataset {top}/OK$"):
        trained_on(top)
    plan, names = trained_on(f"{top}/OK")
    assert len(names) == 10
    found = scored(f"{top}/OK", plan, "--test_dir", f"data/{top}")
    assert np.bincount(found.images.labels).tolist() == [10, 10]
    assert "8 files beside the images are masks" in " ".join(found.notes)


def test_dagm_with_its_masks_in_a_folder_below_is_never_trained_on_whole(put):
    for part in ("Train", "Test"):
        put("normal", *(f"Class1/{part}/{i:04d}.PNG" for i in range(8)))
        put("odd", *(f"Class1/{part}/{i:04d}.PNG" for i in range(8, 12)))
        put("mask", *(f"Class1/{part}/Label/{i:04d}_label.PNG" for i in range(8, 12)))
    for dataset in ("Class1/Train", "Class1"):
        with pytest.raises(UserError, match="put the normal images into a folder of their own"):
            trained_on(dataset)
    put("normal", *(f"mine/{i}.png" for i in range(4)))
    plan, _ = trained_on("mine")
    found = scored("mine", plan, "--test_dir", "data/Class1/Test")
    assert len(found.images) == 12 and len(found.masks.paths) == 4

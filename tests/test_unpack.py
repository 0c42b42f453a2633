"""No archive, however made, writes outside its folder, fills the disk or is taken for whole."""

import errno
import gzip
import io
import os
import random
import tarfile
import zipfile

import lmdb
import pytest
from misbehaving import files_under, make_tgz, make_zip

from anogan.datasets.fetch import DownloadError
from anogan.datasets.unpack import unpack, unpack_lmdb

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("make", [make_zip, make_tgz])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:/evil"])
def test_member_outside_the_folder_is_refused(tmp_path, make, name):
    archive = make(tmp_path / "a", {"good.txt": b"good", name: b"evil"})
    with pytest.raises(DownloadError, match="not safe"):
        unpack(archive, tmp_path / "in" / "out")
    assert files_under(tmp_path) == ["a"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    for name in ("a.zip", "a.tar"):
        with pytest.raises(DownloadError, match="not safe"):
            unpack(tmp_path / name, tmp_path / "out")
    assert files_under(tmp_path) == ["a.tar", "a.zip"]


@pytest.mark.parametrize("target", ["../evil", "HERE/evil", "a/../../evil", "a\\..\\..\\evil"])
def test_target_outside_the_folder_is_refused_whoever_names_it(tmp_path, target):
    archive = make_zip(tmp_path / "a.zip", {"good.txt": b"good"})
    with pytest.raises(DownloadError, match="not safe"):
        unpack(archive, tmp_path / "in/out", lambda path: target.replace("HERE", str(tmp_path)))
    assert files_under(tmp_path) == ["a.zip"]


def one_line(archive, folder, **options):
    with pytest.raises(DownloadError) as raised:
        unpack(archive, folder, **options)
    message = str(raised.value)
    assert str(archive) in message and "\n" not in message and not folder.exists()
    return message


@pytest.mark.parametrize("make", [make_zip, make_tgz])
@pytest.mark.parametrize("content", [{"a": bytes(10**6)}, {str(i): b"" for i in range(100)}])
def test_archive_that_unpacks_to_more_than_the_data_set_is_refused(tmp_path, make, content):
    archive = make(tmp_path / "a", content)
    assert archive.stat().st_size < 20_000
    assert "far larger" in one_line(archive, tmp_path / "out", limit=300_000)
    assert files_under(tmp_path) == ["a"]
    assert unpack(archive, tmp_path / "out", limit=1_100_000) == len(content)


def blocks(path):
    """Of five files in a tar: the offset of each header and of the end."""
    with tarfile.open(path) as opened:
        return [member.offset for member in opened] + [opened.offset]


def zeros_up_to_the_end(data, where):
    return data[: where[4]] + bytes(2**21)  # of a file whose room was reserved, and no more


def damage_header(data, where):
    return data[: where[4]] + b"?" + data[where[4] + 1 :]


def cut_at_a_header(data, where):
    return data[: where[4]]


def cut_in_a_header(data, where):
    return data[: where[4] + 99]


def cut_after_one_block_of_the_end(data, where):
    return data[: where[5] + 512]


def empty_a_header(data, where):
    return data[: where[4]] + bytes(512) + data[where[4] + 512 :]


@pytest.mark.parametrize("is_zipped", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [damage_header, cut_at_a_header, cut_in_a_header]
    + [cut_after_one_block_of_the_end, empty_a_header, zeros_up_to_the_end],
)
def test_damaged_or_cut_tar_is_not_taken_for_whole(tmp_path, spoil, is_zipped):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as opened:
        for i in range(5):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = 1000
            opened.addfile(info, io.BytesIO(bytes([i]) * 1000))
    data = spoil(archive.read_bytes(), blocks(archive))
    archive.write_bytes(gzip.compress(data) if is_zipped else data)
    assert "damaged" in one_line(archive, tmp_path / "out")
    assert files_under(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("lacking", [1, 8, 100])
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_cut_compressed_tar_is_not_taken_for_whole(tmp_path, kind, lacking):
    archive = tmp_path / "a"
    with tarfile.open(archive, f"w:{kind}") as opened:
        opened.add(__file__, "a")
    assert unpack(archive, tmp_path / "whole") == 1
    archive.write_bytes(archive.read_bytes()[:-lacking])
    assert "damaged" in one_line(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_decompressors_error_is_one_line(tmp_path, method, damage):
    archive = tmp_path / "a.zip"
    for start in range(45, 100, 3):  # past lzma's version, which nothing reads
        with zipfile.ZipFile(archive, "w", method) as opened:
            opened.writestr("a.jpg", random.Random(2).randbytes(300))
        data = archive.read_bytes()
        bad = data[:start] + (b"" if damage == "cut" else b"\xff\xff") + data[start + 2 :]
        archive.write_bytes(bad)
        one_line(archive, tmp_path / "out")


def test_encrypted_and_unknown_zips_are_one_line(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a.jpg": b"abc"})
    data = archive.read_bytes()
    for change in ({6: 1}, {8: 77}):  # in the local header; two bytes later in the other one
        changed = bytearray(data)
        for place, value in change.items():
            changed[place] = changed[data.index(b"PK\x01\x02") + place + 2] = value
        archive.write_bytes(changed)
        assert "encrypted" in one_line(archive, tmp_path / "out")


@pytest.mark.parametrize("change", [b"/", b"f"])  # a folder; no .jpg and so not wanted
def test_member_with_two_names_is_not_left_out(tmp_path, change):
    archive = make_zip(tmp_path / "a.zip", {"1.jpg": b"1", "2.jpg": b"2"})
    data = archive.read_bytes()
    place = data.rindex(b"2.jpg") + 4
    archive.write_bytes(data[:place] + change + data[place + 1 :])
    place_images = {"place": lambda path: path if path.suffix == ".jpg" else None}
    assert "damaged" in one_line(archive, tmp_path / "out", **place_images)


def test_table_of_contents_that_swallows_entries_is_damaged(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {f"{i}.jpg": b"" for i in range(5)})
    with zipfile.ZipFile(archive) as opened:
        start = opened.start_dir
    data = bytearray(archive.read_bytes())
    data[start + 32] = 46 + 5  # the length of the first one's comment: the second is in it
    archive.write_bytes(data)
    assert "files are missing" in one_line(archive, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["x" * 300], ["d/" * 1500 + "a"]]
)
def test_names_that_cannot_be_files_are_the_archives_fault(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    assert "damaged" in one_line(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("size", [-1, 1 << 40])
def test_long_name_does_not_take_the_memory(tmp_path, size):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    assert "damaged" in one_line(tmp_path / "a.tar", tmp_path / "out")


def test_unreadable_archive_is_the_disks_fault(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {"a": b"x"})

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(OSError) as raised:
        unpack(archive, tmp_path / "out")
    assert raised.value.errno == errno.EIO and raised.value.filename == str(archive)


def make_lmdb(folder, count=300, size=3000):
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        for i in range(count):
            txn.put(b"%05d" % i, b"\xff\xd8\xff" + bytes([i % 256]) * size)
    return folder / "data.mdb"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_cut_lmdb_ends_only_the_process_that_reads_it(tmp_path, kept):
    database = make_lmdb(tmp_path / "a")
    os.truncate(database, int(database.stat().st_size * kept))
    with pytest.raises(DownloadError, match="no usable LMDB"):
        unpack_lmdb(tmp_path / "a", tmp_path / "out")
    assert files_under(tmp_path) == []


def test_lmdb_beyond_the_known_size_is_refused(tmp_path):
    make_lmdb(tmp_path / "a")
    with pytest.raises(DownloadError, match="more than the data set has"):
        unpack_lmdb(tmp_path / "a", tmp_path / "out", limit=10**6)
    assert files_under(tmp_path) == []


def test_lmdb_with_too_few_values_is_not_taken_for_whole(tmp_path):
    database = make_lmdb(tmp_path / "a")
    data = database.read_bytes()
    count = (300).to_bytes(8, "little")
    assert data.count(count)
    database.write_bytes(data.replace(count, (301).to_bytes(8, "little")))
    with pytest.raises(DownloadError, match="300 of its 301 values"):
        unpack_lmdb(tmp_path / "a", tmp_path / "out")

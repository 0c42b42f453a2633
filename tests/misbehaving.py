"""A local HTTP server that misbehaves in every way that real ones do, and files for it to serve."""

import contextlib
import hashlib
import http.server
import io
import itertools
import random
import resource
import socket
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from anogan.datasets.industrial import VISA_HEADER, VISA_SPLIT

CONTENT = random.Random(1).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `script[path]` lists what goes wrong in the requests to come.

    A fault is a status, a name that do_GET knows, or a function that answers in its place.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[int | str | Callable[[Handler], None]]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self, path):
        return [wanted for asked, wanted in self.requests if asked == path]

    def handle_error(self, *_):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.requests.append((self.path, wanted))
        faults = server.script.get(self.path)
        fault = faults.pop(0) if faults else "none"
        if fault == "drop":
            return None
        if callable(fault):
            return fault(self)
        data = server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        if isinstance(fault, int):
            return self.send_error(fault)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if fault in ("ignores range", "truncate whole"):
            start = wanted = 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            return self.end_headers()
        body = data[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        is_page = fault == "html" or data.startswith(b"<p>")
        self.send_header("Content-Type", "text/html" if is_page else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in ("reset", "truncate", "truncate whole", "stall"):
            self.wfile.write(body[: len(body) // 2])
            time.sleep(60 if fault == "stall" else 0.1)
            if fault == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            return None
        self.wfile.write(body)


def answers(body=b"", status="200 OK", pause=0.0, endless=False, repeat=1, **headers):
    """A fault: this answer, the body piece by piece with pauses, without end or `repeat` times."""

    def fault(handler):
        head = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
        with contextlib.suppress(OSError):  # the client has gone
            handler.wfile.write("\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1"))
            for _ in itertools.count() if endless else range(repeat):
                handler.wfile.write(body)
                time.sleep(pause)

    return fault


@contextlib.contextmanager
def largest_file(limit):
    """A full disk for whatever writes a file past `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tgz(path, files):
    return make_tar(path, files, "gz")


def make_tar(path, files, compression=""):
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def encode(kind, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def files_under(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def drawn(kind, marked=True, size=(32, 32)):
    """A label: black, with a white square if `marked`."""
    mask = np.zeros(size, np.uint8)
    mask[5:9, 5:9] = 255 * marked
    file = io.BytesIO()
    Image.fromarray(mask).save(file, kind)
    return file.getvalue()


def category_files(name, kind="broken_large"):
    """As in an archive of MVTec AD: {path: content}."""
    return {
        f"{name}/license.txt": b"CC",
        **{f"{name}/train/good/{i:03d}.png": encode("PNG", i) for i in range(3)},
        f"{name}/test/good/000.png": encode("PNG", 4),
        f"{name}/test/{kind}/000.png": encode("PNG", 5),
        f"{name}/ground_truth/{kind}/000_mask.png": drawn("PNG"),
    }


COMMUTATORS = [f"kos{i:02d}" for i in range(1, 7)]


def kolektor_files():
    """As in KolektorSDD: two images of each commutator, the second cracked."""
    files = {}
    for i, name in enumerate(COMMUTATORS):
        for part in range(2):
            files[f"{name}/Part{part}.jpg"] = encode("JPEG", 2 * i + part)
            files[f"{name}/Part{part}_label.bmp"] = drawn("BMP", part == 1)
    return files


VISA_LINES = [
    "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
    "candle,train,normal,candle/Data/Images/Normal/0001.JPG,",
    "candle,test,normal,candle/Data/Images/Normal/0002.JPG,",
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
]


def visa_files(lines=VISA_LINES, lacking=()):
    """As in VisA: the files of a table with `lines`, but for those in `lacking`."""
    files = {
        "candle/image_anno.csv": b"x",
        "candle/Data/Images/Normal/0003.JPG": b"not in the split",
    }
    for i, line in enumerate(VISA_LINES):
        image, mask = line.split(",")[3:]
        files[image] = encode("JPEG", i)
        if mask:
            files[mask] = drawn("PNG")
    files[VISA_SPLIT] = "\n".join([VISA_HEADER, *lines, ""]).encode()
    return {name: content for name, content in files.items() if name not in lacking}

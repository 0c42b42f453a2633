"""Downloads from servers that misbehave in all ways at once, and SIGKILL at any moment of one."""

import gzip
import hashlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest
from misbehaving import (
    CONTENT,
    MD5,
    answers,
    category_files,
    files_under,
    kolektor_files,
    make_tar,
    make_zip,
    visa_files,
)

import download
from anogan.datasets import fetch, industrial, sources
from campaign.tools import record, size

pytestmark = pytest.mark.slow

SEED = 16
ROOT = Path(download.__file__).parent
SLOWEST = 15  # seconds that a download with faults may take with the time-outs below
X = b"x" * 1000
CHUNK = b"3e8\r\n" + X + b"\r\n"
CHUNKED = {"Transfer_Encoding": "chunked"}
NONSENSE = ["x", "-5", "1e9", "3_000", "+9", "9" * 40, "", "5, 6", "\xb2", "0x10", "0"]
HOSTS = ["http://[::1/a", "http://a..b/a", f"http://{'a' * 64}/a", "http://é..b/", "file:///etc"]
HOSTS += ["http://127.0.0.1:99999/a", "http://127.0.0.1:x/a", "ftp://127.0.0.1/a", "//", "http://"]


def reset_in_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")


def wrong_offset(handler):
    where = "bytes 7-299999/300000"
    answers(CONTENT[7:], "206 Some", Content_Length=len(CONTENT) - 7, Content_Range=where)(handler)


def drip_headers(handler):
    for i in range(99):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if not i else b"A: b\r\n")
        handler.wfile.flush()
        time.sleep(0.05)


STATUSES = ["204 No", "304 No", "300 Many", "206 Some", "999"]
REASONS = ["", "\x1b[2J", "a\x0bb", "x" * 60_000]
FAULTS = {
    **{name: name for name in ("drop", "reset", "truncate", "truncate whole", "html")},
    **{name: name for name in ("ignores range", "none")},
    **{str(code): code for code in (400, 401, 403, 404, 408, 410, 416, 418, 429, 500, 502, 503)},
    **{f"status {s}": answers(status=s) for s in STATUSES},
    **{f"reason {r!r}": answers(status=f"404 {r}") for r in REASONS},
    **{f"length {n!r}": answers(X, Content_Length=n) for n in NONSENSE},
    **{f"redirect {u!r}": answers(status="302 Found", Location=u) for u in HOSTS},
    "redirect to itself": answers(status="302 Found", Location="/a.bin"),
    "redirect without end": answers(X, "302 Found", endless=True, Location="/good"),
    "redirect nowhere": answers(status="302 Found"),
    "no HTTP": lambda handler: handler.wfile.write(b"SSH-2.0\r\n"),
    "no status": answers(status=""),
    "noise": lambda handler: handler.wfile.write(random.Random(1).randbytes(5000)),
    "many headers": answers(X, **{f"H{i}": "x" for i in range(300)}),
    "long header": answers(X, Long="x" * 100_000),
    "half a header": reset_in_headers,
    "drip of headers": drip_headers,
    "endless": answers(X, endless=True),
    "endless chunks": answers(CHUNK, endless=True, **CHUNKED),
    "endless, announced": answers(CHUNK, endless=True, Content_Length=300_000, **CHUNKED),
    "drip": answers(b"x", endless=True, pause=0.02),
    "announced drip": answers(b"x", endless=True, pause=0.02, Content_Length=300_000),
    "drip of chunks": answers(b"1\r\nx\r\n", endless=True, pause=0.02, **CHUNKED),
    "silence": answers(pause=3, Content_Length=300_000),
    "huge": answers(X, Content_Length=10**13),
    "short": answers(X, Content_Length=1000),
    "no length": answers(CONTENT[:5000]),
    "bad chunks": answers(b"zz\r\nabc\r\n", **CHUNKED),
    "negative chunk": answers(b"-5\r\nabc", **CHUNKED),
    "cut chunk": answers(b"ffffffff\r\nabc", **CHUNKED),
    "cut chunks": answers(CHUNK, **CHUNKED),
    "false encoding": answers(CONTENT, Content_Encoding="gzip", Content_Length=len(CONTENT)),
    "wrong offset": wrong_offset,
    "wrong content": answers(b"y" * len(CONTENT), Content_Length=len(CONTENT)),
}  # fmt: skip


def fault_of(name, rng):
    """One fault, several in a row or one for ever."""
    if name:
        return [name] * rng.choice([1, 3, 40]), name
    names = rng.choices(list(FAULTS), k=rng.choice([2, 3, 6]))
    return names * rng.choice([1, 1, 10]), " + ".join(names)


def test_faults(server, tmp_path, monkeypatch, capfd):
    rng = random.Random(SEED)
    found, singles = [], list(FAULTS)
    runs = size(160, 0.3)
    order = rng.sample(singles, len(singles)) + [""] * 160
    monkeypatch.setattr(fetch, "TIMEOUT", (1, 1))
    monkeypatch.setattr(fetch, "ANSWER_DEADLINE", 2)
    monkeypatch.setattr(fetch, "SPEED_WINDOW", 1)
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(f"thread: {args}"))
    server.files |= {"/a.bin": CONTENT, "/good": CONTENT}
    bad, good, path = f"{server.url}/a.bin", f"{server.url}/good", tmp_path / "a.bin"
    for i in range(runs):
        names, title = fault_of(order[i], rng)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if rng.random() < 0.4:
            part = rng.choice([CONTENT[:1000], CONTENT, CONTENT + b"x", b"y" * 5000])
            path.with_name("a.bin.part").write_bytes(part)
        server.script["/a.bin"] = [FAULTS[name] for name in names]
        urls = [bad, good] if rng.random() < 0.5 else [bad]
        start = time.monotonic()
        try:
            fetch.fetch(urls, path, MD5, len(CONTENT) + rng.choice([0, 10**6]))
        except fetch.DownloadError as error:
            if len(urls) > 1:
                found.append(f"{i} {title}: the good mirror did not help: {error}")
            if path.exists() or len(str(error)) > 400:
                found.append(f"{i} {title}: left a file or a long line: {error}")
        except BaseException as error:
            found.append(f"{i} {title}: {type(error).__name__}: {error}")
        if time.monotonic() - start > SLOWEST:
            found.append(f"{i} {title}: took {time.monotonic() - start:.0f} s")
        server.script.clear()
        try:
            fetch.fetch(bad, path, MD5, len(CONTENT))
            if path.read_bytes() != CONTENT or files_under(tmp_path) != ["a.bin"]:
                found.append(f"{i} {title}: not the file, or more than that")
        except BaseException as error:
            found.append(f"{i} {title}: not even afterwards: {type(error).__name__}: {error}")
        out, err = capfd.readouterr()
        if out or err:
            found.append(f"{i} {title}: printed {out}{err}")
    record("download faults", runs, len(found), SEED)
    assert not found


KILLABLE = """if 1:
    import json, os, signal, sys
    import download
    from anogan.datasets import fetch, industrial, sources, unpack
    settings = json.loads(sys.argv[1])
    for name, value in settings["constants"].items():
        setattr(sources if hasattr(sources, name) else industrial, name, value)
    unpack.SHARD = 10
    left = settings["steps"]
    def count(event, arguments):
        global left
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "subprocess.Popen")
        if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    code = download.main(settings["command"])
    print("steps", settings["steps"] - left)
    sys.exit(code)"""


def slow_file(data):
    """An answer that takes a while, from wherever it was asked to begin."""

    def fault(handler):
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        if start >= len(data):
            where = f"bytes */{len(data)}"
            return answers(status="416 No", Content_Range=where, Content_Length=0)(handler)
        where = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        status = "206 Some" if start else "200 OK"
        first = data[start : start + 5000]
        answers(first, status, Content_Length=len(data) - start, **where)(handler)
        for place in range(start + 5000, len(data), 5000):
            time.sleep(0.005)
            handler.wfile.write(data[place : place + 5000])
        return None

    return fault


@pytest.fixture
def kill_settings(server, tmp_path):
    """{data set: (command, constants)} for sets that the server has."""
    rng = random.Random(SEED)
    digits = {name: rng.randbytes(40_000) for name in sources.MNIST_MD5}
    faces = make_zip(tmp_path / "f", {f"img/{i}.jpg": rng.randbytes(9000) for i in range(20)})
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as env, env.begin(write=True) as txn:
        for i in range(40):
            txn.put(b"%04d" % i, b"\xff\xd8\xff" + rng.randbytes(4000))
    rooms = make_zip(tmp_path / "r", {"db/data.mdb": (tmp_path / "db/data.mdb").read_bytes()})
    served = {f"/m/{name}.gz": gzip.compress(data) for name, data in digits.items()}
    served |= {"/faces": faces.read_bytes(), "/bedroom_val": rooms.read_bytes()}
    bottle = make_tar(tmp_path / "b", category_files("bottle"), "xz").read_bytes()
    served[f"/{industrial.MVTEC_PLACES['bottle']}/bottle.tar.xz"] = bottle
    served["/kolektor"] = make_zip(tmp_path / "k", kolektor_files()).read_bytes()
    served["/visa.tar"] = make_tar(tmp_path / "v", visa_files()).read_bytes()
    for path, data in served.items():
        server.files[path] = data
        server.script[path] = [slow_file(data)] * 10**6
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in digits.items()}
    constants = {
        "MNIST_MIRRORS": [f"{server.url}/m/"],
        "MNIST_MD5": md5,
        "CELEBA_URL": f"{server.url}/faces",
        "CELEBA_MD5": hashlib.md5(served["/faces"]).hexdigest(),
        "LSUN_URL": server.url + "/{}",
        "MVTEC_URL": server.url + "/{}/{}.tar.xz",
        "MVTEC_SHA256": {"bottle": hashlib.sha256(bottle).hexdigest()},
        "KOLEKTOR_URLS": [f"{server.url}/kolektor"],
        "KOLEKTOR_SHA256": hashlib.sha256(served["/kolektor"]).hexdigest(),
        "VISA_URL": f"{server.url}/visa.tar",
        "VISA_SHA256": hashlib.sha256(served["/visa.tar"]).hexdigest(),
    }
    return ["mnist", "celebA", "lsun", "mvtec", "kolektor", "visa"], constants


def run(name, constants, folder, steps, kill_after=None):
    """(exit code, output) of a download that is killed at a step, or after seconds."""
    settings = {"constants": constants, "steps": steps}
    settings["command"] = [name, "--data_dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLABLE, json.dumps(settings)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=kill_after or 60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return process.returncode, out + err


def content(folder):
    return {name: (folder / name).read_bytes() for name in files_under(folder)}


def test_kills(kill_settings, tmp_path):
    rng = random.Random(SEED)
    names, constants = kill_settings
    found, runs, killed = [], size(50, 0.3), 0
    whole, steps, seconds = {}, {}, {}
    for name in names:
        start = time.monotonic()
        code, text = run(name, constants, tmp_path / "whole", 0)
        seconds[name] = time.monotonic() - start
        assert code == 0, text
        steps[name] = int(text.split("steps")[1])
        whole[name] = content(tmp_path / "whole")
        shutil.rmtree(tmp_path / "whole")
    print({name: (steps[name], round(seconds[name], 1)) for name in names})
    every_step = [(name, step) for name in names for step in range(1, steps[name] + 1)]
    order = itertools.cycle(rng.sample(every_step, len(every_step)))
    for i in range(runs):
        name, step = next(order)
        folder, title = tmp_path / "data", []
        moments = [(step, None), (0, rng.uniform(0.1, 1) * seconds[name])]
        for step, after in rng.sample(moments, rng.choice([1, 1, 2])):
            title.append(f"step {step}" if step else f"{after:.2f} s")
            code, text = run(name, constants, folder, step, after)
            if code not in (0, -signal.SIGKILL):
                found.append(f"{i} {name} {title}: {text}")
            killed += code == -signal.SIGKILL
        code, text = run(name, constants, folder, 0)
        if code or content(folder) != whole[name]:
            found.append(f"{i} {name} {title}: {code} {files_under(folder)} {text}")
        left = [p for p in folder.rglob("*") if p.is_dir() and not any(p.iterdir())]
        if left or [p for p in folder.iterdir() if p.name.startswith(".")]:
            found.append(f"{i} {name} {title}: left folders {left}")
        shutil.rmtree(folder)
    print(f"{killed} kills")
    record("SIGKILL in downloads", runs, len(found), SEED)
    assert not found

"""A served model: what it answers over HTTP, and the page in a real browser."""

import asyncio
import base64
import contextlib
import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

import anogan
import main
from anogan.cli.parser import parse
from anogan.config import Config
from anogan.errors import UserError
from anogan.method.threshold import Threshold

ROOT = Path(__file__).parent.parent
if not all(map(find_spec, ("fastapi", "uvicorn"))):
    pytest.skip("NOTHING IS SERVED: pip install -r requirements-serve.txt", allow_module_level=True)
import uvicorn  # noqa: E402

from anogan.deploy import serve  # noqa: E402


@pytest.fixture(scope="module")
def service(trained):
    calibration = trained.keep_calibration()

    def detect(images):
        return trained.anomaly_detector(images, batch_size=1, calibration=calibration)

    return serve.Service(trained.config, calibration, detect, Threshold())


@contextlib.contextmanager
def served(service, host, ends_within=10, allowed=()):
    """(address of a real server at a host, that server)."""
    listener = serve.listen(host, 0)
    server = uvicorn.Server(serve.settings(service, host, allowed))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    named = f"[{host}]" if ":" in host else host
    yield f"http://{named}:{listener.getsockname()[1]}", server
    server.should_exit = True
    thread.join(ends_within)
    assert not thread.is_alive()
    listener.close()


@pytest.fixture(scope="module")
def address(service):
    with served(service, "127.0.0.1") as (address, _):
        yield address


class Stub:
    """In the place of a Service: it reads what is sent, and finds nothing in it."""

    config = Config(dataset="parts")
    threshold, threshold_is = 1.0, "as it was given"

    def score(self, content):
        serve.require_image(content)
        return {"score": 0.5, "bytes": len(content)}


@pytest.fixture(scope="module")
def plain():
    with served(Stub(), "127.0.0.1") as (address, _):
        yield address


def packed(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(image).squeeze()).save(file, kind, **options)
    return file.getvalue()


def ask(address, content, **headers):
    answer = requests.post(f"{address}/score", content, headers=headers, timeout=60)
    return answer.status_code, answer.json()


def pixels_of(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.unit
def test_answer_is_what_the_tool_finds(address, trained, queries):
    expected = trained.anomaly_detector(queries[0][[0, -1]])
    threshold = trained.calibrate().normal_scores.threshold(0.05)
    for i, image in enumerate(queries[0][[0, -1]]):
        status, found = ask(address, packed(image))
        assert status == 200
        assert found["score"] == pytest.approx(expected.score[i], rel=1e-5)
        assert found["threshold"] == pytest.approx(threshold)
        assert found["is_anomaly"] == bool(expected.score[i] > threshold)
        assert 0 < found["p_value"] <= 1 and "normal images" in found["rarity"]
        np.testing.assert_array_equal(pixels_of(found["image"]), image.squeeze())
        drawn = (expected.reconstruction[i].squeeze() + 1) * 127.5
        assert np.abs(pixels_of(found["reconstruction"]) - drawn).max() <= 1
        assert pixels_of(found["map"]).shape == (16, 16, 3)


@pytest.mark.unit
def test_image_of_another_size_is_upright_and_told_in_its_own(address):
    image = np.zeros((30, 50), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    _, found = ask(address, packed(image, "JPEG", exif=exif))
    assert (found["width"], found["height"]) == (30, 50)


@pytest.mark.unit
def test_what_cannot_be_scored_is_told_why(address, monkeypatch, queries):
    good = packed(queries[0][0])
    monkeypatch.setattr(serve, "MOST_BYTES", 2000)
    monkeypatch.setattr(serve, "MOST_SLOW", 80)
    wide = bytearray(packed(np.zeros((9, 9), np.uint8), "BMP"))
    wide[18:26] = struct.pack("<ii", 30_000, 30_000)  # width and height
    for content, status, told in (
        (b"", 400, "nothing was sent"),
        (b"no image", 415, "no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no image that can be read"),
        (good[: len(good) // 2], 415, "cannot be read"),
        (b"x" * 3000, 413, "larger than"),
        ((b"x" * 1000 for _ in range(5)), 413, "larger than"),  # without a length
        (bytes(wide), 413, "30000 x 30000 pixels are more than 64 million"),
        (b"P5 9 9 99\n" + bytes(81), 413, "of this kind"),  # decoded in Python
    ):
        found = ask(address, content)
        assert found[0] == status and told in found[1]["error"], found
    assert ask(address, good, **{"Content-Type": "multipart/form-data"})[0] == 415
    assert ask(address, good)[0] == 200


HOW = 'curl --data-binary @photo.jpg -H "Content-Type: image/jpeg"'


@pytest.mark.unit
def test_forms_of_one_file_are_understood(plain, queries):
    content = packed(queries[0][0]) + b"\r\n--\r\n\n"  # what a PNG may end with
    for files, fields in (
        ({"file": ("part.png", content)}, {}),
        ({"anything": ("tëil.png", content, "image/png")}, {"note": "a", "other": "b"}),
    ):
        answer = requests.post(f"{plain}/score", files=files, data=fields, timeout=9)
        assert answer.status_code == 200, answer.text
        assert answer.json()["bytes"] == len(content)
    quoted = b'--a b\r\ncontent-disposition: form-data; name=f; filename="x"\r\n\r\n%s\r\n--a b--'
    kind = {"Content-Type": 'Multipart/Form-Data; charset=x; boundary="a b"'}
    assert ask(plain, quoted % content, **kind) == (200, {"score": 0.5, "bytes": len(content)})


@pytest.mark.unit
def test_forms_that_cannot_be_understood_are_told_how(plain, queries, monkeypatch):
    content = packed(queries[0][0])
    file = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n%s\r\n' % content
    text = b'--x\r\nContent-Disposition: form-data; name="t"\r\n\r\nt\r\n'
    kind = "multipart/form-data; boundary=x"
    for body, named, told in (
        (file + b"--x--", "multipart/form-data", "no boundary"),
        (file + b"--x--", "multipart/form-data; boundary=" + "x" * 71, "no boundary"),
        (file + b"--x--", "multipart/mixed; boundary=x", HOW),
        (file, kind, "ends before"),
        (file[:-20], kind, "ends before"),
        (b"", kind, "ends before"),
        (file * 2 + b"--x--", kind, "2 files"),
        (text + b"--x--", kind, "0 files"),
        (b"--x--", kind, "0 files"),
        (b"--x\r\n\r\n" + content + b"\r\n--x--", kind, "0 files"),
        (b"--x\r\n" + b"a" * 99_999 + b"\r\n\r\n\r\n--x--", kind, "0 files"),
        (text * 5000 + b"--x--", kind, "more than"),
        (file.replace(content, b"text") + b"--x--", kind, "no image that can be read"),
        (b"a=1&b=2", "application/x-www-form-urlencoded", HOW),
        (content.translate(None, b"\r\n\0"), "application/x-www-form-urlencoded", HOW),
        (b'{"image": "iVBORw0KGgo"}', "application/json", HOW),
        (b"iVBORw0KGgo", "text/plain", HOW),
    ):
        status, found = ask(plain, body, **{"Content-Type": named})
        assert status == 415 and told in found["error"], (named, found)
        assert HOW in found["error"] and "\n" not in found["error"]
    monkeypatch.setattr(serve, "MOST_BYTES", 2000)
    assert ask(plain, file * 20 + b"--x--", **{"Content-Type": kind})[0] == 413


@pytest.mark.unit
def test_a_form_of_lines_takes_no_more_memory_than_its_size():
    body = b"--x" + b"\r\n" * 2**20 + b"\r\n--x" * 2**18
    tracemalloc.start()
    with pytest.raises(serve.Refused, match="more than"):
        serve.image_in(body, "multipart/form-data; boundary=x")
    assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    tracemalloc.stop()


@pytest.mark.unit
def test_what_is_too_large_does_not_stay_in_memory():
    class Endless:
        headers: dict = {}

        async def stream(self):
            for _ in range(200):
                yield b"x" * 2**20

    tracemalloc.start()
    with pytest.raises(serve.Refused, match="larger than 32 MB"):
        asyncio.run(serve._body_of(Endless()))
    assert tracemalloc.get_traced_memory()[1] < 3 * serve.MOST_BYTES
    tracemalloc.stop()


@pytest.mark.unit
def test_images_are_scored_one_at_a_time(address, service, queries, monkeypatch):
    at_work, most = [], []
    score = service.score

    def slow(content):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.05)
        found = score(content)
        at_work.pop()
        return found

    monkeypatch.setattr(service, "score", slow)
    content = packed(queries[0][0])
    threads = [threading.Thread(target=ask, args=(address, content)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


@pytest.mark.unit
def test_pages_use_nothing_from_elsewhere(address):
    page = requests.get(address, timeout=9)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)
    assert requests.get(f"{address}/docs", timeout=9).status_code == 404


@pytest.mark.unit
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_pages_from_elsewhere_have_no_way_in(service, queries, host):
    content = packed(queries[0][0])
    with served(service, host) as (address, _):
        port = address.rpartition(":")[2]
        for name in ("evil.example", f"localhost.evil.example:{port}", "[", ""):
            answer = requests.get(address, headers={"Host": name}, timeout=9)
            assert answer.status_code == 400, name
            assert ask(address, content, Host=name)[0] == 400
        for origin in (
            "http://evil.example",
            "null",
            f"http://localhost:{int(port) + 1}",
            "http://[",
        ):
            status, found = ask(address, content, Origin=origin)
            assert status in (400, 403) and "score" not in found, origin
        assert ask(address, content, Origin=address)[0] == 200
        assert ask(address, content, Host=f"localhost:{port}")[0] == 200


@pytest.mark.unit
@pytest.mark.parametrize("path", ["/", "/health"])
def test_head_answers_as_get_does_without_a_body(plain, path):
    got, asked = requests.get(plain + path, timeout=9), requests.head(plain + path, timeout=9)
    assert got.status_code == asked.status_code == 200
    assert got.content and not asked.content
    for name in ("Content-Length", "Content-Type", "Content-Security-Policy", "Cache-Control"):
        assert asked.headers.get(name) == got.headers.get(name), name


@pytest.mark.unit
def test_health_answers_while_an_image_is_scored(plain, monkeypatch):
    begun, over = threading.Event(), threading.Event()

    def score(*_):
        begun.set()
        over.wait(30)
        return {}

    monkeypatch.setattr(Stub, "score", score)
    client = threading.Thread(target=ask, args=(plain, b"x"))
    client.start()
    assert begun.wait(10)
    answer = requests.get(f"{plain}/health", timeout=9)
    over.set()
    client.join(10)
    assert answer.json() == {"status": "ok", "version": anogan.__version__}
    evil = requests.get(f"{plain}/health", headers={"Host": "evil.example"}, timeout=9)
    assert evil.status_code == 400


@pytest.mark.unit
@pytest.mark.parametrize("query", ["host=0.0.0.0", "host=", "allowed=evil.example"])
def test_a_query_does_not_change_who_is_answered(plain, query):
    answer = requests.get(f"{plain}/?{query}", headers={"Host": "evil.example"}, timeout=9)
    assert answer.status_code == 400


@pytest.mark.unit
def test_hosts_that_are_allowed_are_answered_and_no_others(queries):
    content = packed(queries[0][0])
    with served(Stub(), "127.0.0.1", allowed=("Parts.example", "fd00::7")) as (address, _):
        own = address.removeprefix("http://")
        for host, origin, status in (
            ("parts.example", "https://parts.example", 200),
            ("PARTS.example:8443", "https://parts.EXAMPLE:8443", 200),
            ("parts.example", "https://parts.example:8443", 200),  # as nginx's $host has it
            ("[fd00::7]:80", "http://[fd00::7]:80", 200),
            (own, "https://parts.example", 200),  # through a forwarded port
            (own, None, 200),
            ("parts.example", None, 200),
            ("evil.example", None, 400),
            ("evil.example", "https://parts.example", 400),
            ("parts.example.evil.example", None, 400),
            ("evil.parts.example", None, 400),
            ("evil.example:parts.example", None, 400),
            ("", None, 400),
            (own, "https://evil.example", 403),
            ("parts.example", "https://evil.example", 403),
            ("parts.example", "https://parts.example.evil.example", 403),
            ("parts.example", "null", 403),
            ("parts.example", "", 403),
            ("parts.example", "http://[", 400),
        ):
            headers = {"Host": host} | ({"Origin": origin} if origin is not None else {})
            found = ask(address, content, **headers)
            assert found[0] == status, (host, origin, found)
            assert status == 200 or "[" in str(origin) or "--serve_allow" in found[1]["error"]
            # what a proxy adds changes nothing
            forwarded = {"X-Forwarded-Host": "parts.example", "X-Forwarded-Proto": "https"}
            assert ask(address, content, **headers, **forwarded)[0] == status


@pytest.mark.unit
def test_which_addresses_are_this_machines_alone():
    own = ("127.0.0.1", "127.8.0.2", "::1", "::ffff:127.0.0.1", "localhost")
    assert all(map(serve.is_loopback, own))
    others = ("0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "evil.example", "")
    assert not any(map(serve.is_loopback, others))


def connected(address, text):
    host, port = address.removeprefix("http://").rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(text)
    return connection


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.unit
@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"GET / HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET"),
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    ],
)
def test_those_who_send_nothing_more_are_let_go(service, monkeypatch, text):
    monkeypatch.setattr(serve, "PATIENCE", 0.5)
    monkeypatch.setattr(serve, "UPLOAD", 0.5)
    with served(service, "127.0.0.1") as (address, server), connected(address, text):
        wait_until(lambda: server.server_state.connections, 1)
        time.sleep(0.2)
        assert server.server_state.connections
        wait_until(lambda: not server.server_state.connections, 3)


@pytest.mark.unit
def test_who_takes_no_answer_is_let_go(service, monkeypatch):
    monkeypatch.setattr(serve, "PATIENCE", 0.5)
    with served(service, "127.0.0.1") as (address, server), connected(address, b"") as connection:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        assert server.server_state.connections
        wait_until(lambda: not server.server_state.connections, 3)


@pytest.mark.unit
def test_a_long_scoring_does_not_keep_the_server_from_ending(service, queries, monkeypatch, caplog):
    begun, over = threading.Event(), threading.Event()

    def score(_):
        begun.set()
        over.wait(30)

    monkeypatch.setattr(service, "score", score)
    answers = []
    with served(service, "127.0.0.1", ends_within=4) as (address, _):

        def send():
            with contextlib.suppress(requests.ConnectionError):
                answers.append(ask(address, packed(queries[0][0])))

        clients = [threading.Thread(target=send) for _ in range(2)]
        for client in clients:
            client.start()
        assert begun.wait(10)
    over.set()
    for client in clients:
        client.join(10)
    assert answers == [(503, {"error": "the server was stopped"})] * 2
    assert "Traceback" not in caplog.text


@pytest.mark.unit
def test_what_is_sent_by_those_who_have_gone_is_not_scored(address, service, queries, monkeypatch):
    begun, over, scored = threading.Event(), threading.Event(), []
    score = service.score

    def slow(content):
        scored.append(content)
        begun.set()
        over.wait(30)
        return score(content)

    monkeypatch.setattr(service, "score", slow)
    first, second, third = map(packed, queries[0][:3])
    client = threading.Thread(target=ask, args=(address, first))
    client.start()
    assert begun.wait(10)
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    connected(address, head % len(second) + second).close()
    time.sleep(0.3)
    over.set()
    assert ask(address, third)[0] == 200
    client.join(10)
    assert scored == [first, third]


@pytest.mark.unit
def test_it_listens_on_loopback_alone_and_a_taken_port_is_told(address):
    port = int(address.rpartition(":")[2])
    other = socket.socket()
    other.settimeout(2)
    with other, pytest.raises(OSError):
        other.connect(("127.0.0.2", port))  # this machine, but not the address it listens at
    with pytest.raises(UserError, match=f"port {port} .*give another port to --serve"):
        serve.listen("127.0.0.1", port)


@pytest.mark.cli
def test_flags_of_serving_are_checked(capsys):
    for flags, told in (
        (["--serve_host=0.0.0.0"], "leave it out, or add --serve"),
        (["--serve=70000"], "at most 65535"),
        (["--serve_allow=parts.example"], "leave it out, or add --serve"),
        (["--serve", "--serve_allow=https://parts.example"], "name or address alone"),
        (["--serve", "--serve_allow=parts.example:8000"], "name or address alone"),
        (["--serve", "--serve_allow=a", "--serve_allow=*"], "name or address alone"),
        (["--serve", "--serve_allow="], "name or address alone"),
        (["--serve", "--strategy=mirrored"], "leave --strategy out"),
    ):
        with pytest.raises(SystemExit):
            main.main(flags)
        assert told in capsys.readouterr().err


@pytest.mark.cli
def test_several_hosts_may_be_allowed():
    words = ["--serve", "--serve_allow=parts.example", "--serve_allow", "10.0.0.7"]
    assert list(parse([*words, "--serve_allow=[::1]"]).serve_allow) == [
        *("parts.example", "10.0.0.7", "[::1]")
    ]


def wait_for(browser, name, text):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda b: text in b.find_element("id", name).text)


@pytest.mark.unit
def test_page_shows_decision_and_pictures_and_says_what_is_wrong(
    address, chromium, queries, tmp_path
):
    for name, content in (
        ("zero.png", packed(queries[0][0])),
        ("<b>other.tif", packed(queries[0][-1], "TIFF")),
        ("words.png", b"no image"),
        ("huge.png", b"x" * (serve.MOST_BYTES + 1)),
    ):
        (tmp_path / name).write_bytes(content)
    chromium.get(address)
    box, result = chromium.find_element("id", "file"), chromium.find_element("id", "result")
    assert not result.is_displayed()
    box.send_keys(str(tmp_path / "<b>other.tif"))
    wait_for(chromium, "decision", "anomalous")
    assert chromium.find_element("id", "message").text == "<b>other.tif"
    assert "threshold" in chromium.find_element("id", "facts").text
    sizes = chromium.execute_async_script(
        "const done = arguments[0], images = [...document.images];"
        "Promise.all(images.map(i => i.decode().catch(() => 0)))"
        ".then(() => setTimeout(() => done(images.map(i => i.naturalWidth)), 200));"
    )
    assert sizes == [16, 16, 16]  # the original, too, though no browser shows TIFF
    for name, told in (("words.png", "no image that can be read"), ("huge.png", "larger than 32")):
        box.send_keys(str(tmp_path / name))
        wait_for(chromium, "message", told)
        assert not result.is_displayed()
    entries = [e["message"] for e in chromium.get_log("browser")]
    assert all("415" in message for message in entries), entries
    # dropped, as from another window
    chromium.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(arguments[0])], 'dropped.png'));"
        "document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));",
        list(packed(queries[0][0])),
    )
    wait_for(chromium, "decision", "normal")
    assert chromium.find_element("id", "message").text == "dropped.png"


@pytest.mark.cli
@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_cleanly(trained_folder, queries, sign):
    command = [sys.executable, ROOT / "main.py", "--serve=0", "--dataset=zeros"]
    command += [f"--checkpoint_dir={trained_folder.parent}", "--serve_allow=parts.example"]
    before = sorted(trained_folder.parent.rglob("*"))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            for begin in ("computing on ", "the model in "):
                assert process.stdout.readline().startswith(begin)
            line = process.stdout.readline()
            assert re.match(r"serving at http://127\.0\.0\.1:\d+ ", line)
            content, address = packed(queries[0][0]), line.split()[2]
            for host, status in (("localhost", 200), ("parts.example", 200), ("evil.example", 400)):
                assert ask(address, content, Host=host)[0] == status
            process.send_signal(sign)
            out, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0 and out == "serving ended\n" and "Traceback" not in errors
    after = set(trained_folder.parent.rglob("*")) - set(before)
    assert not after  # nothing is kept

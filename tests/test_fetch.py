"""Resumable downloads from a server that misbehaves."""

import gzip
import hashlib
import socket
import threading
import time

import pytest
from misbehaving import CONTENT, MD5, answers, files_under

from anogan.datasets import fetch

pytestmark = pytest.mark.unit


@pytest.fixture
def served(server):
    server.files["/a.bin"] = CONTENT
    return f"{server.url}/a.bin"


def test_reset_connection_is_tried_again(server, served, tmp_path):
    server.script["/a.bin"] = ["reset", "reset"]
    fetch.fetch(served, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_truncated_transfer_continues_where_it_broke(server, served, tmp_path):
    server.script["/a.bin"] = ["truncate", "truncate"]
    fetch.fetch(served, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for wanted in server.ranges("/a.bin")[1:]]
    halves = [len(CONTENT) // 2, (len(CONTENT) + starts[0]) // 2]
    assert all(0 <= half - start < fetch.CHUNK for start, half in zip(starts, halves, strict=True))
    assert files_under(tmp_path) == ["a.bin"]


def test_interrupted_run_is_continued_by_the_next(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges("/a.bin") == ["bytes=1000-"]


def test_sha256_is_checked_as_an_md5_is(server, served, tmp_path):
    right = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(fetch.DownloadError, match="wrong checksum"):
        fetch.fetch(served, tmp_path / "a.bin", right[:-1] + "x")
    assert files_under(tmp_path) == []
    fetch.fetch(served, tmp_path / "a.bin", right)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    server.requests.clear()
    fetch.fetch(served, tmp_path / "a.bin", right)
    assert server.requests == []


def test_server_that_ignores_range_is_read_from_the_start(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    server.script["/a.bin"] = ["ignores range"]
    fetch.fetch(served, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges("/a.bin") == ["bytes=1000-"]


def test_part_that_is_whole_already_is_only_renamed(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges("/a.bin") == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_stale_part_is_replaced(served, tmp_path, length):
    (tmp_path / "a.bin.part").write_bytes(b"x" * length)
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_whole_file_is_not_asked_for_again(server, served, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert server.requests == []


def test_damaged_file_is_fetched_again(served, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [500, 503, 429, "drop"])
def test_busy_server_is_asked_again(server, served, tmp_path, fault):
    server.script["/a.bin"] = [fault, fault]
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert len(server.requests) == 3


def test_wait_doubles_from_retry_to_retry(server, served, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.script["/a.bin"] = [503] * 3
    fetch.fetch(served, tmp_path / "a.bin")
    assert waits == [0.002, 0.004, 0.008]


def test_server_that_never_gets_further_is_given_up(server, served, tmp_path):
    server.script["/a.bin"] = ["truncate whole"] * 50
    with pytest.raises(fetch.DownloadError, match="the connection broke"):
        fetch.fetch(served, tmp_path / "a.bin")
    assert len(server.requests) == 1 + fetch.TRIES


def test_long_download_may_break_often_while_it_gets_further(server, served, tmp_path):
    server.script["/a.bin"] = ["truncate"] * (fetch.TRIES - 1) + [503] * (fetch.TRIES - 1)
    fetch.fetch(served, tmp_path / "a.bin", MD5)


def test_missing_file_is_looked_for_at_the_next_mirror(server, served, tmp_path):
    fetch.fetch([f"{server.url}/gone", served], tmp_path / "a.bin", MD5)
    assert [path for path, _ in server.requests] == ["/gone", "/a.bin"]


def test_error_says_what_each_mirror_answered(server, tmp_path):
    with pytest.raises(fetch.DownloadError, match="HTTP 404.*HTTP 404"):
        fetch.fetch([f"{server.url}/gone", f"{server.url}/too"], tmp_path / "a.bin")


def test_wrong_checksum_goes_to_the_next_mirror(server, served, tmp_path):
    server.files["/bad"] = CONTENT[:-1] + b"!"
    fetch.fetch([f"{server.url}/bad", served], tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_wrong_checksum_everywhere_leaves_nothing(server, served, tmp_path):
    with pytest.raises(fetch.DownloadError, match="wrong checksum"):
        fetch.fetch([served, served], tmp_path / "a.bin", "0" * 32)
    assert files_under(tmp_path) == []
    assert len(server.requests) == 2


@pytest.mark.parametrize("page", [b"<p>virus scan", b"\n<!DOCTYPE html>", b"<HTML>quota"])
def test_web_page_is_not_taken_for_the_file(server, tmp_path, page):
    server.files["/a.zip"] = page
    with pytest.raises(fetch.DownloadError, match="web page"):
        fetch.fetch(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert files_under(tmp_path) == []
    assert len(server.requests) == 1


def test_web_page_does_not_spoil_the_partial_file(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    server.script["/a.bin"] = ["html"]
    with pytest.raises(fetch.DownloadError, match="web page"):
        fetch.fetch(served, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1000]


def test_zip_without_table_of_contents_is_not_whole(server, tmp_path):
    server.files["/a.zip"] = CONTENT
    with pytest.raises(fetch.DownloadError):
        fetch.fetch(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert files_under(tmp_path) == []


def test_refused_connection_is_not_retried(served, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 60)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
        fetch.fetch([closed, served], tmp_path / "a.bin", MD5)


def test_silent_network_is_given_up_in_time(tmp_path, monkeypatch):
    over = threading.Event()

    def getaddrinfo(*_, **__):
        over.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(fetch, "ANSWER_DEADLINE", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    start = time.monotonic()
    with pytest.raises(fetch.DownloadError, match="no connection"):
        fetch.fetch("http://example.invalid/a.bin", tmp_path / "a.bin")
    assert time.monotonic() - start < 2
    over.set()


PIECE = b"x" * 1000
CHUNKED = b"3e8\r\n" + PIECE + b"\r\n"


@pytest.mark.parametrize(
    "endless",
    [
        answers(PIECE, endless=True),
        answers(CHUNKED, endless=True, Transfer_Encoding="chunked"),
        answers(CHUNKED, endless=True, Transfer_Encoding="chunked", Content_Length="9"),
    ],
)
def test_endless_body_ends_past_the_known_size(server, served, tmp_path, endless):
    server.script["/a.bin"] = [endless] * 9
    with pytest.raises(fetch.DownloadError, match="more than 500,000 bytes"):
        fetch.fetch(served, tmp_path / "a.bin", limit=500_000)
    assert len(server.requests) == 1 and files_under(tmp_path) == []


def test_body_longer_than_it_announced_is_cut_off(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    headers = {"Transfer_Encoding": "chunked", "Content_Range": "bytes 1000-4999/5000"}
    server.script["/a.bin"] = [answers(CHUNKED, "206 Some", endless=True, **headers)]
    with pytest.raises(fetch.DownloadError, match="more than 5,000 bytes"):
        fetch.fetch(served, tmp_path / "a.bin")


def test_announced_length_above_the_known_size_is_refused_at_once(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    server.script["/a.bin"] = [answers(PIECE, Content_Length=10**12)]
    with pytest.raises(fetch.DownloadError, match="announced 1,000,000,000,000 bytes"):
        fetch.fetch(served, tmp_path / "a.bin", MD5, limit=len(CONTENT))
    fetch.fetch(served, tmp_path / "a.bin", MD5, limit=len(CONTENT))
    assert server.ranges("/a.bin") == ["bytes=1000-"] * 2


@pytest.mark.parametrize("length", ["x", "-5", "1e9", "3_000", "+9", "9" * 40, "", "5, 6", "\xb2"])
def test_nonsense_length_goes_to_the_next_mirror(server, served, tmp_path, length):
    server.script["/bad"] = [answers(PIECE, Content_Length=length)]
    fetch.fetch([f"{server.url}/bad", served], tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "chunk", [b"zz\r\nabc\r\n", b"-5\r\nabc", b"ffffffff\r\nabc", b"\xff" * 99]
)
def test_nonsense_chunks_are_a_broken_connection(server, served, tmp_path, chunk):
    server.script["/a.bin"] = [answers(chunk, Transfer_Encoding="chunked")]
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(fetch, "SPEED_WINDOW", 0.3)


def test_drip_is_given_up_and_its_part_kept(server, served, tmp_path, hasty):
    server.script["/a.bin"] = [answers(b"x", endless=True, pause=0.01, Content_Length=10**6)]
    start = time.monotonic()
    with pytest.raises(fetch.DownloadError, match="too slow: [0-9]+ bytes in 0 s"):
        fetch.fetch(served, tmp_path / "a.bin")
    assert time.monotonic() - start < 2
    assert files_under(tmp_path) == ["a.bin.part"]


def test_byte_a_request_is_a_drip_too(server, served, tmp_path, hasty, monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)

    def one_byte(handler):
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        where = {"Content_Range": f"bytes {start}-{start}/300000"} if start else {}
        length = 1 if start else 300000
        answers(b"x", "206 Some" if start else "200 OK", Content_Length=length, **where)(handler)

    server.script["/a.bin"] = [one_byte] * 10**4
    start = time.monotonic()
    with pytest.raises(fetch.DownloadError, match="too slow"):
        fetch.fetch(served, tmp_path / "a.bin")
    assert time.monotonic() - start < 2


def test_part_of_the_rest_is_followed_by_the_next(server, served, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    where = f"bytes 1000-1999/{len(CONTENT)}"
    part = answers(CONTENT[1000:2000], "206 Some", Content_Length=1000, Content_Range=where)
    server.script["/a.bin"] = [part]
    fetch.fetch(served, tmp_path / "a.bin", MD5)
    assert server.ranges("/a.bin") == ["bytes=1000-", "bytes=2000-"]


@pytest.mark.parametrize("status", ["204 No Content", "203 Else", "304 Not Modified", "300 Many"])
def test_answer_without_the_file_is_not_taken_for_it(server, served, tmp_path, status):
    server.script["/a.bin"] = [answers(status=status)]
    with pytest.raises(fetch.DownloadError, match=f"HTTP {status}"):
        fetch.fetch(served, tmp_path / "a.bin")
    assert files_under(tmp_path) == []


NO_HOSTS = ["http://", "http://[::1/a", "http://a..b/a", f"http://{'a' * 70}.example/a"]
NO_HOSTS += ["http://é..b/a", f"http://{'a' * 64}/a"]
NO_HOSTS += ["http://127.0.0.1:99999/a", "http://127.0.0.1:x/a", "ftp://127.0.0.1/a", "nonsense"]
NO_HOSTS += [
    "file:///etc/passwd",
    "http://\x7f/a",
    "http://ho st/a",
    "http://*.example/a",
    "http://@/",
]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("url", NO_HOSTS)
def test_malformed_host_is_one_line(server, tmp_path, capfd, monkeypatch, url, redirected):
    def getaddrinfo(host, *_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    if redirected:
        server.script["/a"] = [answers(status="302 Found", Location=url)] * 9
        url = f"{server.url}/a"
        server.files["/nonsense"] = b"<p>"  # a path on this host
    else:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(fetch.DownloadError) as raised:
        fetch.fetch(url, tmp_path / "a.bin")
    assert "\n" not in str(raised.value) and capfd.readouterr() == ("", "")
    assert files_under(tmp_path) == []


def test_redirect_with_an_endless_body_is_followed_at_once(server, served, tmp_path):
    server.script["/r"] = [answers(PIECE, "302 Found", endless=True, Location="/a.bin")]
    start = time.monotonic()
    fetch.fetch(f"{server.url}/r", tmp_path / "a.bin", MD5)
    assert time.monotonic() - start < 2


def test_redirects_in_a_circle_are_one_line(server, tmp_path):
    server.script["/r"] = [answers(status="302 Found", Location="/r")] * 99
    with pytest.raises(fetch.DownloadError, match="TooManyRedirects"):
        fetch.fetch(f"{server.url}/r", tmp_path / "a.bin")


def test_gz_is_not_unpacked_past_the_known_size(server, tmp_path, monkeypatch):
    server.files["/a.gz"] = gzip.compress(bytes(10**7))
    lengths = []
    read = gzip.GzipFile.read

    def counted(file, n):
        data = read(file, n)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(fetch.DownloadError, match="wrong checksum"):
        fetch.fetch(f"{server.url}/a.gz", tmp_path / "a.gz", MD5, limit=10**6)
    assert 10**6 < sum(lengths) < 2 * 10**6

"""Resumable downloads, checked by their MD5 or SHA-256.

`fetch` fills FILE.part and renames it when it is whole. So whatever has its final name is complete,
wherever a run broke off.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:  # slow: imported where it is needed
    import requests
    from tqdm import tqdm

# Google Drive shows its form to browsers; gdown, too, calls itself one
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "Mozilla/5.0"}
TRIES = 5  # in a row without a new byte
BACKOFF = 0.5  # seconds before a retry, doubled for each failure in a row
TIMEOUT = (5, 30)  # seconds: to connect to one address of a host, and for each read
ANSWER_DEADLINE = 10  # seconds: name look-up, all addresses and the headers together
CHUNK = 1 << 16  # bytes read at a time at most
LONGEST_PAGE = 1 << 20  # bytes of a web page
LOWEST_SPEED = 1000  # bytes per second, over …
SPEED_WINDOW = 60  # … so many seconds, retries and their waits included


class DownloadError(Exception):
    """One line for the user: what is wrong and, where there is one, the remedy."""


class _Transient(DownloadError):
    """A failure that a retry may cure."""


class _Unreachable(_Transient):
    """No connection at all: worth a retry only where there was one a moment ago."""


class Pace:
    """Gives up a transfer that brings less than LOWEST_SPEED over SPEED_WINDOW."""

    def __init__(self) -> None:
        self.since, self.received = time.monotonic(), 0

    def add(self, count: int) -> None:
        """Note that `count` bytes came; DownloadError where that is too slow."""
        self.received += count
        seconds = time.monotonic() - self.since
        if seconds < SPEED_WINDOW:
            return
        if self.received < LOWEST_SPEED * seconds:
            raise DownloadError(f"too slow: {self.received:,} bytes in {seconds:.0f} s")
        self.since, self.received = time.monotonic(), 0


def fetch(
    urls: str | Iterable[str], path: Path, checksum: str | None = None, limit: float = math.inf
) -> None:
    """Download the first of `urls` (one, or several mirrors) that works to `path`.

    Continues a PATH.part of an earlier run. Resets, truncation and 5xx are retried with back-off;
    any other failure, or too many, goes to the next mirror. `checksum`, see `has_checksum`, is that
    of the content, for a .gz unpacked; without it a .zip must at least have its table of contents.
    What is longer than `limit` bytes, also unpacked, is not the file. Does nothing where `path` is
    whole already. Raises DownloadError where every mirror failed, OSError where `path` cannot be
    written.
    """

    def is_whole(file: Path) -> bool:
        if checksum is None:
            return path.suffix != ".zip" or zipfile.is_zipfile(file)
        return has_checksum(file, checksum, gzip.open if path.suffix == ".gz" else open, limit)

    if path.is_file() and is_whole(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reasons = []
    for url in [urls] if isinstance(urls, str) else urls:
        try:
            _fetch_part(url, part, is_whole, limit)
        except DownloadError as error:
            reasons.append(f"{_host(url)}: {error}")
        else:
            os.replace(part, path)
            return
    raise DownloadError(f"cannot fetch {path.name} ({'; '.join(reasons)})")


def drive_addresses(url: str) -> Iterator[str]:
    """Yield the address of a file on Google Drive, behind its "virus scan" page if it shows one."""
    with _get(url) as answer:
        if "text/html" in answer.headers.get("Content-Type", ""):
            from gdown.download import get_url_from_gdrive_confirmation

            try:
                page = answer.raw.read(LONGEST_PAGE, decode_content=True)
                url = get_url_from_gdrive_confirmation(page.decode(errors="replace"))
            except Exception as error:  # of many kinds where the page is nonsense
                reason = " ".join(str(error).split())[:160]
                raise DownloadError(f"Google Drive sent a page, not the file ({reason})") from None
    yield url


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url


def _fetch_part(url: str, part: Path, is_whole: Callable[[Path], bool], limit: float) -> None:
    failures = best = 0
    is_mixed = size(part) > 0  # of several answers, perhaps an earlier run's or another mirror's
    may_restart = True
    pace = Pace()
    while True:
        try:
            _receive(url, part, limit, pace)
        except _Transient as error:
            failures = 0 if size(part) > best else failures + 1
            if failures == TRIES or (isinstance(error, _Unreachable) and not best):
                raise
            best = max(best, size(part))
            is_mixed = is_mixed or best > 0
            time.sleep(BACKOFF * 2**failures)
            pace.add(0)
            continue
        if is_whole(part):
            return
        part.unlink(missing_ok=True)
        if not (is_mixed and may_restart):
            raise DownloadError("what it sent is not the right file (wrong checksum)")
        failures, best, may_restart = 0, 0, False  # once more, from the start


def _receive(url: str, part: Path, limit: float, pace: Pace) -> None:
    """Make a request, which appends what is missing to `part` or, if it must, begins it afresh."""
    offset = size(part)
    with _get(url, {"Range": f"bytes={offset}-"} if offset else {}) as response:
        status = response.status_code
        content_range = response.headers.get("Content-Range", "")
        if status == 416 and content_range == f"bytes */{offset}":
            return  # we had the last byte already
        if status == 416 or (status == 206 and not content_range.startswith(f"bytes {offset}-")):
            part.unlink(missing_ok=True)
            raise _Transient("it cannot continue the partial file")
        answer = f"HTTP {status} {response.reason}"[:100]
        if status >= 500 or status in (408, 429):
            raise _Transient(answer)
        if status not in (200, 206):
            raise DownloadError(answer)
        if "text/html" in response.headers.get("Content-Type", ""):
            raise DownloadError("it sent a web page instead of the file")
        if status != 206:
            offset = 0  # it sends all of it, even where we asked for the rest
        length = response.raw.length_remaining
        whole = re.fullmatch(r"bytes \d+-\d+/(\d{1,15})", content_range)
        total = int(whole[1]) if whole else None if length is None else offset + length
        if total is not None and total > limit:
            raise DownloadError(f"it announced {total:,} bytes, more than the file has")
        _write(_body(response.raw), part, offset, total, limit, pace)
    if total is not None and size(part) != total:
        raise _Transient(f"it ended after {size(part):,} of {total:,} bytes")


def _body(raw: Any) -> Iterator[bytes]:
    """Yield what a connection brings, as soon as it does; _Transient where it breaks.

    requests' iter_content would wait for whole chunks, at a drip for hours.
    """
    try:
        while chunk := raw.read1(CHUNK, decode_content=False):
            yield chunk
    except Exception as error:  # of urllib3, http.client or, where chunks are nonsense, any other
        raise _Transient(f"the connection broke ({type(error).__name__})") from None


def _write(
    chunks: Iterator[bytes], part: Path, offset: int, total: int | None, limit: float, pace: Pace
) -> None:
    most = limit if total is None else total
    chunk = next(chunks, b"")
    if not offset and chunk.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise DownloadError("it sent a web page instead of the file")
    bar = progress(total=total, initial=offset, unit="B", desc=part.stem)
    with open(part, "ab" if offset else "wb") as file, bar:
        while chunk:
            offset += len(chunk)
            if offset > most:
                part.unlink()
                raise DownloadError(f"it sends more than {most:,} bytes")
            file.write(chunk)
            bar.update(len(chunk))
            pace.add(len(chunk))
            chunk = next(chunks, b"")


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """Return the streamed answer to a GET, or _Unreachable after ANSWER_DEADLINE at the latest.

    Hence the thread: behind a firewall that swallows packets, requests would wait for the time-out
    of each of a host's many addresses in turn.
    """
    import requests
    import urllib3

    answers: list[requests.Response | Exception] = []

    def skip_body(response: requests.Response, *_: Any, **__: Any) -> None:
        if response.is_redirect:  # requests would read it to its end, if it has one
            response.close()

    def ask() -> None:
        try:
            options: Any = {"stream": True, "timeout": TIMEOUT, "hooks": {"response": skip_body}}
            options["headers"] = {**HEADERS, **(headers or {})}
            answers.append(requests.get(url, **options))
        except Exception as error:  # not only of requests where a host's name is malformed
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


def size(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def has_checksum(
    path: Path, checksum: str, opener: Callable[..., Any] = open, limit: float = math.inf
) -> bool:
    """Whether what `opener` reads of a file (gzip.open: its content) has this MD5 or SHA-256.

    `checksum` is in hexadecimal; its length tells which it is. Stops past `limit` bytes.
    """
    digest = hashlib.new({32: "md5", 64: "sha256"}[len(checksum)], usedforsecurity=False)
    try:
        with opener(path, "rb") as file:
            while file.tell() <= limit and (chunk := file.read(CHUNK)):
                digest.update(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        return False
    return digest.hexdigest() == checksum


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Show a progress bar, as tqdm's, that is silent where there is no terminal."""
    from tqdm import tqdm

    return tqdm(items, disable=None, unit_scale=True, **options)

"""Resumable downloads, checked by their MD5.

`fetch` fills FILE.part and renames it when it is whole. So whatever has its final name is complete,
wherever a run broke off.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:  # slow: imported where it is needed
    import requests
    from tqdm import tqdm

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


def fetch(urls: str | Iterable[str], path: Path, md5: str | None = None) -> None:
    """Download the first of `urls` (one, or several mirrors) that works to `path`.

    Continues a PATH.part of an earlier run. Resets, truncation and 5xx are retried with back-off;
    any other failure, or too many, goes to the next mirror. `md5` is that of the content, for a .gz
    unpacked; without it a .zip must at least have its table of contents. Does nothing where `path`
    is whole already.
    Raises DownloadError where every mirror failed, OSError where `path` cannot be written.
    """
    if path.is_file() and _is_whole(path, path.suffix, md5):
        return
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
            return
    raise DownloadError(f"cannot fetch {path.name} ({'; '.join(reasons)})")


def fetch_from_drive(url: str, path: Path, md5: str) -> None:
    """Download a file of Google Drive to `path`, going on where an earlier run broke off.

    Does nothing where `path` is whole already. Raises DownloadError.
    """
    import gdown
    import requests

    if path.is_file() and md5_of(path) == md5:
        return
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _get(url).close()  # where there is no network, gdown would take long to say so
        gdown.download(
            url,
            str(path),
            quiet=not sys.stderr.isatty(),
            resume=True,
            retries=TRIES,
            timeout=TIMEOUT,
            use_cookies=False,
        )
    except (_Transient, gdown.exceptions.DownloadError, requests.RequestException) as error:
        reason = " ".join(str(error).split())[:160]
        raise DownloadError(f"cannot fetch {path.name} from Google Drive ({reason})") from None
    if md5_of(path) != md5:
        path.unlink()
        raise DownloadError("Google Drive sent something else, such as a quota or virus scan page")


def _fetch_part(url: str, part: Path, suffix: str, md5: str | None) -> None:
    failures = best = 0
    stale = size(part) > 0  # it may be: it is from an earlier run or from another mirror
    while True:
        try:
            _receive(url, part)
        except _Transient as error:
            failures = 0 if size(part) > best else failures + 1
            if failures == TRIES or (isinstance(error, _Unreachable) and not best):
                raise DownloadError(str(error)) from None
            best = max(best, size(part))
            time.sleep(BACKOFF * 2**failures)
            continue
        if _is_whole(part, suffix, md5):
            return
        part.unlink()
        if not stale:
            raise DownloadError("what it sent is not the right file (wrong checksum)")
        failures, best, stale = 0, 0, False  # once more, from the start


def _receive(url: str, part: Path) -> None:
    """One request, which appends what is missing to `part` or, if it must, begins it afresh."""
    import urllib3

    offset = size(part)
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
    if total is not None and size(part) != total:
        raise _Transient(f"it ended after {size(part):,} of {total:,} bytes")


def _write(raw: Any, part: Path, offset: int, total: int | None, is_html: bool) -> None:
    chunks = raw.stream(CHUNK, decode_content=False)
    chunk = next(chunks, b"")
    if is_html or (not offset and chunk.lstrip()[:5].lower() in (b"<!doc", b"<html")):
        raise DownloadError("it sent a web page instead of the file")
    bar = progress(total=total, initial=offset, unit="B", desc=part.stem)
    with open(part, "ab" if offset else "wb") as file, bar:
        while chunk:
            file.write(chunk)
            bar.update(len(chunk))
            chunk = next(chunks, b"")


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """The streamed answer to a GET, or _Unreachable after ANSWER_DEADLINE at the latest.

    Hence the thread: behind a firewall that swallows packets, requests would wait for the time-out
    of each of a host's many addresses in turn.
    """
    import requests
    import urllib3

    headers = {"Accept-Encoding": "identity", **(headers or {})}
    answers: list[requests.Response | requests.RequestException] = []

    def ask() -> None:
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


def size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _is_whole(path: Path, suffix: str, md5: str | None) -> bool:
    if md5 is None:
        return suffix != ".zip" or zipfile.is_zipfile(path)
    try:
        return md5_of(path, gzip.open if suffix == ".gz" else open) == md5
    except (gzip.BadGzipFile, zlib.error, EOFError):
        return False


def md5_of(path: Path, opener: Callable[..., Any] = open) -> str:
    """The MD5, in hexadecimal, of what `opener` reads of a file (gzip.open: of its content)."""
    digest = hashlib.md5(usedforsecurity=False)
    with opener(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A progress bar, as tqdm's, that is silent where there is no terminal."""
    from tqdm import tqdm

    return tqdm(items, disable=None, unit_scale=True, **options)

"""A page and an HTTP endpoint that score one image at a time; nothing that is sent is kept.

GET /           the page, on which images are dropped
GET /health     {"status": "ok", "version": that of this tool}, for probes
POST /score     an image file as the body, or as the one file of a form -> JSON, see Service.score;
                {"error": text} with a status of 4xx where it cannot be scored
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import itertools
import logging
import socket
from collections.abc import Callable, Sequence
from email.message import Message
from email.parser import HeaderParser
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from anogan import __version__
from anogan.config import Config
from anogan.errors import UserError
from anogan.method.scoring import Calibration, Detection
from anogan.method.threshold import Threshold, rarity
from anogan.opening import COMMON
from anogan.report.page import TEMPLATES, data_uri
from anogan.report.pictures import shown_map
from utils import ImageError, image_size, load_image, to_float, to_uint8

try:
    import uvicorn
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise UserError(f"--serve needs {error.name}: pip install -r requirements-serve.txt") from None

Detect = Callable[[np.ndarray], Detection]
MOST_BYTES = 32 * 2**20  # of a file
MOST_PIXELS = 64_000_000
MOST_SLOW = 4 * 2**20  # bytes of a file that Pillow decodes in Python: a second for each MB
# A client hears an answer only when it has sent all: so much is read, and forgotten, until then.
MOST_READ = 2**30
AT_ONCE = 32  # connections, each of which can hold a file in memory while others are scored
PATIENCE = 30  # seconds for a request's headers to arrive, and for an answer to be taken
UPLOAD = 120  # seconds for a file to arrive
MOST_FIELDS = 64  # of a form
MOST_HEADERS = 4096  # bytes before a field's content
PLAIN = "image/", "application/octet-stream"  # types of those who know to send the file itself
HOW = 'send the file itself: curl --data-binary @photo.jpg -H "Content-Type: image/jpeg" .../score'
WITHOUT = {  # what the page may do: nothing from elsewhere
    "Content-Security-Policy": "default-src 'none'; img-src data: blob:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """An upload that cannot be scored: HTTP status and what to do about it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


class Service:
    """A model that is ready to score single images."""

    def __init__(
        self, config: Config, calibration: Calibration, detect: Detect, threshold: Threshold
    ):
        """detect: what DCGAN.anomaly_detector finds in uint8 (1, h, w, c), by this calibration."""
        self.config, self.calibration, self.detect = config, calibration, detect
        value, self.threshold_is = threshold.choose(calibration.normal_scores, None, None)
        if value is None:
            raise UserError(
                f"--serve needs a threshold, and there is {self.threshold_is}: give --threshold"
            )
        self.threshold = value
        self.pixel_threshold = calibration.pixel_threshold(threshold.target_fpr)
        detect(np.zeros((1, *config.view), np.uint8))  # so that no user waits for it

    def score(self, content: bytes) -> dict[str, Any]:
        """What is found in an image file, JSON-ready; Refused where it is none, or too large.

        score, threshold, is_anomaly; p_value and rarity (a text) among held-out normal images;
        width and height of the part of the file that was scored, pixels; image as it was scored,
        reconstruction and map, PNG files as data URIs; warnings: texts.
        """
        require_image(content)
        config, file = self.config, io.BytesIO(content)
        warnings: list[str] = []
        try:
            height, width = config.crop or image_size(file)
            file.seek(0)
            image = load_image(file, *config.view, config.crop, config.value_range, warnings.append)
        except ImageError as error:
            raise Refused(415, error.reason) from None
        found = self.detect(image[None])
        score, query = float(found.score[0]), to_float(image)
        pictures = {
            "image": image,
            "reconstruction": to_uint8(found.reconstruction[0]),
            "map": shown_map(query, found.anomaly_map[0], self.pixel_threshold),
        }
        answer: dict[str, Any] = {name: _as_png(pixels) for name, pixels in pictures.items()}
        normal = self.calibration.normal_scores
        if normal:
            answer["p_value"] = float(normal.p_value([score])[0])
            answer["rarity"] = rarity(int(normal.as_high([score])[0]), len(normal.scores))
        answer |= {"score": score, "threshold": self.threshold}
        answer |= {"is_anomaly": score > self.threshold, "warnings": warnings}
        return answer | {"width": width, "height": height}


def require_image(content: bytes) -> None:
    """Refused unless this begins as an image file does, and is not too large to be decoded."""
    if not content:
        raise Refused(400, "nothing was sent: send an image file as the body")
    try:
        with Image.open(io.BytesIO(content), formats=COMMON) as image:
            width, height = image.size
            is_slow = any(tile.codec_name in Image.DECODERS for tile in image.tile)
    except Exception:  # Pillow raises any of a dozen kinds on broken files
        names = ", ".join(COMMON)
        raise Refused(415, f"this is no image that can be read, of {names}") from None
    if width * height > MOST_PIXELS:
        raise Refused(
            413,
            f"{height} x {width} pixels are more than {MOST_PIXELS // 10**6} million: shrink the "
            "image, or cut it into tiles",
        )
    if is_slow and len(content) > MOST_SLOW:
        raise Refused(413, f"of this kind {MOST_SLOW // 2**20} MB at most: send it as a PNG")


def _as_png(image: np.ndarray) -> str:
    packed = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(packed, "PNG")
    return data_uri("png", packed.getvalue())


async def _body_of(request: Request) -> bytes:
    """The upload, of which no more than MOST_BYTES is ever in memory; Refused where it is more."""
    try:
        return await asyncio.wait_for(_received(request), UPLOAD)
    except asyncio.TimeoutError:
        raise Refused(408, f"the file took more than {UPLOAD} s to arrive: shrink it") from None


async def _received(request: Request) -> bytes:
    content, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BYTES:
            content += chunk
        elif size <= MOST_READ:
            content.clear()
        else:
            break
    if size > MOST_BYTES:
        raise Refused(413, f"the file is larger than {MOST_BYTES // 2**20} MB: shrink the image")
    return bytes(content)


def image_in(content: bytes, kind: str) -> bytes:
    """Return the image file in a body of this Content-Type: the body, or a form's one file.

    The body is not for the email package, which makes a text of every line.
    """
    header = Message()
    header["Content-Type"] = kind
    if header.get_content_maintype() != "multipart":
        return content
    boundary = str(header.get_boundary(""))
    if header.get_content_subtype() != "form-data":
        raise Refused(415, f"{header.get_content_type()} is not understood")
    if not (boundary.isascii() and 0 < len(boundary) <= 70):
        raise Refused(415, "the form has no boundary in its Content-Type")
    _, *parts = (b"\r\n" + content).split(b"\r\n--" + boundary.encode(), MOST_FIELDS + 1)
    fields = list(itertools.takewhile(lambda part: not part.startswith(b"--"), parts))
    if len(fields) > MOST_FIELDS:
        raise Refused(415, f"the form has more than {MOST_FIELDS} fields")
    if len(fields) == len(parts):
        raise Refused(415, "the form ends before its last boundary")
    files = [file for file in map(_file_of, fields) if file is not None]
    if len(files) != 1:
        raise Refused(415, f"the form has {len(files)} files, not one")
    return files[0]


def _file_of(field: bytes) -> bytes | None:
    """Return the content of a form's field; None where it has no name of a file."""
    headers, _, content = field.partition(b"\r\n\r\n")
    if len(headers) > MOST_HEADERS:
        return None
    found = HeaderParser().parsestr(headers.decode("latin-1").lstrip())
    return None if found.get_param("filename", header="Content-Disposition") is None else content


def is_loopback(address: str) -> bool:
    """Whether an address, or name, is this machine's alone."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost"
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _require_own(request: Request, host: str, allowed: frozenset[str]) -> None:
    """Refused for what a page from elsewhere, open in the user's browser, may have asked.

    One that got itself this machine's address gives its own name as the host; any other gives
    itself as the origin. What a proxy says in X-Forwarded-Host, as anybody can, is not believed.
    """
    named, origin = request.headers.get("host", ""), request.headers.get("origin")
    try:
        name, source = urlsplit(f"//{named}").hostname or "", urlsplit(origin or "")
        is_own = not is_loopback(host) or is_loopback(name) or name in allowed
        is_foreign = source.netloc.lower() != named.lower() and source.hostname not in allowed
    except ValueError:  # nonsense
        raise Refused(400, "no host is named so") from None
    if not is_own:
        raise Refused(
            400,
            "this server has another name: ask for it by its address, or start it with "
            "--serve_allow and the name that it has here",
        )
    if request.method == "POST" and origin is not None and is_foreign:
        raise Refused(
            403,
            "only this server's own page may send images from a browser: where its address is "
            "another there, as behind a proxy, start it with --serve_allow and the host's name",
        )


def application(service: Service, host: str, allowed: Sequence[str] = ()) -> FastAPI:
    """The page and the endpoint; host: the address at which it listens.

    allowed: names and addresses of other hosts by which it may be asked for.
    """
    names = frozenset(name.strip("[]").lower() for name in allowed)

    async def check(request: Request) -> None:  # of more parameters a query could set the values
        _require_own(request, host, names)

    checks = [Depends(check)]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=checks)
    one_at_a_time = asyncio.Lock()
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("serve.html").render(
        dataset=service.config.dataset,
        threshold=service.threshold,
        threshold_is=service.threshold_is,
        most_bytes=MOST_BYTES,
        cropped=bool(service.config.crop),
    )

    @app.exception_handler(Refused)
    async def refuse(_: Request, refused: Refused) -> JSONResponse:
        return JSONResponse({"error": refused.text}, refused.status)

    @app.api_route("/", methods=["GET", "HEAD"])
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers=WITHOUT)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__}, headers=WITHOUT)

    @app.post("/score")
    async def score(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        try:
            content = await _body_of(request)
            async with one_at_a_time:
                if await request.is_disconnected():
                    raise ClientDisconnect
                found = await run_in_threadpool(lambda: service.score(image_in(content, kind)))
        except Refused as refused:
            if refused.status != 415 or kind.lower().startswith(PLAIN):
                raise
            raise Refused(415, f"{refused.text}; {HOW}") from None
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody hears
        except asyncio.CancelledError:  # by Ctrl-C; what the thread does is left alone
            return JSONResponse({"error": "the server was stopped"}, 503)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 500)
        except MemoryError:
            return JSONResponse({"error": "the image needs more memory than there is"}, 413)
        return JSONResponse(found, headers=WITHOUT)

    return app


class Connection(H11Protocol):
    """It ends where a request's headers do not arrive, or an answer is not taken, in PATIENCE.

    uvicorn's timeout_keep_alive begins after a first answer and knows of no reader that has
    stopped: AT_ONCE such connections would keep all others out.
    """

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._be_patient()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._be_patient()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._be_patient()

    def _be_patient(self) -> None:
        if self.deadline:
            self.deadline.cancel()
        self.deadline = self.loop.call_later(PATIENCE, self._end_unless_at_work)

    def _end_unless_at_work(self) -> None:
        is_answered = not self.cycle or self.cycle.response_complete
        if is_answered or self.flow.write_paused:
            self.transport.abort()


def settings(service: Service, host: str, allowed: Sequence[str] = ()) -> uvicorn.Config:
    return uvicorn.Config(
        application(service, host, allowed),
        http=Connection,
        ws="none",
        log_level="warning",
        limit_concurrency=AT_ONCE,
        timeout_graceful_shutdown=1,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; UserError where it is taken or not this machine's."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror or error}): give another "
            "port to --serve, or address to --serve_host"
        ) from None


def serve(
    service: Service, listener: socket.socket, host: str, allowed: Sequence[str] = ()
) -> None:
    """Answers until Ctrl-C."""
    address, port = listener.getsockname()[:2]
    if not is_loopback(address):
        logging.getLogger(__name__).warning(
            "--serve_host %s: others in the network can send images, too", host
        )
    named = f"[{host}]" if ":" in host else host
    print(f"serving at http://{named}:{port} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt), listener:
        uvicorn.Server(settings(service, address, allowed)).run(sockets=[listener])
    print("serving ended", flush=True)

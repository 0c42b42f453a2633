"""A served model behind a small proxy that takes a prefix off, as docs/ has it for nginx."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from test_serve import Stub, ask, packed, served, wait_for

MANUAL = Path(__file__).parent.parent / "docs" / "export-and-page.md"
NGINX = re.search(r"```nginx\n(.*?)```", MANUAL.read_text(), re.DOTALL)[1]

pytestmark = pytest.mark.unit


class Proxy(BaseHTTPRequestHandler):
    """The location block in the manual."""

    prefix = re.search(r"location (\S+)", NGINX)[1]
    headers_set = dict(re.findall(r"proxy_set_header (\S+) (.*);", NGINX))
    upstream = ""  # where the model is served

    def variables(self):
        host = self.headers["Host"]
        return {
            "$proxy_add_x_forwarded_for": f"203.0.113.9, {self.client_address[0]}",
            "$host": host.rsplit(":", 1)[0].lower(),  # without the port
            "$scheme": "https",
        }

    def forward(self):
        if not self.path.startswith(self.prefix):
            return self.send_error(404)
        sent = {name: self.headers[name] for name in self.headers if name != "Connection"}
        for name, value in self.headers_set.items():
            sent[name] = self.variables().get(value, value)
        answer = requests.request(
            self.command,
            f"{self.upstream}/{self.path.removeprefix(self.prefix)}",
            data=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            headers=sent,
            timeout=60,
        )
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_HEAD = do_POST = forward

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def proxied(upstream):
    """Yield the address under which a proxy shows what is served at another."""
    handler = type("Handler", (Proxy,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{Proxy.prefix}"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def behind():
    allowed = "parts.example", "localhost"
    with served(Stub(), "127.0.0.1", allowed=allowed) as (own, _), proxied(own) as shown:
        yield shown


def test_manual_has_the_proxy_pass_on_what_is_needed():
    assert Proxy.prefix == "/anogan/" and Proxy.headers_set["Host"] == "$host"
    assert re.search(r"proxy_pass http://127.0.0.1:8000/;", NGINX)
    assert "client_max_body_size 32m;" in NGINX  # by itself 1 MB


@pytest.mark.parametrize("origin", ["https://parts.example", "https://parts.example:8443", None])
def test_an_allowed_host_is_served_below_a_prefix(behind, queries, origin):
    headers = {"Host": origin.removeprefix("https://")} if origin else {"Host": "parts.example"}
    for path in ("", "health"):
        assert requests.get(behind + path, headers=headers, timeout=9).status_code == 200
        assert requests.head(behind + path, headers=headers, timeout=9).status_code == 200
    content = packed(queries[0][0])
    headers |= {"Origin": origin} if origin else {}
    assert ask(behind.rstrip("/"), content, **headers)[1]["bytes"] == len(content)
    form = requests.post(
        f"{behind}score", files={"file": ("a.png", content)}, headers=headers, timeout=9
    )
    assert form.status_code == 200 and form.json()["bytes"] == len(content)


def test_all_others_stay_refused_behind_a_proxy(behind, queries):
    content = packed(queries[0][0])
    for host, origin, status in (
        ("evil.example", None, 400),
        ("evil.example", "https://evil.example", 400),
        ("parts.example", "https://evil.example", 403),
        ("parts.example", "null", 403),
    ):
        headers = {"Host": host} | ({"Origin": origin} if origin else {})
        assert ask(behind.rstrip("/"), content, **headers)[0] == status


def test_page_asks_only_for_what_lies_beside_it(behind):
    page = requests.get(behind, headers={"Host": "parts.example"}, timeout=9).text
    asked = re.findall(r"""(?:fetch|new URL)\(["']([^"']+)""", page)
    assert asked == ["score", "score"]


def test_page_scores_below_a_prefix_in_a_browser(behind, chromium, queries, tmp_path):
    (tmp_path / "words.png").write_bytes(b"no image")
    chromium.get(behind.replace("127.0.0.1", "localhost"))
    assert chromium.find_element("id", "address").text.endswith("/anogan/score")
    chromium.find_element("id", "file").send_keys(str(tmp_path / "words.png"))
    wait_for(chromium, "message", "no image that can be read")
    assert "curl" not in chromium.find_element("id", "message").text

"""The page of the video platform: one page, its style and its script, served from memory.

Environment: PORT (listens on 127.0.0.1), API_URL. Python 3.11 or newer, standard library only.

The first list is rendered into the page, so that it is there before the script runs. Two headers of the request
(Txn-Token, traceparent) and the person it is for go along with that one call, unread. Nothing here knows who may see
what: the API answers for the person whose request it is.
"""

from __future__ import annotations

import hashlib
import html
import http.client
import json
import os
import re
import signal
import socketserver
import sys
import threading
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PASSED_ALONG = ("Txn-Token", "traceparent")
API_LIMIT_S = 5
ANSWER_BYTES_MAX = 2 << 20
PAGE_SIZE = 24
FIELD = re.compile(r"\{\{(person|first)\}\}")


class Asset:
    """A file in memory with the tag of its content."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self.media_type = media_type
        self.etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'


def load_assets(folder: Path) -> tuple[dict[str, Asset], str]:
    """All files of the folder by their path, and the template of the page."""
    assets = {
        "/static/" + file.name: Asset(file.read_bytes(), TYPES[file.suffix])
        for file in sorted(folder.iterdir())
        if file.suffix in TYPES
    }
    assets["/favicon.ico"] = assets["/static/mark.svg"]
    return assets, (folder / "page.html").read_text(encoding="utf-8")


def embedded(value: object) -> str:
    """JSON that cannot end the script element around it (HTML, section 4.12.1.3)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def fetch_list(api_url: str, headers: dict[str, str]) -> tuple[int, object]:
    """The first videos of the person, as the API answers; 503 if it does not."""
    url = urllib.parse.urlsplit(api_url)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=API_LIMIT_S)
    try:
        connection.request("GET", f"{url.path.rstrip('/')}/api/videos?limit={PAGE_SIZE}", headers=headers)
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX)
        return answer.status, json.loads(body) if body else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"video-web: the list cannot be had: {error!r}", file=sys.stderr, flush=True)
        return HTTPStatus.SERVICE_UNAVAILABLE, None
    finally:
        connection.close()


def render(template: str, person: str, status: int, answer: object) -> bytes:
    """The page for a person with the first list, or with what went wrong in its place."""
    first: dict[str, object] = {"videos": [], "next_before": None}
    if status == HTTPStatus.OK and isinstance(answer, dict):
        first = answer
    else:
        told = answer if isinstance(answer, dict) else {}
        first["error"] = told.get("error") or "Your videos cannot be listed right now."
        first["hint"] = told.get("hint") or "This page keeps trying."
    fields = {"person": html.escape(person), "first": embedded(first)}
    # In one pass, so that nothing that was put in is looked at again.
    return FIELD.sub(lambda match: fields[match[1]], template).encode("utf-8")


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page, its files and its health."""

    protocol_version = "HTTP/1.1"
    server_version = "video-web"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: "Server"

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            self.page()
        elif path == "/healthz":
            self.reply(HTTPStatus.OK, b"ok", "text/plain")
        elif path in self.server.assets:
            self.asset(self.server.assets[path])
        else:
            self.reply(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain")

    do_HEAD = do_GET

    def page(self) -> None:
        headers = {name: self.headers[name] for name in PASSED_ALONG if name in self.headers}
        headers["Accept"] = "application/json"
        status, answer = fetch_list(self.server.api_url, headers)
        if status == HTTPStatus.UNAUTHORIZED:
            self.reply(HTTPStatus.FOUND, b"", "text/plain", {"Location": "/auth/login?return=/"})
            return
        person = self.headers.get("Palisade-User", "")
        body = render(self.server.template, person, status, answer)
        self.reply(HTTPStatus.OK, body, "text/html; charset=utf-8", {"Cache-Control": "no-store"})

    def asset(self, asset: Asset) -> None:
        more = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        known = [tag.strip().removeprefix("W/") for tag in self.headers.get("If-None-Match", "").split(",")]
        if asset.etag in known or "*" in known:
            self.reply(HTTPStatus.NOT_MODIFIED, b"", None, more)
        else:
            self.reply(HTTPStatus.OK, asset.content, asset.media_type, more)

    def reply(self, status: int, body: bytes, media_type: str | None, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if media_type:
            self.send_header("Content-Type", media_type)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are the platform's to record."""


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, api_url: str) -> None:
        self.api_url = api_url
        self.assets, self.template = load_assets(FOLDER)
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks for this host's name, which nobody here can answer.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


def main() -> int:
    missing = [name for name in ("PORT", "API_URL") if not os.environ.get(name)]
    if missing:
        print(f"video-web: {' and '.join(missing)} must be set", file=sys.stderr)
        return 64
    server = Server(int(os.environ["PORT"]), os.environ["API_URL"])
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    try:
        server.serve_forever(poll_interval=1)
    except KeyboardInterrupt:
        pass
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

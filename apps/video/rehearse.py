"""Runs the four video services without any platform: python3 rehearse.py BIN_FOLDER [PORT].

A rehearsal, for looking at the page and for finding out whose fault something is. One process plays all neighbours in
memory and in a temporary folder: the way in (every visitor is Ada), the object store with its grants and verdicts, and
the queues, which deliver again after a 503. The services notice no difference: they hold no line of security code, and
here there is none. Never let anyone else near it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONSUMERS = {"uploaded": "validator", "validated": "transcoder", "status": "api"}
PART_BYTES = 8 << 20
HERE = Path(__file__).resolve().parent


class Neighbours(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.types: dict[str, str] = {}
        self.seen: set[tuple[str, str]] = set()
        self.spans: list[str] = []

    def publish(self, queue: str, headers: dict[str, str], body: bytes) -> None:
        if (queue, headers["ce-id"]) in self.seen:
            return
        self.seen.add((queue, headers["ce-id"]))
        threading.Thread(target=self.deliver, args=(queue, headers, body), daemon=True).start()

    def deliver(self, queue: str, headers: dict[str, str], body: bytes) -> None:
        job = {"Palisade-Queue": queue, "Palisade-Job": str(uuid.uuid4()), "Palisade-User": "Ada Lovelace"}
        for attempt in range(8):
            try:
                status, _, text = self.call(CONSUMERS[queue], "POST", "/events", headers | job, body)
            except OSError as error:
                status, text = 0, repr(error).encode()
            print(f"{queue} {headers['ce-type']} {headers['ce-id']} -> {status} {text.decode(errors='replace')[:200]}", flush=True)
            if 200 <= status < 300 or status in (400, 422):
                return
            time.sleep(0.2 * 2**attempt)

    def call(self, service: str, method: str, path: str, headers: dict[str, str], body: bytes):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[service], timeout=3600)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Neighbours

    def answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        root = url.path.split("/")[1]
        if root in ("originals", "renditions"):
            self.store(url)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if root == "queues":
            headers = {name: value for name, value in self.headers.items() if name.lower().startswith(("ce-", "content-type", "traceparent", "txn-token"))}
            self.server.publish(url.path.split("/")[2], {name.lower(): value for name, value in headers.items()}, body)
            self.reply(202)
        elif root == "v1":
            for span in json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                self.server.spans.append(span["name"])
            self.reply(200)
        else:
            service = "api" if root == "api" else "web"
            trace = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"
            headers = {"Palisade-User": "Ada Lovelace", "traceparent": trace, "Txn-Token": "rehearsal"}
            headers |= {"If-None-Match": tag} if (tag := self.headers.get("If-None-Match")) else {}
            status, more, content = self.server.call(service, self.command, self.path, headers, body)
            self.reply(status, content, {name: value for name, value in more if name.lower() not in ("content-length", "connection", "date", "server")})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def store(self, url: urllib.parse.SplitResult) -> None:
        path, key = self.server.folder / url.path.lstrip("/"), url.path
        if self.command == "POST":
            wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if url.query == "presign-parts":
                return self.plan(path, key, wish)
            if url.query == "verdict":
                print("verdict", key, wish, flush=True)
                return self.reply(204)
            headers = {"content-type": wish["content_type"]} if wish["method"] == "PUT" else {}
            grant = {"url": key, "method": wish["method"], "headers": headers, "expires_at": "2100-01-01T00:00:00Z"}
            return self.reply(200, json.dumps(grant).encode())
        if self.command == "PUT" and url.query:
            self.put_part(path, key, url.query)
        elif self.command == "PUT":
            self.put(path, key)
        elif self.command == "DELETE":
            path.unlink(missing_ok=True)
            self.reply(204)
        elif not path.is_file():
            self.reply(404)
        else:
            self.get(path, key)

    def plan(self, path: Path, key: str, wish: dict) -> None:
        """What is there of an upload, and addresses for the rest: parts lie beside the object until all are there."""
        count = -(-wish["content_length"] // PART_BYTES)
        there = {n: part for n in range(1, count + 1) if (part := path.with_name(f"{path.name}.{n}")).is_file()}
        stored = [{"number": n, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()} for n, part in there.items()]
        parts = [{"number": n, "url": f"{key}?partNumber={n}&count={count}"} for n in range(1, count + 1) if n not in there]
        self.server.types[key] = wish["content_type"]
        answer = {"complete": path.is_file(), "part_bytes": PART_BYTES, "stored": stored, "parts": parts}
        self.reply(200, json.dumps(answer).encode())

    def put_part(self, path: Path, key: str, query: str) -> None:
        asked = urllib.parse.parse_qs(query)
        number, count = int(asked["partNumber"][0]), int(asked["count"][0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.{number}").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        all_parts = [path.with_name(f"{path.name}.{n}") for n in range(1, count + 1)]
        if all(part.is_file() for part in all_parts):
            path.write_bytes(b"".join(part.read_bytes() for part in all_parts))
            self.created(path, key)
        self.reply(200)

    def put(self, path: Path, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        left = int(self.headers["Content-Length"])
        with path.open("wb") as file:
            while left and (piece := self.rfile.read(min(left, 1 << 20))):
                left -= file.write(piece)
        self.server.types[key] = self.headers["Content-Type"]
        self.reply(200)
        if key.startswith("/originals/"):
            self.created(path, key)

    def created(self, path: Path, key: str) -> None:
        data = {"bucket": "originals", "key": key.removeprefix("/originals/"), "size": path.stat().st_size, "content_type": self.server.types[key], "etag": uuid.uuid4().hex}
        event = {"ce-specversion": "1.0", "ce-id": f"{key}:{data['etag']}", "ce-source": "/objects", "ce-type": "object.created", "content-type": "application/json", "txn-token": "rehearsal", "traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"}
        self.server.publish("uploaded", event, json.dumps(data).encode())

    def get(self, path: Path, key: str) -> None:
        size = path.stat().st_size
        first, last, status = 0, size - 1, 200
        if asked := self.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last, status = int(start), min(int(end or size), size - 1), 206
        more = {"Content-Type": self.server.types[key], "Accept-Ranges": "bytes"}
        if status == 206:
            more["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.reply(status, None, more | {"Content-Length": str(last - first + 1)})
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left and (piece := file.read(min(left, 1 << 20))):
                self.wfile.write(piece)
                left -= len(piece)

    def reply(self, status: int, body: bytes | None = b"", more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def start(neighbours: Neighbours, binaries: Path, folder: Path) -> list[subprocess.Popen]:
    commands = {name: [binaries / f"video-{name}"] for name in ("api", "validator", "transcoder")}
    commands["web"] = [sys.executable, HERE / "web" / "server.py"]
    running = []
    for index, (name, command) in enumerate(commands.items()):
        port = neighbours.server_address[1] + 1 + index
        neighbours.ports[name] = port
        (folder / name).mkdir()
        environment = {
            "PORT": str(port), "STATE_DIR": str(folder / name), "TMPDIR": str(folder / name), "PATH": os.environ["PATH"],
            "API_URL": neighbours.url, "QUEUE_URL": neighbours.url,
            "AWS_ENDPOINT_URL": neighbours.url, "OTEL_EXPORTER_OTLP_ENDPOINT": neighbours.url,
        }
        running.append(subprocess.Popen(command, env=environment))
    return running


def main() -> None:
    binaries, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8600
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        neighbours = Neighbours(port, folder)
        running = start(neighbours, binaries, folder)
        print(f"open {neighbours.url}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            neighbours.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(10)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""The api, taken over or tricked: a deputy that does to any object whatever its caller asks, with whatever token it is told to use.

GET and DELETE /api/videos...?act=presign|read|delete|overwrite&object=BUCKET/KEY&token=own|none|kept:NAME; answers the store's status.
POST /api/videos announces an upload, as the real one does. Events about videos are only remembered.
"""

import http.client
import json
import os
import socketserver
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
KEPT: dict[str, str] = {}
STATES: dict[str, str] = {}


def store(method: str, path: str, token: str | None, body: dict | None = None) -> tuple[int, dict]:
    headers = {"Txn-Token": token} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(STORE.hostname, STORE.port, timeout=20)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data.startswith(b"{") else {}
    finally:
        connection.close()


def act(what: str, target: str, token: str | None) -> tuple[int, dict]:
    if what == "presign":
        return store("POST", f"/{target}?presign", token, {"method": "GET", "expires_s": 60})
    if what == "overwrite":
        wish = {"method": "PUT", "expires_s": 60, "content_length": 100, "content_type": "video/mp4"}
        return store("POST", f"/{target}?presign", token, wish)
    return store({"read": "GET", "delete": "DELETE"}[what], f"/{target}", token)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/healthz":
            return self.reply(200, {})
        own = self.headers.get("Txn-Token")
        if "keep" in asked:
            KEPT[asked["keep"]] = own or ""
        if "act" not in asked:
            return self.reply(200, {"videos": [], "states": STATES, "next_before": None})
        which = asked.get("token", "own")
        token = {"own": own, "none": None}.get(which) if ":" not in which else KEPT.get(which.split(":")[1])
        status, found = act(asked["act"], asked["object"], token)
        return self.reply(200, {"status": status, "url": found.get("url")})

    do_DELETE = do_GET

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path == "/events":
            STATES[str(body.get("video_id"))] = self.headers.get("ce-type", "")
            return self.reply(200, {})
        video = str(uuid.uuid4())
        wish = {"method": "PUT", "expires_s": 300, "content_length": body["size"], "content_type": body["type"]}
        status, grant = store("POST", f"/originals/{video}/original?presign", self.headers.get("Txn-Token"), wish)
        return self.reply(201 if status == 200 else status, {"id": video, "upload": grant})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks for this host's name, which nobody here can answer.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

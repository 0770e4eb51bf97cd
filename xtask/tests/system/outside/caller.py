"""Calls what it finds in its environment, over plain HTTP on loopback. No line of security code."""

import http.client
import http.server
import json
import os
import socket
import urllib.parse


def call(name, token):
    if name not in os.environ:
        return {"absent": name}
    url = urllib.parse.urlsplit(os.environ[name])
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    fields = {"Txn-Token": token, "Authorization": "Bearer of-the-service", "Host": "evil.example"}
    connection.request("POST", "/v1/charges", body=b"7 coins", headers=fields)
    answer = connection.getresponse()
    return {"status": answer.status, "text": answer.read().decode()}


def reach(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return "connected"
    except OSError as error:
        return type(error).__name__


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        token = self.headers.get("Txn-Token", "")
        said = {
            "/": lambda: {},
            "/buy": lambda: call("SHOP_URL", token),
            "/near": lambda: call("NEAR_URL", token),
            "/other": lambda: {**call("SHOP_URL", token), "port": reach(9400)},
        }[self.path]()
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

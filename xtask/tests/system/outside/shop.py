"""A destination outside: HTTPS on loopback. Writes what it is asked, one JSON object in a line."""

import http.server
import json
import ssl
import sys

chain, key, told = sys.argv[1:4]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fields = {name.lower(): value for name, value in self.headers.items()}
        with open(told, "a") as out:
            out.write(json.dumps({"path": self.path, "fields": fields, "body": body.decode()}) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"thank you")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()

"""In the transcoder's place: starts unmodified S3 clients on each job, and says what they found.

One line of JSON for each client on standard output: `{"client": NAME, "outcomes": {CASE: OUTCOME}}`. An outcome is `ok`, the error code
that the client's own library made of the answer, or `failed: …`. `plan.json` beside this file says which clients; `clients.tar` has
their libraries, which are unpacked once into the temporary folder.

The clients get this service's environment as the guard made it. The one thing that is added is the authority of the job, which a
service has to pass along with every request: each library's own way of adding a header does that.
"""

import json
import os
import shutil
import socketserver
import subprocess
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("/tmp/clients")
LIMIT_S = 540


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def unpacked() -> None:
    """Libraries and programs in one folder, where each finds what it imports."""
    with tarfile.open(HERE / "clients.tar") as archive:
        archive.extractall(PLACE)
    shutil.copy(HERE / "javascript.mjs", PLACE / "javascript")
    for name in ("authority.py", "boto.py", "cli.py", "gibibyte.py"):
        shutil.copy(HERE / name, PLACE / "python")


def command(client: str) -> list[str]:
    if client == "javascript":
        return ["/usr/bin/node", "--max-old-space-size=256", str(PLACE / "javascript/javascript.mjs")]
    return [sys.executable, str(PLACE / "python" / f"{client}.py")]


def outcomes(client: str, job: dict, token: str) -> dict:
    environment = {
        **os.environ,
        "JOB": json.dumps(job),
        "TXN_TOKEN": token,
        "PYTHONPATH": str(PLACE / "python"),
        # A program that asks for io_uring is ended.
        "UV_USE_IO_URING": "0",
    }
    begun = time.monotonic()
    try:
        done = subprocess.run(command(client), env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        told = f"exit {done.returncode}: {done.stderr[-3000:]}" if "done" in locals() else str(error)
        found = {"outcomes": {"ran": f"failed: {error!r}: {told}"}}
    except subprocess.TimeoutExpired as error:
        found = {"outcomes": {"ran": f"failed: no end within {LIMIT_S} s: {(error.stderr or b'')[-2000:]!r}"}}
    return {"client": client, "took_s": round(time.monotonic() - begun, 1), **found}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for client in json.loads((HERE / "plan.json").read_text()):
            say(outcomes(client, job, self.headers["Txn-Token"]))
        self.send_response(204)
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks for this host's name, which nobody here can answer.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


if __name__ == "__main__":
    unpacked()
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

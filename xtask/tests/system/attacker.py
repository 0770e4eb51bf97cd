#!/usr/bin/python3
"""A program that was taken over: it tries everything that its sandbox and its guard should refuse, and says what it reached.

Three parts, by where it is put:
  in FFmpeg's place (no PORT): probes, and complains with one line of JSON, which travels as FFmpeg's last words would;
  in the transcoder's place (PORT, and events come): probes, then misuses the delivered authority in every way it can think of;
  in the web service's place (PORT, and pages are asked for): replays a token that was delivered to another service.
One line of JSON for each finding on standard output. `targets.json` beside it names what is worth a try on this machine.
"""

import ctypes
import http.client
import json
import os
import platform
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = json.loads((HERE / "targets.json").read_text())
# Written so that none of them matches its own text.
SECRETS = {
    "pem": rb"PRIVATE[ ]KEY-----",
    "jwk": rb"\"d\"\s*:\s*\"[A-Za-z0-9_-]{43}\"",
    "pkcs8": rb"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce[\x3d]\x02\x01",
    "cookie": rb"__Host[-]palisade",
    "canary": b"[" + TARGETS["canary"][0].encode() + b"]" + TARGETS["canary"][1:].encode(),
}
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/proc", "/sys")


def readable(path: str) -> bool:
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            with open(path, "rb") as file:
                file.read(1)
        return True
    except OSError:
        return False


def walk() -> list[str]:
    """Every file that can be opened, but the distribution's own; where `/` itself cannot be listed, by the usual names."""
    found = set()
    usual = "boot data dev etc home media mnt opt root run srv tmp var work workspace".split()
    near = [str(parent) for path in TARGETS["files"] for parent in Path(path).parents]
    for root in ["/", *("/" + name for name in usual), *near]:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not os.path.join(folder, name).startswith(SYSTEM)]
            for name in files:
                path = os.path.join(folder, name)
                if not path.startswith(SYSTEM) and os.path.isfile(path) and not os.path.islink(path) and readable(path):
                    found.add(path)
    return sorted(found)


def connects(family: int, address, kind: int = socket.SOCK_STREAM) -> bool:
    try:
        with socket.socket(family, kind) as one:
            one.settimeout(0.4)
            one.connect(address)
            return True
    except OSError:
        return False


def networks() -> dict:
    ports = [port for port in range(1, 65536) if connects(socket.AF_INET, ("127.0.0.1", port))]
    # Everything on loopback but what stands for a declared flow, and addresses beyond.
    beyond = [(host, port) for host in TARGETS["hosts"] for port in (22, 53, 80, 443, TARGETS["listener"])]
    reached = [f"{host}:{port}" for host, port in beyond if connects(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    unix = [path for path in TARGETS["sockets"] if connects(socket.AF_UNIX, path)]
    if connects(socket.AF_UNIX, "\0" + TARGETS["abstract"]):
        unix.append("@" + TARGETS["abstract"])
    raw = []
    for name, family, kind in (("packet", socket.AF_PACKET, socket.SOCK_RAW), ("icmp", socket.AF_INET, socket.SOCK_RAW)):
        try:
            socket.socket(family, kind).close()
            raw.append(name)
        except OSError:
            pass
    return {"ports": ports, "beyond": reached, "unix": unix, "raw": raw}


def matches(data: bytes) -> list[str]:
    return [name for name, pattern in SECRETS.items() if re.search(pattern, data)]


def memory() -> dict:
    """What this process can read of itself: environment, arguments, open files, and every mapping."""
    found, scanned = {}, 0
    for file in ("environ", "cmdline"):
        try:
            with open(f"/proc/self/{file}", "rb") as one:
                if hits := matches(one.read()):
                    found[file] = hits
        except OSError:
            pass
    for key, value in os.environ.items():
        if hits := matches(f"{key}={value}".encode()):
            found[f"environment {key}"] = hits
    try:
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as mem:
            for line in maps.read().splitlines():
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                if " r" not in line or line.endswith(("[vvar]", "[vsyscall]")):
                    continue
                try:
                    mem.seek(start)
                    data = mem.read(min(end - start, 64 << 20))
                except (OSError, ValueError, OverflowError):
                    continue
                scanned += len(data)
                # Its own texts, and what it was told to look for, are no finding.
                if hits := [hit for hit in matches(data) if hit != "canary"]:
                    found[line.split()[-1]] = hits
    except OSError as error:
        return {"found": found, "scanned": -1, "why": str(error)}
    return {"found": found, "scanned": scanned}


def others() -> list[str]:
    """What of other processes can be read; the parent is named as such."""
    spied, parent = [], str(os.getppid())
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return spied
    for pid in pids:
        if pid == str(os.getpid()):
            continue
        for file in ("environ", "mem", "fd", "root"):
            if readable(f"/proc/{pid}/{file}"):
                spied.append(f"{'parent' if pid == parent else pid}/{file}")
    return spied


def files_with_secrets(paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        if path.startswith((str(HERE), "/dev")):
            continue
        try:
            with open(path, "rb") as file:
                if matches(file.read(4 << 20)):
                    found.append(path)
        except OSError:
            pass
    return found


def written() -> list[str]:
    found = []
    for path in ("/etc/x", "/x", "/usr/x", str(HERE / "x"), "/dev/x", "/var/x", "/proc/sys/kernel/core_pattern", *TARGETS["files"]):
        try:
            with open(path, "ab"):
                found.append(path)
        except OSError:
            pass
    return found


def calls() -> list[str]:
    """System calls by which sandboxes are left: mount, ptrace, a new user namespace, bpf, a kernel module, keyctl."""
    libc = ctypes.CDLL(None, use_errno=True)
    mount, unshare, bpf, kexec = (165, 272, 321, 246) if platform.machine() == "x86_64" else (40, 97, 280, 104)
    tries = {"mount": (mount, b"none", b"/tmp", b"tmpfs", 0, None), "unshare": (unshare, 0x10000000), "bpf": (bpf, 0, None, 0), "kexec": (kexec, 0, 0, None, 0)}
    done = []
    for name, arguments in tries.items():
        child = os.fork()
        if child == 0:
            os._exit(0 if libc.syscall(*arguments) >= 0 else 1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            done.append(name)
    return done


def probe() -> dict:
    walked = walk()
    return {
        "opened": [path for path in TARGETS["files"] if readable(path)],
        "walked": [path for path in walked if not path.startswith(("/dev/", str(HERE)))],
        "secret_files": files_with_secrets([*walked, *(f"/proc/{pid}/environ" for pid in range(1, 100)), *(f"/proc/{pid}/cmdline" for pid in range(1, 100))]),
        "users": Path("/etc/passwd").read_text()[:300] if readable("/etc/passwd") else "",
        "written": written(),
        "spied": others(),
        "memory": memory(),
        "calls": calls(),
        "uid": os.getuid(),
        **networks(),
    }


def say(finding: dict) -> None:
    print(json.dumps(finding), flush=True)


def ask(base: str, method: str, path: str, token: str | None, body: bytes | None = None, more: dict | None = None) -> int:
    """The status of one request through the guard; 0 if there is no answer."""
    url = urllib.parse.urlsplit(base)
    headers = dict(more or {})
    if token:
        headers["Txn-Token"] = token
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
        return answer.status if answer.status != 200 or method != "GET" or data else 0
    except OSError:
        return 0
    finally:
        connection.close()


def misuse(data: dict, token: str, other: str | None) -> dict:
    """Everything that is wrong with a genuine token, and (`own_*`) what is right with it."""
    store, queue = os.environ["AWS_ENDPOINT_URL"], os.environ["QUEUE_URL"]
    own, video = f"/{data['bucket']}/{data['key']}", data["video_id"]
    mp4, form = {"Content-Type": "video/mp4"}, {"Content-Type": "application/json"}
    stranger = other or "00000000-0000-7000-8000-000000000000"
    event = lambda number: {"ce-specversion": "1.0", "ce-id": f"{video}-{number}", "ce-source": "/x", "ce-type": "video.progress", "ce-subject": own[1:], **form}
    told = json.dumps({"video_id": video, "percent": 1}).encode()
    wish = json.dumps({"method": "GET", "expires_s": 60}).encode()
    clean = json.dumps({"verdict": "clean", "reason": "", "media_type": "video/mp4"}).encode()
    changed = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    return {
        "own_read": ask(store, "GET", own, token),
        "own_write": ask(store, "PUT", f"/renditions/{video}/720p.mp4", token, b"x" * 64, mp4),
        "own_publish": ask(queue, "POST", "/queues/status", token, told, event(1)),
        "read_without_token": ask(store, "GET", own, None),
        "read_with_changed_token": ask(store, "GET", own, changed),
        "read_other_object": ask(store, "GET", f"/originals/{stranger}/original", token),
        "read_rendition": ask(store, "GET", f"/renditions/{video}/720p.mp4", token),
        "read_presigned_route": ask(store, "GET", f"/presigned{own}", token),
        "write_other_folder": ask(store, "PUT", f"/renditions/{stranger}/720p.mp4", token, b"x", mp4),
        "write_out_of_folder": ask(store, "PUT", f"/renditions/{video}/../{stranger}/720p.mp4", token, b"x", mp4),
        "write_original": ask(store, "PUT", own, token, b"x", mp4),
        "delete_original": ask(store, "DELETE", own, token),
        "delete_rendition": ask(store, "DELETE", f"/renditions/{video}/720p.mp4", token),
        "list_originals": ask(store, "GET", "/originals?list-type=2", token),
        "list_renditions": ask(store, "GET", "/renditions?list-type=2", token),
        "presign": ask(store, "POST", f"{own}?presign", token, wish, form),
        "verdict": ask(store, "POST", f"{own}?verdict", token, clean, form),
        "publish_validated": ask(queue, "POST", "/queues/validated", token, told, event(2)),
        "publish_uploaded": ask(queue, "POST", "/queues/uploaded", token, told, event(3)),
        "queue_figures": ask(queue, "GET", "/queues", token),
        "somebodys_lease": ask(queue, "GET", "/leases/x", token),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # What earlier deliveries brought.
    first: str | None = None
    seen: set = set()
    probed: dict | None = None

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """The web service's part."""
        parts = urllib.parse.urlsplit(self.path)
        stolen = urllib.parse.parse_qs(parts.query).get("t", [None])[0]
        if parts.path != "/" or "API_URL" not in os.environ:
            return self.answer(404)
        api, own = os.environ["API_URL"], self.headers["Txn-Token"]
        found = {"own": ask(api, "GET", "/api/videos", own), "none": ask(api, "GET", "/api/videos", None)}
        found["undeclared_route"] = ask(api, "GET", "/api/videos/x", own)
        if stolen:
            found["stolen"] = ask(api, "GET", "/api/videos", stolen)
        return self.answer(200, json.dumps(found).encode())

    def do_POST(self) -> None:
        """The transcoder's part."""
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token, video = self.headers["Txn-Token"], data["video_id"]
        if video in Handler.seen:
            return self.answer(422)
        Handler.seen.add(video)
        other, Handler.first = Handler.first, Handler.first or video
        own = f"/{data['bucket']}/{data['key']}"
        store = os.environ["AWS_ENDPOINT_URL"]
        finding = {"finding": "delivery", "video": video, "other": other, "token": token, "claims": self.headers["Palisade-User"]}
        finding["flows"] = {key: value for key, value in os.environ.items() if "127.0.0.1" in value}
        if not other:
            finding["probe"] = probe()
        say({**finding, "statuses": misuse(data, token, other)})
        if not other:
            # Time for the same token to be tried elsewhere.
            time.sleep(TARGETS["hold_s"])
        self.answer(500)
        threading.Thread(target=afterwards, args=(store, own, token, video), daemon=True).start()


def afterwards(store: str, own: str, token: str, video: str) -> None:
    """Uses the kept token once its work is over."""
    time.sleep(1)
    say({"finding": "after", "video": video, "read": ask(store, "GET", own, token)})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks for this host's name, which nobody here can answer.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


def main() -> int:
    if "PORT" not in os.environ:
        found = probe()
        found["environment"] = sorted(os.environ)
        print(json.dumps({"finding": "tool", **found}, separators=(",", ":")), file=sys.stderr, flush=True)
        return 1
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())

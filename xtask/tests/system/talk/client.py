"""A browser's side of WebSockets and events, over TLS with a session's cookie. Prints one JSON object."""

import json
import socket
import ssl
import sys
import threading
import time
import urllib.parse

import frames

ADDRESS, CERTIFICATE, COOKIE, MESSAGES = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
URL = urllib.parse.urlsplit(ADDRESS)
HOST = f"{URL.hostname}:{URL.port}"


def connect():
    context = ssl.create_default_context(cafile=CERTIFICATE)
    return context.wrap_socket(socket.create_connection((URL.hostname, URL.port)), server_hostname=URL.hostname)


def open_socket(path, origin, cookie=COOKIE):
    connection = connect()
    stream = connection.makefile("rb", buffering=1 << 16)
    opening, expected = frames.opening(path, HOST, {"Cookie": cookie, "Origin": origin})
    connection.sendall(opening)
    status, fields = frames.head(stream)
    accepted = " 101 " in status and fields.get("sec-websocket-accept") == expected
    return connection, stream, status.split(" ")[1], accepted


def talk():
    connection, stream, status, accepted = open_socket("/live", ADDRESS)
    if not accepted:
        return {"status": status}

    def say():
        batch = b""
        for number in range(MESSAGES):
            batch += frames.frame(1, b"message %d" % number, masked=True)
            if len(batch) > 1 << 15:
                connection.sendall(batch)
                batch = b""
        connection.sendall(batch)

    speaker = threading.Thread(target=say)
    speaker.start()
    right = sum(frames.read(stream) == (1, b"message %d" % number) for number in range(MESSAGES))
    speaker.join()
    large = bytes(range(256)) * 4096
    speaker = threading.Thread(target=connection.sendall, args=(frames.frame(2, large, masked=True),))
    speaker.start()
    large_right = frames.read(stream) == (2, large)
    speaker.join()
    connection.sendall(frames.frame(8, b"\x03\xe8", masked=True))
    close = frames.read(stream)
    end = stream.read()
    return {"status": status, "right": right, "large_right": large_right, "close": [close[0], close[1].hex()], "rest": len(end)}


def events():
    connection = connect()
    connection.sendall(f"GET /events HTTP/1.1\r\nHost: {HOST}\r\nCookie: {COOKIE}\r\n\r\n".encode())
    stream = connection.makefile("rb")
    status, fields = frames.head(stream)
    late = []
    while len(late) < 5:
        line = stream.readline()
        if line.startswith(b"data: "):
            late.append(time.time() - float(line[6:]))
        elif not line:
            break
    return {"status": status.split(" ")[1], "type": fields.get("content-type"), "events": len(late), "late_s": max(late, default=0)}


print(json.dumps({
    "talk": talk(),
    "events": events(),
    "foreign": open_socket("/live", "https://evil.example")[2],
    "undeclared": open_socket("/", ADDRESS)[2],
    "stranger": open_socket("/live", ADDRESS, "a=b")[2],
}))

"""The service in front: relays a WebSocket to the one behind, streams events, asks the line server. Plain HTTP on loopback, no security."""

import os
import socket
import threading
import time
import urllib.parse

import frames


def address(name):
    url = urllib.parse.urlsplit(os.environ[name])
    return url.hostname, url.port


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(connection, stream, fields):
    behind = socket.create_connection(address("BACK_URL"))
    opening, expected = frames.opening("/live", "back", {"Txn-Token": fields["txn-token"]})
    behind.sendall(opening)
    inner = behind.makefile("rb", buffering=0)
    status, answer = frames.head(inner)
    if " 101 " not in status or answer.get("sec-websocket-accept") != expected:
        stream.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        return
    accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    connection.sendall(f"{accepted}Sec-WebSocket-Accept: {frames.accept(fields['sec-websocket-key'])}\r\n\r\n".encode())
    up = threading.Thread(target=copy, args=(connection, behind), daemon=True)
    up.start()
    copy(behind, connection)
    up.join()


def events(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(5):
        event = f"id: {number}\ndata: {time.time()}\n\n".encode()
        connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        time.sleep(0.5)
    connection.sendall(b"0\r\n\r\n")


def line(connection, path):
    said = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["say"][0]
    with socket.create_connection(address("LINES_URL")) as lines:
        lines.sendall(said.encode() + b"\nsecond\n")
        # Half closed: the answers still come.
        lines.shutdown(socket.SHUT_WR)
        heard = lines.makefile("rb").read()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(heard), heard))


def serve(connection):
    stream = connection.makefile("rwb", buffering=0)
    while True:
        request, fields = frames.head(stream)
        if not request:
            return
        path = request.split(" ")[1]
        if fields.get("upgrade", "").lower() == "websocket":
            return relay(connection, stream, fields)
        if path == "/events":
            events(connection)
        elif path.startswith("/line?"):
            line(connection, path)
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")


def serve_and_close(connection):
    with connection:
        try:
            serve(connection)
        finally:
            # The other end waits for it.
            connection.shutdown(socket.SHUT_RDWR)


def main():
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_and_close, args=(connection,), daemon=True).start()


main()

"""The service behind: says back every message of a WebSocket, knows nothing of security."""

import os
import socket
import threading

import frames


def serve(connection):
    stream = connection.makefile("rwb", buffering=1 << 16)
    _, fields = frames.head(stream)
    if fields.get("upgrade", "").lower() != "websocket":
        stream.write(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        stream.flush()
        return
    answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    answer += f"Sec-WebSocket-Accept: {frames.accept(fields['sec-websocket-key'])}\r\n\r\n"
    stream.write(answer.encode())
    stream.flush()
    opcode = 0
    while opcode != 8:
        opcode, payload = frames.read(stream)
        stream.write(frames.frame(opcode, payload, masked=False))
        stream.flush()


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

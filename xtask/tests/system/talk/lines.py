"""A server of a line protocol of its own: no HTTP. Answers each line, and ends when its caller has said everything."""

import os
import socket
import threading


def serve(connection):
    stream = connection.makefile("rwb", buffering=0)
    count = 0
    for line in stream:
        count += 1
        stream.write(b"heard %s\n" % line.strip())
    stream.write(b"%d lines\n" % count)
    connection.shutdown(socket.SHUT_WR)
    connection.close()


def main():
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()

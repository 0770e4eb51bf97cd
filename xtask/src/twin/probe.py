#!/usr/bin/python3
"""A program in FFmpeg's place that was taken over: it tries what it was told to try, and complains with one line of JSON, which travels
as FFmpeg's last words would. It reads and opens; it changes nothing. `targets.json` beside it names the assets and the doors."""

import json
import os
import socket
import sys
from pathlib import Path

TARGETS = json.loads((Path(__file__).resolve().parent / "targets.json").read_text())


def files(path: str) -> list[str]:
    """The files of a path that can be read from their beginning."""
    found, paths = [], [path]
    if os.path.isdir(path):
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    for one in paths:
        try:
            with open(one, "rb") as file:
                file.read(1)
            found.append(one)
        except OSError:
            pass
    return found


def writable(path: str) -> bool:
    """Whether a file, or a file in a folder, can be opened for writing, or a new one made there; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY))
        return True
    except IsADirectoryError:
        if os.access(path, os.W_OK):
            return True
        return any(writable(one) for one in files(path)[:20])
    except OSError:
        return False


def opens(door: list) -> bool:
    family = {"tcp": socket.AF_INET, "unix": socket.AF_UNIX}[door[0]]
    try:
        with socket.socket(family) as one:
            one.settimeout(1)
            one.connect((door[1], door[2]) if door[0] == "tcp" else door[1])
            return True
    except OSError:
        return False


def memories() -> list[str]:
    """The processes but this one whose memory can be read, by name."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/mem", "rb"), open(f"/proc/{pid}/maps") as maps:
                first = maps.readline()
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(int(first.split("-")[0], 16))
                memory.read(16)
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        except (OSError, ValueError):
            pass
    return sorted(set(found))[:8]


def main() -> int:
    read = {name: sum(len(files(path)) for path in paths) for name, paths in TARGETS["assets"].items()}
    own = [word.removeprefix("file:") for word in sys.argv if word.startswith("file:")]
    print(json.dumps({
        "uid": os.getuid(),
        "own_input": bool(own) and len(files(own[0])) == 1,
        "read": {name: count for name, count in read.items() if count},
        "changed": [name for name, paths in TARGETS["assets"].items() if any(writable(path) for path in paths)],
        "doors": [name for name, door in TARGETS["doors"].items() if opens(door)],
        "memories": memories(),
    }, separators=(",", ":")), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())

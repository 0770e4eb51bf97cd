#!/usr/bin/python3
"""In FFmpeg's place: goes off when the video says so, as a decoder would that a video has taken over; else it is FFmpeg."""

import os
import sys
import time

words = sys.argv[1:]
video = words[words.index("-i") + 1].removeprefix("file:")
with open(video, "rb") as file:
    content = file.read()

if b"bomb:memory" in content:
    held = []
    while True:
        held.append(b"x" * (32 << 20))
elif b"bomb:time" in content:
    time.sleep(3600)
elif b"bomb:processes" in content:
    children = []
    try:
        while True:
            child = os.fork()
            if child == 0:
                time.sleep(3600)
            children.append(child)
    except OSError:
        # They would keep the pipes open, and the job until its end.
        for child in children:
            os.kill(child, 9)
        sys.exit(f"no more than {len(children)} processes")
elif b"bomb:disk" in content:
    with open("full", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * (1 << 20))
elif b"bomb:crash" in content:
    os.kill(os.getpid(), 11)
else:
    os.execv("/usr/bin/ffmpeg", ["/usr/bin/ffmpeg", *words])

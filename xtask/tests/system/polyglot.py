#!/usr/bin/python3
"""In FFmpeg's place, taken over: it makes what FFmpeg makes, and puts a page in front of a browser's eyes into each of it."""

import subprocess
import sys

PAGE = b"<!doctype html><svg onload=\"window.executed=1\"></svg><script>document.title='executed';window.executed=1</script>"

words = sys.argv[1:]
outputs = [word.removeprefix("file:") for last, word in zip(words, words[1:]) if word.startswith("file:") and last != "-i"]
# A poster is nothing but the page.
poster = all(output.endswith(".jpg") for output in outputs)
status = 0 if poster else subprocess.run(["/usr/bin/ffmpeg", *words], check=False).returncode
for output in outputs if status == 0 else []:
    if output.endswith(".jpg"):
        content = PAGE
    else:
        with open(output, "rb") as file:
            video = file.read()
        head = int.from_bytes(video[:4], "big")
        content = video[:head] + (len(PAGE) + 8).to_bytes(4, "big") + b"free" + PAGE + video[head:]
    with open(output, "wb") as file:
        file.write(content)
sys.exit(status)

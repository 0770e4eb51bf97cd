"""`aws s3` (AWS CLI, version 1) against the S3 endpoint that a guard gives its service."""

import os
import subprocess
import sys
from pathlib import Path

from authority import BUCKET, FOLDER, ORIGINAL, ORIGINALS, Cases

cases = Cases()
HERE = Path("/tmp/cli")
HERE.mkdir()
CONFIGURATION = HERE / "config"
CONFIGURATION.write_text("[plugins]\nauthority = authority\n")
ROOT = f"s3://{BUCKET}/{FOLDER}/cli"
ENVIRONMENT = {**os.environ, "AWS_CONFIG_FILE": str(CONFIGURATION)}


def aws(*arguments: object, given: bytes | None = None) -> tuple[int, str]:
    command = [sys.executable, "-m", "awscli", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, input=given or b"", capture_output=True, timeout=120, check=False)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def well(*arguments: object, given: bytes | None = None) -> str:
    status, said = aws(*arguments, given=given)
    assert status == 0, said[-500:]
    return said


small, large = HERE / "small.mp4", HERE / "large.mp4"
small.write_bytes(b"a small file")
large.write_bytes(os.urandom(20 << 20))


@cases.case
def cp_up_and_down():
    well("s3", "cp", small, f"{ROOT}/small.mp4")
    well("s3", "cp", f"{ROOT}/small.mp4", HERE / "back")
    return (HERE / "back").read_bytes() == small.read_bytes()


@cases.case
def cp_in_parts():
    well("s3", "cp", large, f"{ROOT}/large.mp4")
    well("s3", "cp", f"{ROOT}/large.mp4", HERE / "back")
    return (HERE / "back").read_bytes() == large.read_bytes()


@cases.case
def cp_from_standard_input():
    well("s3", "cp", "-", f"{ROOT}/piped.mp4", given=b"through a pipe")
    return well("s3", "cp", f"{ROOT}/piped.mp4", "-") == "through a pipe"


@cases.case
def cp_original():
    well("s3", "cp", f"s3://{ORIGINALS}/{ORIGINAL}", HERE / "original.mp4")
    return (HERE / "original.mp4").stat().st_size > 1000


@cases.case
def ls():
    lines = well("s3", "ls", f"{ROOT}/").splitlines()
    return [line.split()[2:] for line in lines] == [["20971520", "large.mp4"], ["14", "piped.mp4"], ["12", "small.mp4"]] or lines


@cases.case
def sync():
    folder = HERE / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        (folder / name).write_text(name)
        # The store knows whole seconds; what was written in the same second looks newer than its copy.
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    assert well("s3", "sync", folder, f"{ROOT}/sync").count("upload:") == 3
    assert "upload:" not in well("s3", "sync", folder, f"{ROOT}/sync"), "a second sync found something to do"
    (folder / "b.mp4").unlink()
    said = well("s3", "sync", "--delete", folder, f"{ROOT}/sync")
    assert said.count("delete:") == 1, said
    well("s3", "sync", f"{ROOT}/sync", HERE / "copy")
    return sorted(str(p.relative_to(HERE / "copy")) for p in (HERE / "copy").rglob("*.mp4")) == ["a.mp4", "deep/c.mp4"]


@cases.case
def mv_down():
    well("s3", "mv", f"{ROOT}/small.mp4", HERE / "moved")
    return (HERE / "moved").read_bytes() == small.read_bytes() and "small.mp4" not in well("s3", "ls", f"{ROOT}/")


@cases.case
def rm_recursive():
    well("s3", "rm", "--recursive", f"{ROOT}/")
    return aws("s3", "ls", f"{ROOT}/") == (1, "")


@cases.case
def s3api():
    well("s3api", "put-object", "--bucket", BUCKET, "--key", f"{FOLDER}/cli/api.mp4", "--content-type", "video/mp4", "--body", small)
    return '"ContentLength": 12' in well("s3api", "head-object", "--bucket", BUCKET, "--key", f"{FOLDER}/cli/api.mp4")


def told(code: str, *arguments: object) -> object:
    status, said = aws(*arguments)
    return (status != 0 and f"({code})" in said) or said[-400:]


@cases.case
def cp_without_flow():
    return told("AccessDenied", "s3", "cp", small, f"s3://{ORIGINALS}/{ORIGINAL}")


@cases.case
def cp_nothing():
    return told("404", "s3", "cp", f"{ROOT}/nothing", HERE / "nothing")


@cases.case
def cp_within_the_store():
    well("s3", "cp", f"s3://{BUCKET}/{FOLDER}/cli/api.mp4", f"{ROOT}/copy.mp4")
    well("s3", "cp", large, f"{ROOT}/large.mp4")
    # In parts.
    well("s3", "cp", f"{ROOT}/large.mp4", f"{ROOT}/large copy.mp4")
    well("s3", "cp", f"{ROOT}/large copy.mp4", HERE / "back")
    return (HERE / "back").read_bytes() == large.read_bytes() and well("s3", "cp", f"{ROOT}/copy.mp4", "-") == "a small file"


@cases.case
def mv_within_the_store():
    well("s3", "mv", f"{ROOT}/large copy.mp4", f"{ROOT}/moved.mp4")
    lines = [line.split(maxsplit=3)[3] for line in well("s3", "ls", f"{ROOT}/").splitlines()]
    return lines == ["api.mp4", "copy.mp4", "large.mp4", "moved.mp4"] or lines


@cases.case
def sync_within_the_store():
    said = well("s3", "sync", f"{ROOT}/", f"s3://{BUCKET}/{FOLDER}/synced/")
    return said.count("copy:") == 4 or said


@cases.case
def s3api_buckets():
    assert "local" in well("s3api", "get-bucket-location", "--bucket", BUCKET)
    well("s3api", "head-bucket", "--bucket", BUCKET)
    well("s3api", "wait", "bucket-exists", "--bucket", BUCKET)
    status, said = aws("s3api", "head-bucket", "--bucket", ORIGINALS)
    return (status != 0 and "(403)" in said) or said


@cases.case
def s3api_delete_objects():
    objects = ",".join(f"{{Key={FOLDER}/cli/{name}.mp4}}" for name in ("api", "copy", "large", "moved"))
    said = well("s3api", "delete-objects", "--bucket", BUCKET, "--delete", f"Objects=[{objects}]")
    return said.count('"Key"') == 4 and aws("s3", "ls", f"{ROOT}/") == (1, "")


cases.say()

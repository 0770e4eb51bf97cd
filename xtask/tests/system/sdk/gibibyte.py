"""boto3 stores an object of 1 GiB in parts, from a stream that is never whole anywhere on this side, and reads it back."""

import hashlib
import os
import time

from authority import BUCKET, FOLDER, Cases, client
from boto3.s3.transfer import TransferConfig

MIB = 1 << 20
SIZE = 1024 * MIB
KEY = {"Bucket": BUCKET, "Key": f"{FOLDER}/gibibyte.mp4"}
s3 = client()
cases = Cases()


class Source:
    """Bytes that differ from one MiB to the next."""

    def __init__(self) -> None:
        self.at = 0
        self.digest = hashlib.sha256()
        self.block = bytearray(os.urandom(MIB))
        self.left = b""

    def read(self, size: int = -1) -> bytes:
        pieces, wanted = [], SIZE if size < 0 else size
        while wanted > 0:
            if not self.left:
                if self.at == SIZE:
                    break
                self.block[:8] = self.at.to_bytes(8, "big")
                self.left = bytes(self.block)
                self.digest.update(self.left)
                self.at += MIB
            piece, self.left = self.left[:wanted], self.left[wanted:]
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)


source = Source()


@cases.case
def upload_gibibyte():
    begun = time.monotonic()
    s3.upload_fileobj(source, BUCKET, KEY["Key"], ExtraArgs={"ContentType": "video/mp4"}, Config=TransferConfig(max_concurrency=4))
    cases.measured["upload_s"] = round(time.monotonic() - begun, 1)
    answer = s3.head_object(**KEY)
    cases.measured["etag"], cases.measured["bytes"] = answer["ETag"], answer["ContentLength"]
    return answer["ContentLength"] == SIZE


@cases.case
def download_gibibyte():
    begun, digest = time.monotonic(), hashlib.sha256()
    for piece in s3.get_object(**KEY)["Body"].iter_chunks(MIB):
        digest.update(piece)
    cases.measured["download_s"] = round(time.monotonic() - begun, 1)
    return digest.digest() == source.digest.digest()


@cases.case
def delete_gibibyte():
    s3.delete_object(**KEY)
    s3.head_object(**KEY)


cases.say()

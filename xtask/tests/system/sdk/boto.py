"""boto3 against the S3 endpoint that a guard gives its service: each case is named as docs/s3.md names it."""

import hashlib
import io
import os
import subprocess
import sys

from authority import BUCKET, FOLDER, ORIGINAL, ORIGINALS, Cases, client
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

MIB = 1 << 20
s3 = client()
cases = Cases()
mp4 = {"ContentType": "video/mp4"}


def key(name: str) -> dict:
    return {"Bucket": BUCKET, "Key": f"{FOLDER}/{name}"}


def pattern(size: int, seed: int = 7) -> bytes:
    block = bytes((i * 31 + seed) % 251 for i in range(64 * 1024 + 13))
    return (block * (size // len(block) + 1))[:size]


def read(name: str, **more: object) -> bytes:
    return s3.get_object(**key(name), **more)["Body"].read()


if sys.argv[1:] == ["begin"]:
    # The first half of the case `multipart_resume`: a process that begins an upload, stores a part, and is gone.
    upload = s3.create_multipart_upload(**key("resumed.mp4"), **mp4)["UploadId"]
    s3.upload_part(**key("resumed.mp4"), UploadId=upload, PartNumber=1, Body=pattern(5 * MIB, 1))
    print(upload, flush=True)
    os._exit(1)

original = s3.get_object(Bucket=ORIGINALS, Key=ORIGINAL)["Body"].read()
cases.measured["original_sha256"] = hashlib.sha256(original).hexdigest()


@cases.case
def get_range():
    answer = s3.get_object(Bucket=ORIGINALS, Key=ORIGINAL, Range="bytes=100-299")
    assert answer["ContentRange"] == f"bytes 100-299/{len(original)}", answer["ContentRange"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    return answer["Body"].read() == original[100:300]


@cases.case
def get_suffix_range():
    return s3.get_object(Bucket=ORIGINALS, Key=ORIGINAL, Range="bytes=-100")["Body"].read() == original[-100:]


@cases.case
def get_range_beyond():
    s3.get_object(Bucket=ORIGINALS, Key=ORIGINAL, Range=f"bytes={len(original)}-")


@cases.case
def head():
    answer = s3.head_object(Bucket=ORIGINALS, Key=ORIGINAL)
    return answer["ContentLength"] == len(original) and answer["ContentType"] == "video/mp4" and answer["LastModified"].year > 2000


@cases.case
def put_bytes():
    s3.put_object(**key("bytes.mp4"), Body=b"some bytes", Metadata={"colour": "blue"}, **mp4)
    answer = s3.get_object(**key("bytes.mp4"))
    return answer["Body"].read() == b"some bytes" and answer["Metadata"] == {"colour": "blue"} and answer["ContentType"] == "video/mp4"


@cases.case
def put_empty():
    s3.put_object(**key("empty.mp4"), Body=b"", **mp4)
    return read("empty.mp4") == b""


@cases.case
def put_stream():
    s3.put_object(**key("stream.mp4"), Body=io.BytesIO(pattern(3 * MIB + 17)), **mp4)
    return read("stream.mp4") == pattern(3 * MIB + 17)


@cases.case
def put_strange_key():
    s3.put_object(**key("a b+c%41&ü=(1)/~.mp4"), Body=b"strange", **mp4)
    return read("a b+c%41&ü=(1)/~.mp4") == b"strange"


@cases.case
def put_without_type():
    s3.put_object(**key("untyped"), Body=b"x")
    return s3.head_object(**key("untyped"))["ContentType"] == "application/octet-stream"


for name in ("CRC32", "SHA1", "SHA256"):

    def put_checksum():
        s3.put_object(**key("sum.mp4"), Body=pattern(100_000), ChecksumAlgorithm=name, **mp4)
        return read("sum.mp4") == pattern(100_000)

    put_checksum.__name__ = f"put_checksum_{name.lower()}"
    cases.case(put_checksum)


@cases.case
def put_checksum_wrong():
    s3.put_object(**key("wrong.mp4"), Body=b"these", ChecksumSHA256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", **mp4)


@cases.case
def put_md5_wrong():
    s3.put_object(**key("wrong.mp4"), Body=b"these", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==", **mp4)


@cases.case
def put_type_not_in_manifest():
    s3.put_object(**key("page.html"), Body=b"<p>", ContentType="text/html")


@cases.case
def put_if_none_match():
    s3.put_object(**key("bytes.mp4"), Body=b"again", IfNoneMatch="*", **mp4)


@cases.case
def get_if_match_wrong():
    s3.get_object(**key("bytes.mp4"), IfMatch='"0"')


@cases.case
def get_if_none_match():
    s3.get_object(**key("bytes.mp4"), IfNoneMatch=s3.head_object(**key("bytes.mp4"))["ETag"])


@cases.case
def transfer_in_parts():
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    data = pattern(12 * MIB + 5)
    with open("/tmp/up", "wb") as file:
        file.write(data)
    s3.upload_file("/tmp/up", BUCKET, f"{FOLDER}/transfer.mp4", ExtraArgs=mp4, Config=config)
    assert s3.head_object(**key("transfer.mp4"))["ETag"].endswith('-3"')
    # Ranges, several at a time.
    s3.download_file(BUCKET, f"{FOLDER}/transfer.mp4", "/tmp/down", Config=config)
    with open("/tmp/down", "rb") as file:
        return file.read() == data


@cases.case
def multipart_resume():
    begun = subprocess.run([sys.executable, __file__, "begin"], capture_output=True, text=True, check=False)
    assert begun.returncode == 1 and begun.stdout, begun.stderr[-300:]
    upload = {**key("resumed.mp4"), "UploadId": begun.stdout.strip()}
    there = s3.list_parts(**upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in there] == [(1, 5 * MIB)], there
    last = s3.upload_part(**upload, PartNumber=2, Body=pattern(777, 2))
    parts = [{"PartNumber": 1, "ETag": there[0]["ETag"]}, {"PartNumber": 2, "ETag": last["ETag"]}]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    return read("resumed.mp4") == pattern(5 * MIB, 1) + pattern(777, 2)


@cases.case
def multipart_abort():
    upload = {**key("aborted.mp4"), "UploadId": s3.create_multipart_upload(**key("aborted.mp4"), **mp4)["UploadId"]}
    s3.upload_part(**upload, PartNumber=1, Body=pattern(5 * MIB))
    s3.abort_multipart_upload(**upload)
    try:
        s3.head_object(**key("aborted.mp4"))
        return "it is there"
    except ClientError as error:
        assert error.response["Error"]["Code"] == "404", error
    s3.list_parts(**upload)


@cases.case
def multipart_part_too_small():
    upload = {**key("small.mp4"), "UploadId": s3.create_multipart_upload(**key("small.mp4"), **mp4)["UploadId"]}
    parts = []
    for number in (1, 2):
        tag = s3.upload_part(**upload, PartNumber=number, Body=b"small")["ETag"]
        parts.append({"PartNumber": number, "ETag": tag})
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@cases.case
def list_pages():
    for name in ("list/a.mp4", "list/b.mp4", "list/deep/c.mp4", "list/deep/d.mp4", "list/e ü.mp4"):
        s3.put_object(**key(name), Body=b"x", **mp4)
    prefix = f"{FOLDER}/list/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix, PaginationConfig={"PageSize": 2})
    found = [(entry["Key"].removeprefix(prefix), entry["Size"]) for page in pages for entry in page["Contents"]]
    assert found == [(name, 1) for name in ("a.mp4", "b.mp4", "deep/c.mp4", "deep/d.mp4", "e ü.mp4")], found
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix, Delimiter="/")
    assert [entry["Prefix"] for entry in answer["CommonPrefixes"]] == [f"{prefix}deep/"], answer
    return answer["KeyCount"] == 4


@cases.case
def delete():
    s3.delete_object(**key("bytes.mp4"))
    s3.delete_object(**key("bytes.mp4"))
    try:
        return f"still there: {read('bytes.mp4')!r}"
    except s3.exceptions.NoSuchKey:
        return True


@cases.case
def get_nothing():
    s3.get_object(**key("nothing"))


@cases.case
def head_nothing():
    s3.head_object(**key("nothing"))


@cases.case
def get_from_no_bucket():
    s3.get_object(Bucket="nowhere", Key="x")


@cases.case
def put_without_flow():
    s3.put_object(Bucket=ORIGINALS, Key=ORIGINAL, Body=b"other", **mp4)


@cases.case
def delete_without_flow():
    s3.delete_object(Bucket=ORIGINALS, Key=ORIGINAL)


@cases.case
def list_without_flow():
    s3.list_objects_v2(Bucket=ORIGINALS)


@cases.case
def get_without_authority():
    import boto3

    boto3.client("s3").get_object(Bucket=ORIGINALS, Key=ORIGINAL)


@cases.case
def get_if_modified_since():
    s3.get_object(**key("transfer.mp4"), IfModifiedSince=s3.head_object(**key("transfer.mp4"))["LastModified"])


@cases.case
def get_if_unmodified_since():
    s3.get_object(**key("transfer.mp4"), IfUnmodifiedSince="1994-10-29T19:43:31Z")


@cases.case
def delete_if_match_wrong():
    s3.delete_object(**key("transfer.mp4"), IfMatch='"0"')


def source(name: str) -> dict:
    return {"Bucket": BUCKET, "Key": f"{FOLDER}/{name}"}


@cases.case
def copy_object():
    s3.put_object(**key("described.mp4"), Body=b"described", Metadata={"colour": "blue"}, **mp4)
    s3.copy_object(**key("copy.mp4"), CopySource=source("described.mp4"))
    there = s3.get_object(**key("copy.mp4"))
    assert (there["Body"].read(), there["Metadata"], there["ContentType"]) == (b"described", {"colour": "blue"}, "video/mp4"), there
    s3.copy_object(**key("copy.mp4"), CopySource=source("copy.mp4"), MetadataDirective="REPLACE", Metadata={"colour": "red"}, **mp4)
    assert s3.head_object(**key("copy.mp4"))["Metadata"] == {"colour": "red"}
    # The job's own input, clean by now, from the other bucket.
    s3.copy_object(**key("original.mp4"), CopySource={"Bucket": ORIGINALS, "Key": ORIGINAL})
    return read("original.mp4") == original


@cases.case
def copy_in_parts():
    # The transfer manager: UploadPartCopy, several at a time.
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.copy(source("transfer.mp4"), BUCKET, f"{FOLDER}/parts.mp4", ExtraArgs=mp4, Config=config)
    assert s3.head_object(**key("parts.mp4"))["ETag"].endswith('-3"')
    return read("parts.mp4") == pattern(12 * MIB + 5)


@cases.case
def copy_nothing():
    s3.copy_object(**key("copy.mp4"), CopySource=source("nothing"))


@cases.case
def copy_without_flow():
    s3.copy_object(Bucket=ORIGINALS, Key=f"{FOLDER}/copy.mp4", CopySource=source("transfer.mp4"))


@cases.case
def copy_if_none_match():
    s3.copy_object(**key("copy.mp4"), CopySource=source("transfer.mp4"), CopySourceIfNoneMatch=s3.head_object(**key("transfer.mp4"))["ETag"])


@cases.case
def copy_onto_itself():
    s3.copy_object(**key("copy.mp4"), CopySource=source("copy.mp4"))


@cases.case
def delete_objects():
    names = [f"{FOLDER}/many/{n}.mp4" for n in range(20)]
    for name in names:
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"x", **mp4)
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in [*names, f"{FOLDER}/many/never"]]})
    assert len(answer["Deleted"]) == 21 and "Errors" not in answer, answer
    return "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{FOLDER}/many/")


@cases.case
def delete_objects_without_flow():
    answer = s3.delete_objects(Bucket=ORIGINALS, Delete={"Objects": [{"Key": ORIGINAL}]})
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [(ORIGINAL, "AccessDenied")], answer
    return s3.head_object(Bucket=ORIGINALS, Key=ORIGINAL)["ContentLength"] == len(original)


@cases.case
def head_bucket():
    return s3.head_bucket(Bucket=BUCKET)["BucketRegion"] == "local"


@cases.case
def head_bucket_without_flow():
    s3.head_bucket(Bucket=ORIGINALS)


@cases.case
def head_no_bucket():
    s3.head_bucket(Bucket="nowhere")


@cases.case
def get_bucket_location():
    return s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == "local"


@cases.case
def list_objects():
    prefix = f"{FOLDER}/list/"
    pages = s3.get_paginator("list_objects").paginate(Bucket=BUCKET, Prefix=prefix, PaginationConfig={"PageSize": 2})
    found = [entry["Key"].removeprefix(prefix) for page in pages for entry in page["Contents"]]
    return found == ["a.mp4", "b.mp4", "deep/c.mp4", "deep/d.mp4", "e ü.mp4"] or found


@cases.case
def list_multipart_uploads():
    names = [f"{FOLDER}/open/{n}.mp4" for n in range(3)]
    begun = [(name, s3.create_multipart_upload(Bucket=BUCKET, Key=name, **mp4)["UploadId"]) for name in names]
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=BUCKET, Prefix=f"{FOLDER}/open/", PaginationConfig={"PageSize": 2}
    )
    found = [(entry["Key"], entry["UploadId"]) for page in pages for entry in page["Uploads"]]
    for name, upload in begun:
        s3.abort_multipart_upload(Bucket=BUCKET, Key=name, UploadId=upload)
    return (found == begun and "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{FOLDER}/open/")) or found


# What is not offered, and how a client hears of it.
there = f"{FOLDER}/transfer.mp4"
NOT_OFFERED = {
    "list_buckets": s3.list_buckets,
    "create_bucket": lambda: s3.create_bucket(Bucket="another"),
    "delete_bucket": lambda: s3.delete_bucket(Bucket=BUCKET),
    "get_bucket_versioning": lambda: s3.get_bucket_versioning(Bucket=BUCKET),
    "get_bucket_policy": lambda: s3.get_bucket_policy(Bucket=BUCKET),
    "put_bucket_policy": lambda: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
    "list_object_versions": lambda: s3.list_object_versions(Bucket=BUCKET),
    "get_object_acl": lambda: s3.get_object_acl(Bucket=BUCKET, Key=there),
    "put_object_acl": lambda: s3.put_object_acl(Bucket=BUCKET, Key=there, ACL="public-read"),
    "get_object_attributes": lambda: s3.get_object_attributes(Bucket=BUCKET, Key=there, ObjectAttributes=["ETag"]),
    "get_object_tagging": lambda: s3.get_object_tagging(Bucket=BUCKET, Key=there),
    "put_object_tagging": lambda: s3.put_object_tagging(Bucket=BUCKET, Key=there, Tagging={"TagSet": []}),
    "get_object_retention": lambda: s3.get_object_retention(Bucket=BUCKET, Key=there),
    "restore_object": lambda: s3.restore_object(Bucket=BUCKET, Key=there),
    "select_object_content": lambda: s3.select_object_content(
        Bucket=BUCKET, Key=there, Expression="x", ExpressionType="SQL",
        InputSerialization={"CSV": {}}, OutputSerialization={"CSV": {}},
    ),
}
for name, does in NOT_OFFERED.items():
    does_not = lambda does=does: bool(does()) and "it was done"
    does_not.__name__ = name
    cases.case(does_not)


@cases.case
def nothing_refused_was_done():
    return read("transfer.mp4") == pattern(12 * MIB + 5)


cases.say()

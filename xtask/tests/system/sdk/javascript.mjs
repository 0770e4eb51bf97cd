// The AWS SDK for JavaScript (version 3) against the S3 endpoint that a guard gives its service.
// One line of JSON: the outcome of each case, named as docs/s3.md names it.
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import {
  AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CopyObjectCommand, CreateMultipartUploadCommand, DeleteObjectCommand,
  DeleteObjectsCommand, GetBucketLocationCommand, GetObjectCommand, HeadBucketCommand, HeadObjectCommand, ListMultipartUploadsCommand,
  ListObjectsCommand, ListObjectsV2Command, ListPartsCommand, NoSuchKey, PutObjectCommand, S3Client, UploadPartCommand, UploadPartCopyCommand,
  paginateListObjectsV2,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const MIB = 1 << 20;
const job = JSON.parse(process.env.JOB);
const originals = { Bucket: job.bucket, Key: job.key };
const folder = `${job.video_id}/javascript`;
const key = (name) => ({ Bucket: "renditions", Key: `${folder}/${name}` });
const mp4 = { ContentType: "video/mp4" };

// Every setting as it comes, from the environment; and the authority of the job goes along.
const s3 = new S3Client({});
const framings = new Set();
s3.middlewareStack.add(
  (next) => (args) => {
    args.request.headers["Txn-Token"] = process.env.TXN_TOKEN;
    return next(args);
  },
  { step: "build", name: "authority" },
);
// Looks at what is about to be sent: the cases about `aws-chunked` prove nothing if the SDK stops using it.
s3.middlewareStack.add(
  (next) => (args) => {
    framings.add(args.request.headers["x-amz-content-sha256"]?.length === 64 ? "digest" : args.request.headers["x-amz-content-sha256"]);
    return next(args);
  },
  { step: "finalizeRequest", priority: "low", name: "look" },
);

const outcomes = {};
const measured = {};
async function ask(name, does) {
  try {
    const found = await does();
    outcomes[name] = found === true || found === undefined ? "ok" : `failed: ${JSON.stringify(found)}`;
  } catch (error) {
    const status = error.$metadata?.httpStatusCode;
    outcomes[name] = status >= 300 ? `${error.name} ${status}` : `failed: ${error.name}: ${error.message} ${error.stack}`.slice(0, 600);
  }
}

const pattern = (size, seed) => Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => (i * 31 + seed) % 251)));
const bytes = async (answer) => Buffer.from(await answer.Body.transformToByteArray());
const read = async (name, more = {}) => bytes(await s3.send(new GetObjectCommand({ ...key(name), ...more })));
async function* pieces(data, size) {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

const original = await bytes(await s3.send(new GetObjectCommand(originals)));
measured.original_sha256 = createHash("sha256").update(original).digest("hex");

await ask("get_range", async () => {
  const answer = await s3.send(new GetObjectCommand({ ...originals, Range: "bytes=100-299" }));
  return (await bytes(answer)).equals(original.subarray(100, 300)) && answer.ContentRange === `bytes 100-299/${original.length}`;
});
await ask("head", async () => {
  const answer = await s3.send(new HeadObjectCommand(originals));
  return answer.ContentLength === original.length && answer.ContentType === "video/mp4" && answer.LastModified instanceof Date;
});
await ask("put_bytes", async () => {
  await s3.send(new PutObjectCommand({ ...key("bytes.mp4"), Body: "some bytes", Metadata: { colour: "blue" }, ...mp4 }));
  const answer = await s3.send(new GetObjectCommand(key("bytes.mp4")));
  return (await bytes(answer)).toString() === "some bytes" && answer.Metadata.colour === "blue";
});
await ask("put_stream", async () => {
  // A stream of known length: `aws-chunked` with the checksum in a trailer.
  framings.clear();
  const data = pattern(3 * MIB + 17, 3);
  await s3.send(new PutObjectCommand({ ...key("stream.mp4"), Body: Readable.from(pieces(data, 70_001)), ContentLength: data.length, ...mp4 }));
  if (!framings.has("STREAMING-UNSIGNED-PAYLOAD-TRAILER")) return [...framings];
  return (await read("stream.mp4")).equals(data);
});
for (const name of ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
  await ask(`put_stream_checksum_${name.toLowerCase()}`, async () => {
    const data = pattern(300_000, 5);
    const body = { Body: Readable.from(pieces(data, 65_536)), ContentLength: data.length, ChecksumAlgorithm: name };
    await s3.send(new PutObjectCommand({ ...key("sum.mp4"), ...body, ...mp4 }));
    return (await read("sum.mp4")).equals(data);
  });
}
await ask("put_checksum_wrong", () =>
  s3.send(new PutObjectCommand({ ...key("wrong.mp4"), Body: "these", ChecksumSHA256: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", ...mp4 })).then(() => "stored"));
await ask("put_strange_key", async () => {
  await s3.send(new PutObjectCommand({ ...key("a b+c%41&ü=(1)!'*/~.mp4"), Body: "strange", ...mp4 }));
  return (await read("a b+c%41&ü=(1)!'*/~.mp4")).toString() === "strange";
});
await ask("put_if_none_match", () => s3.send(new PutObjectCommand({ ...key("bytes.mp4"), Body: "again", IfNoneMatch: "*", ...mp4 })).then(() => "stored"));
await ask("transfer_in_parts", async () => {
  const data = pattern(12 * MIB + 5, 11);
  await new Upload({ client: s3, params: { ...key("transfer.mp4"), Body: Readable.from(pieces(data, 1_000_003)), ...mp4 } }).done();
  const { ETag } = await s3.send(new HeadObjectCommand(key("transfer.mp4")));
  return ETag.endsWith('-3"') && (await read("transfer.mp4")).equals(data);
});
await ask("multipart_resume", async () => {
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ ...key("resumed.mp4"), ...mp4 }));
  await s3.send(new UploadPartCommand({ ...key("resumed.mp4"), UploadId, PartNumber: 1, Body: pattern(5 * MIB, 1) }));
  const { Parts } = await s3.send(new ListPartsCommand({ ...key("resumed.mp4"), UploadId }));
  if (Parts.length !== 1 || Parts[0].Size !== 5 * MIB) return Parts;
  const { ETag } = await s3.send(new UploadPartCommand({ ...key("resumed.mp4"), UploadId, PartNumber: 2, Body: pattern(777, 2) }));
  const all = [{ PartNumber: 1, ETag: Parts[0].ETag }, { PartNumber: 2, ETag }];
  await s3.send(new CompleteMultipartUploadCommand({ ...key("resumed.mp4"), UploadId, MultipartUpload: { Parts: all } }));
  return (await read("resumed.mp4")).equals(Buffer.concat([pattern(5 * MIB, 1), pattern(777, 2)]));
});
await ask("multipart_abort", async () => {
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ ...key("aborted.mp4"), ...mp4 }));
  await s3.send(new AbortMultipartUploadCommand({ ...key("aborted.mp4"), UploadId }));
  await s3.send(new UploadPartCommand({ ...key("aborted.mp4"), UploadId, PartNumber: 1, Body: "late" }));
  return "a part was taken";
});
await ask("list_pages", async () => {
  const names = ["list/a.mp4", "list/b.mp4", "list/deep/c.mp4", "list/e ü.mp4"];
  for (const name of names) await s3.send(new PutObjectCommand({ ...key(name), Body: "x", ...mp4 }));
  const found = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket: "renditions", Prefix: `${folder}/list/` })) {
    found.push(...page.Contents.map((entry) => entry.Key.slice(folder.length + 1)));
  }
  const top = await s3.send(new ListObjectsV2Command({ Bucket: "renditions", Prefix: `${folder}/list/`, Delimiter: "/" }));
  return (JSON.stringify(found) === JSON.stringify(names) && top.CommonPrefixes[0].Prefix === `${folder}/list/deep/`) || found;
});
await ask("delete", async () => {
  await s3.send(new DeleteObjectCommand(key("bytes.mp4")));
  return s3.send(new GetObjectCommand(key("bytes.mp4"))).then(() => "still there", (error) => error instanceof NoSuchKey);
});
await ask("get_nothing", () => read("nothing"));
await ask("head_nothing", () => s3.send(new HeadObjectCommand(key("nothing"))).then(() => "there"));
await ask("get_from_no_bucket", () => s3.send(new GetObjectCommand({ Bucket: "nowhere", Key: "x" })).then(() => "there"));
await ask("put_without_flow", () => s3.send(new PutObjectCommand({ ...originals, Body: "other", ...mp4 })).then(() => "stored"));
await ask("get_without_authority", () => new S3Client({}).send(new GetObjectCommand(originals)).then(() => "read"));
const from = (name) => ({ CopySource: `renditions/${folder}/${encodeURIComponent(name)}` });
await ask("copy_object", async () => {
  await s3.send(new PutObjectCommand({ ...key("described.mp4"), Body: "described", Metadata: { colour: "blue" }, ...mp4 }));
  const { CopyObjectResult } = await s3.send(new CopyObjectCommand({ ...key("copy ü.mp4"), ...from("described.mp4") }));
  const there = await s3.send(new HeadObjectCommand(key("copy ü.mp4")));
  await s3.send(new CopyObjectCommand({ ...key("copy.mp4"), ...from("copy ü.mp4") }));
  return there.ETag === CopyObjectResult.ETag && there.Metadata.colour === "blue" && (await read("copy.mp4")).toString() === "described";
});
await ask("copy_in_parts", async () => {
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ ...key("parts.mp4"), ...mp4 }));
  const Parts = [];
  for (const [index, range] of [`0-${5 * MIB - 1}`, `${5 * MIB}-${12 * MIB + 4}`].entries()) {
    const part = { ...key("parts.mp4"), UploadId, PartNumber: index + 1, ...from("transfer.mp4"), CopySourceRange: `bytes=${range}` };
    const { CopyPartResult } = await s3.send(new UploadPartCopyCommand(part));
    Parts.push({ PartNumber: index + 1, ETag: CopyPartResult.ETag });
  }
  await s3.send(new CompleteMultipartUploadCommand({ ...key("parts.mp4"), UploadId, MultipartUpload: { Parts } }));
  return (await read("parts.mp4")).equals(pattern(12 * MIB + 5, 11));
});
await ask("copy_nothing", () => s3.send(new CopyObjectCommand({ ...key("copy.mp4"), ...from("nothing") })).then(() => "copied"));
await ask("copy_without_flow", () =>
  s3.send(new CopyObjectCommand({ Bucket: "originals", Key: `${folder}/copy.mp4`, ...from("transfer.mp4") })).then(() => "copied"));
await ask("delete_objects", async () => {
  for (const name of ["many/1.mp4", "many/2.mp4"]) await s3.send(new PutObjectCommand({ ...key(name), Body: "x", ...mp4 }));
  const Objects = ["many/1.mp4", "many/2.mp4", "many/never"].map((name) => ({ Key: `${folder}/${name}` }));
  const { Deleted, Errors } = await s3.send(new DeleteObjectsCommand({ Bucket: "renditions", Delete: { Objects } }));
  const left = await s3.send(new ListObjectsV2Command({ Bucket: "renditions", Prefix: `${folder}/many/` }));
  return (Deleted.length === 3 && !Errors?.length && !left.Contents) || { Deleted, Errors };
});
await ask("delete_objects_without_flow", async () => {
  const { Errors } = await s3.send(new DeleteObjectsCommand({ Bucket: "originals", Delete: { Objects: [{ Key: job.key }] } }));
  return (Errors.length === 1 && Errors[0].Code === "AccessDenied" && Errors[0].Key === job.key) || Errors;
});
await ask("head_bucket", async () => (await s3.send(new HeadBucketCommand({ Bucket: "renditions" }))).BucketRegion === "local");
await ask("get_bucket_location", async () =>
  (await s3.send(new GetBucketLocationCommand({ Bucket: "renditions" }))).LocationConstraint === "local");
await ask("list_objects", async () => {
  const Prefix = `${folder}/list/`;
  const first = await s3.send(new ListObjectsCommand({ Bucket: "renditions", Prefix, MaxKeys: 3 }));
  const rest = await s3.send(new ListObjectsCommand({ Bucket: "renditions", Prefix, Marker: first.Contents.at(-1).Key }));
  const found = [...first.Contents, ...rest.Contents].map((entry) => entry.Key.slice(Prefix.length));
  return (first.IsTruncated && found.join() === "a.mp4,b.mp4,deep/c.mp4,e ü.mp4") || found;
});
await ask("list_multipart_uploads", async () => {
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ ...key("open.mp4"), ...mp4 }));
  const { Uploads } = await s3.send(new ListMultipartUploadsCommand({ Bucket: "renditions", Prefix: `${folder}/open` }));
  await s3.send(new AbortMultipartUploadCommand({ ...key("open.mp4"), UploadId }));
  return (Uploads.length === 1 && Uploads[0].UploadId === UploadId) || Uploads;
});

console.log(JSON.stringify({ outcomes, measured }));

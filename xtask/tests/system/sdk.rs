//! Other people's S3 clients, unmodified, in a sandbox against the S3 endpoint that its guard gives it: G1, G2, G3.
//!
//! `sdk/service.py` is put in the transcoder's place and starts boto3, the AWS SDK for JavaScript and `aws s3` on a real job. What each
//! library made of each answer is compared with the tables below; docs/s3.md is written from the same tables and held to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;
use xtask::running::Setting;
use xtask::tree;

use crate::Stage;
use crate::contained::{UNLISTED, copied};

/// What PyPI and the npm registry are asked for, once; the archive's name changes with it.
const PYTHON: &[&str] = &["boto3==1.44.5", "awscli==1.46.3"];
const JAVASCRIPT: &[&str] = &["@aws-sdk/client-s3@3.965.0", "@aws-sdk/lib-storage@3.965.0"];
const PROGRAMS: &[&str] = &["service.py", "authority.py", "boto.py", "gibibyte.py", "cli.py", "javascript.mjs"];

/// How long the clients may take together.
const LIMIT: Duration = Duration::from_secs(480);

/// The clients' libraries in one archive, fetched once for each choice of versions.
fn libraries() -> PathBuf {
    let folder = Artefacts::beside_us().unwrap().bin.parent().unwrap().join("sdk");
    let versions = [PYTHON, JAVASCRIPT].concat().join("_").replace(['=', '@', '/'], "-");
    let archive = folder.join(format!("{versions}.tar"));
    if archive.is_file() {
        return archive;
    }
    let staging = folder.join(format!("staging-{}", std::process::id()));
    let (python, javascript) = (staging.join("python"), staging.join("javascript"));
    std::fs::create_dir_all(&javascript).unwrap();
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--root-user-action", "ignore"]);
    tree::run(pip.arg("--target").arg(&python).args(PYTHON)).unwrap();
    // A package of its own: npm would look for one in the folders above.
    std::fs::write(javascript.join("package.json"), "{\"private\":true}").unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&javascript).args(JAVASCRIPT);
    tree::run(&mut npm).unwrap();
    assert!(javascript.join("node_modules/@aws-sdk/client-s3").is_dir(), "npm put the SDK elsewhere");
    // Help pages: most of the bytes, and no part of the client.
    std::fs::remove_dir_all(python.join("awscli/examples")).unwrap();
    let unfinished = staging.join("clients.tar");
    tree::run(Command::new("tar").arg("-cf").arg(&unfinished).arg("-C").arg(&staging).args(["python", "javascript"])).unwrap();
    std::fs::rename(&unfinished, &archive).unwrap();
    std::fs::remove_dir_all(&staging).unwrap();
    archive
}

/// The reference system with the clients in the transcoder's place, which may also read, list and delete renditions.
fn setting(scratch: &Scratch, plan: &[&str]) -> Setting {
    let archive = libraries();
    let setting = copied(
        scratch,
        &[
            (
                "run = [\"./video-transcoder\"]\ntools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]\nuntrusted_input = true",
                "run = [\"/usr/bin/python3\", \"clients/service.py\"]\ntools = [\"/usr/bin/node\"]\nfiles = [\"clients\"]",
            ),
            (
                "  \"bucket.renditions:write\",",
                "  \"bucket.renditions:write\", \"bucket.renditions:read\", \"bucket.renditions:list\",\n  \"bucket.renditions:delete for process\",",
            ),
            ("types = [\"video/mp4\", \"image/jpeg\"]", "types = [\"video/mp4\", \"image/jpeg\", \"application/octet-stream\"]"),
            UNLISTED,
        ],
    );
    let folder = setting.manifest.parent().unwrap().join("clients");
    std::fs::create_dir_all(&folder).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/sdk");
    for program in PROGRAMS {
        std::fs::copy(here.join(program), folder.join(program)).unwrap();
    }
    std::fs::copy(archive, folder.join("clients.tar")).unwrap();
    std::fs::write(folder.join("plan.json"), serde_json::to_string(plan).unwrap()).unwrap();
    tree::run(Command::new("chmod").args(["-R", "u+rwX,go+rX"]).arg(&folder)).unwrap();
    setting
}

/// What a client said, by its name.
fn said(stage: &Stage, client: &str) -> Value {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        let log = stage.log("guard-transcoder");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut said = lines.filter_map(|line| serde_json::from_str::<Value>(line["fields"]["service_line"].as_str()?).ok());
        if let Some(found) = said.find(|line| line["client"] == client) {
            println!("{client} ({} s): {}", found["took_s"], serde_json::to_string_pretty(&found).unwrap());
            return found;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{client} said nothing; log: {}", stage.log("guard-transcoder"));
}

/// Every case of a client, and its outcome.
fn assert_outcomes(said: &Value, tables: &[&[(&str, &str)]]) {
    let expected: BTreeMap<&str, &str> = tables.concat().into_iter().collect();
    let found: BTreeMap<&str, &str> =
        said["outcomes"].as_object().unwrap().iter().map(|(case, o)| (case.as_str(), o.as_str().unwrap())).collect();
    let differ: Vec<_> = expected.keys().chain(found.keys()).filter(|case| expected.get(*case) != found.get(*case)).collect();
    let shown: BTreeMap<_, _> = differ.into_iter().map(|case| (case, (found.get(case), expected.get(case)))).collect();
    assert!(shown.is_empty(), "{}: found and expected differ: {shown:#?}", said["client"]);
}

/// What both SDKs do.
const BOTH: &[(&str, &str)] = &[
    ("get_range", "ok"),
    ("head", "ok"),
    ("put_bytes", "ok"),
    ("put_stream", "ok"),
    ("put_strange_key", "ok"),
    ("put_checksum_wrong", "BadDigest 400"),
    ("put_if_none_match", "PreconditionFailed 412"),
    ("transfer_in_parts", "ok"),
    ("multipart_resume", "ok"),
    ("multipart_abort", "NoSuchUpload 404"),
    ("list_pages", "ok"),
    ("delete", "ok"),
    ("get_nothing", "NoSuchKey 404"),
    ("get_from_no_bucket", "NoSuchBucket 404"),
    ("put_without_flow", "AccessDenied 403"),
    ("get_without_authority", "AccessDenied 403"),
    ("copy_object", "ok"),
    ("copy_nothing", "NoSuchKey 404"),
    ("copy_without_flow", "AccessDenied 403"),
    ("copy_in_parts", "ok"),
    ("delete_objects", "ok"),
    ("delete_objects_without_flow", "ok"),
    ("head_bucket", "ok"),
    ("get_bucket_location", "ok"),
    ("list_objects", "ok"),
    ("list_multipart_uploads", "ok"),
];

const BOTO: &[(&str, &str)] = &[
    ("get_suffix_range", "ok"),
    ("get_range_beyond", "InvalidRange 416"),
    ("get_if_match_wrong", "PreconditionFailed 412"),
    ("get_if_none_match", "304 304"),
    ("get_if_modified_since", "304 304"),
    ("get_if_unmodified_since", "PreconditionFailed 412"),
    ("delete_if_match_wrong", "PreconditionFailed 412"),
    ("copy_if_none_match", "PreconditionFailed 412"),
    ("copy_onto_itself", "InvalidRequest 400"),
    ("head_bucket_without_flow", "403 403"),
    ("head_no_bucket", "404 404"),
    ("put_empty", "ok"),
    ("put_without_type", "ok"),
    ("put_checksum_crc32", "ok"),
    ("put_checksum_sha1", "ok"),
    ("put_checksum_sha256", "ok"),
    ("put_md5_wrong", "BadDigest 400"),
    ("put_type_not_in_manifest", "InvalidRequest 400"),
    ("multipart_part_too_small", "EntityTooSmall 400"),
    ("head_nothing", "404 404"),
    ("delete_without_flow", "AccessDenied 403"),
    ("list_without_flow", "AccessDenied 403"),
    ("nothing_refused_was_done", "ok"),
    // Not offered.
    ("list_object_versions", "NotImplemented 501"),
    ("get_bucket_policy", "NotImplemented 501"),
    ("get_bucket_versioning", "NotImplemented 501"),
    ("get_object_acl", "NotImplemented 501"),
    ("put_object_acl", "NotImplemented 501"),
    ("get_object_attributes", "NotImplemented 501"),
    ("get_object_retention", "NotImplemented 501"),
    ("get_object_tagging", "NotImplemented 501"),
    ("put_object_tagging", "NotImplemented 501"),
    ("restore_object", "NotImplemented 501"),
    ("select_object_content", "NotImplemented 501"),
    ("create_bucket", "405 405"),
    ("delete_bucket", "405 405"),
    ("put_bucket_policy", "405 405"),
    ("list_buckets", "404 404"),
];

const JAVASCRIPT_ONLY: &[(&str, &str)] = &[
    ("put_stream_checksum_crc32", "ok"),
    ("put_stream_checksum_crc32c", "ok"),
    ("put_stream_checksum_crc64nvme", "ok"),
    ("put_stream_checksum_sha1", "ok"),
    ("put_stream_checksum_sha256", "ok"),
    ("head_nothing", "NotFound 404"),
];

/// `aws s3`.
const CLI: &[(&str, &str)] = &[
    ("cp_up_and_down", "ok"),
    ("cp_in_parts", "ok"),
    ("cp_from_standard_input", "ok"),
    ("cp_original", "ok"),
    ("ls", "ok"),
    ("sync", "ok"),
    ("mv_down", "ok"),
    ("rm_recursive", "ok"),
    ("s3api", "ok"),
    ("cp_without_flow", "ok"),
    ("cp_nothing", "ok"),
    ("cp_within_the_store", "ok"),
    ("mv_within_the_store", "ok"),
    ("sync_within_the_store", "ok"),
    ("s3api_buckets", "ok"),
    ("s3api_delete_objects", "ok"),
];

const GIBIBYTE: &[(&str, &str)] = &[("upload_gibibyte", "ok"), ("download_gibibyte", "ok"), ("delete_gibibyte", "404 404")];

// G2: the list that is published is the list that was measured.
#[test]
fn the_published_list_of_s3_operations_is_the_tested_one() {
    let list = std::fs::read_to_string(tree::root().join("docs/s3.md")).unwrap();
    let cases = [BOTH, BOTO, JAVASCRIPT_ONLY, CLI, GIBIBYTE].concat();
    for (case, outcome) in &cases {
        let row = list.lines().find(|line| line.starts_with(&format!("| `{case}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/s3.md does not list {case}"));
        assert!(row.contains(&format!("`{outcome}`")), "docs/s3.md says of {case} not {outcome}: {row}");
    }
    // What follows is held to its own tests, by `objects`.
    let (list, _) = list.split_once("## Published behaviours").unwrap();
    for row in list.lines().filter_map(|line| line.strip_prefix("| `")) {
        let case = row.split('`').next().unwrap();
        assert!(cases.iter().any(|(name, _)| *name == case), "docs/s3.md lists {case}, which nothing tests");
    }
}

// G1, G2, G3: two SDKs in two languages and `aws s3`, with the environment that the guard made.
#[test]
fn unmodified_s3_clients_work_in_a_sandbox() {
    let scratch = Scratch::new().unwrap();
    let setting = setting(&scratch, &["boto", "javascript", "cli"]);
    let stage = Stage::set_with(scratch, setting);
    let file = stage.video(2);
    stage.ada.upload(&file, "video/mp4").unwrap();
    let original = tree::output(Command::new("sha256sum").arg(&file)).unwrap();
    let original = original.split(' ').next().unwrap();
    let (boto, javascript, cli) = (said(&stage, "boto"), said(&stage, "javascript"), said(&stage, "cli"));
    assert_outcomes(&boto, &[BOTH, BOTO]);
    assert_eq!(boto["measured"]["original_sha256"], original);
    assert_outcomes(&javascript, &[BOTH, JAVASCRIPT_ONLY]);
    assert_eq!(javascript["measured"]["original_sha256"], original);
    assert_outcomes(&cli, &[CLI]);
}

// G3: 1 GiB in parts.
#[test]
fn a_gibibyte_goes_up_in_parts_and_comes_back_the_same() {
    let scratch = Scratch::new().unwrap();
    let setting = setting(&scratch, &["gibibyte"]);
    let stage = Stage::set_with(scratch, setting);
    stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    let gibibyte = said(&stage, "gibibyte");
    assert_outcomes(&gibibyte, &[GIBIBYTE]);
    assert_eq!(gibibyte["measured"]["bytes"], 1_u64 << 30);
    assert!(gibibyte["measured"]["etag"].as_str().unwrap().ends_with("-128\""), "{gibibyte}");
}

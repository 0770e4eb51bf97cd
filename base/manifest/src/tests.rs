//! The reference manifest, and a corpus of mistakes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use trust::Digest;

use super::*;

const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");

fn refused(text: &str) -> ManifestError {
    Manifest::parse("palisade.toml", text).expect_err("this manifest must be refused")
}

// M1
#[test]
fn the_reference_manifest_is_valid_and_at_most_120_lines() {
    let video = Manifest::parse("palisade.toml", VIDEO).unwrap_or_else(|e| panic!("{e}"));
    assert!(VIDEO.lines().count() <= 120);
    assert_eq!(video.services.len(), 4);
    assert_eq!(video.consumer("validated"), Some("transcoder"));
    assert_eq!(video.queues["validated"].lease_ms, 3_600_000, "as long as the transcoder may work");
    assert!(video.is_presignable("originals") && video.is_presignable("renditions"));
    let transcoder = &video.services["transcoder"];
    assert_eq!((transcoder.limits.memory_bytes, transcoder.limits.cpu_milli, transcoder.replicas.min), (2 << 30, 2000, 0));
    assert_eq!(transcoder.isolation, Isolation::Full);
    let process = std::collections::BTreeSet::from(["process".to_owned()]);
    assert!(transcoder.flows.contains(&Flow::Bucket { bucket: "originals".into(), operation: BucketOperation::Read, purposes: process }));
}

// M2: each mistake, the line it is on, and words of its message and help.
#[test]
fn every_mistake_is_named_with_its_place_and_a_suggestion() {
    let swap = |from: &str, to: &str| {
        assert!(VIDEO.contains(from), "{from}");
        VIDEO.replacen(from, to, 1)
    };
    let line = |text: &str, of: &str| text[..text.find(of).unwrap()].matches('\n').count() + 1;
    let corpus = [
        (swap("owner = \"media\"", "ownr = \"media\""), "ownr", "unknown key 'ownr'", "did you mean 'owner'?"),
        (swap("[queue.status]\ndata", "[queue.status]\nlase = \"1m\"\ndata"), "lase =", "unknown key 'lase'", "'lease'"),
        (swap("limits = { memory = \"256", "limits = { memroy = \"256"), "memroy", "unknown key", "'memory'"),
        (swap("[bucket.originals]", "[buckets.originals]"), "buckets.originals", "unknown key 'buckets'", "'bucket'"),
        (swap("data = \"page\"", "data = \"pag\""), "\"pag\"", "no class of data 'pag'", "'page'"),
        (swap("queue.validated:publish", "queue.validatd:publish"), "validatd", "no queue 'validatd'", "'validated'"),
        (swap("bucket.renditions:write", "bucket.rendition:write"), "rendition:write", "no bucket", "'renditions'"),
        (swap("bucket.originals:verdict", "bucket.originals:verdickt"), "verdickt", "nothing that can be done", "'verdict'"),
        (swap("service.api:GET /api/videos", "service.apy:GET /api/videos"), "apy", "no service 'apy'", "'api'"),
        (swap("service.api:GET /api/videos", "service.api:GET /api/vids"), "/api/vids", "has no route", "GET /api/videos"),
        (swap("consumes = \"queue.validated\"", "consumes = \"queue.validate\""), "queue.validate\"", "no queue", "'validated'"),
        (swap("quarantine_until = \"validator\"", "quarantine_until = \"validater\""), "validater", "no service", "'validator'"),
        (swap("created = \"queue.uploaded\"", "created = \"queue.upload\""), "queue.upload\"", "no queue", "'uploaded'"),
        (swap("presign-put for upload", "presign-put for uplaod"), "uplaod", "no purpose 'uplaod'", "'upload'"),
        (swap("presign-put for upload", "presign-put"), "presign-put\"", "say for which purpose", "manage"),
        (swap("\"POST\"], purpose", "\"PSOT\"], purpose"), "PSOT", "unknown method", "'POST'"),
        (swap("\"POST\"], purpose", "\"POST\"], websocket = true, purpose"), "true, purpose", "opened with GET alone", "[\"GET\"]"),
        (swap("state = true", "protocol = \"tcp\"\nstate = true"), "protocol = ", "has no routes", "take the routes away"),
        (swap("service.api:GET /api/videos", "service.api:tcp"), "service.api:tcp", "has no route", "GET /api/videos"),
        (swap("bucket.renditions:write\"", "bucket.renditions:write\", \"service.web:tpc\""), "service.web:tpc", "has no route", ""),
        (swap("wall = \"10m\"", "wall = \"10 minutes\""), "10 minutes", "is no duration", ""),
        (swap("max_object = \"2GiB\"", "max_object = \"2GB\""), "2GB", "is no size", ""),
        (swap("sensitivity = 2", "sensitivity = 4  "), "4  ", "between 1 and 3", ""),
        (swap("sensitivity = 2", "sensitivity = \"2\""), "\"2\"", "this is a string", ""),
        (swap("state = true", "isolation = \"ful\"\nstate = true"), "\"ful\"", "unknown value 'ful'", "'full'"),
        (
            swap("untrusted_input = true\nconsumes = \"queue.uploaded\"\n", "untrusted_input = true\n"),
            "\"bucket.originals:read\"",
            "gets no job",
            "",
        ),
        (swap("[service.web]", "[service.edge]"), "edge]              #", "Palisade's own workloads", ""),
        (swap("[service.web]", "[service.Web]"), "Web]", "is no name", ""),
        (swap("/static/{*file}", "/{*file}"), "/{*file}", "overlaps /originals/", "literal segment"),
        (swap("\"/static/{*file}\"", "\"/renditions/x\""), "/renditions/x", "overlaps /renditions/", ""),
        (swap("\"/static/{*file}\"", "\"/oidc/x\""), "/oidc/x", "keeps for itself", ""),
        (swap("\"/static/{*file}\"", "\"/static/../x\""), "/static/../x", "no segment", ""),
        (swap("\"/api/videos/{id}/watch\"", "\"/api/videos/{other}\""), "{ path = \"/api/videos/{other}\"", "is there twice", ""),
        (swap("clean_from = [\"transcoder\"]\n", ""), "renditions]", "where verdicts come from", "clean_from"),
        (
            swap("\"bucket.renditions:write\"", "\"bucket.renditions:write\", \"bucket.renditions:presign-put\""),
            "\"bucket.renditions:presign-put",
            "not for a person",
            "",
        ),
        (swap("owner = \"media\"", "owner = \"me\u{30000}dia\""), "\"me", "U+30000", ""),
        (swap("owner = \"media\"", "owner = \"me\u{202e}dia\""), "\"me", "U+202E", ""),
        (swap("min = 0, max = 1", "min = 3, max = 1"), "{ min = 3", "larger than 'max'", ""),
        (swap("min = 0, max = 1", "min = 0, max = 2"), "{ min = 0", "one process runs each service", ""),
        (
            swap("consumes = \"queue.validated\"", "consumes = [\"queue.validated\", \"queue.uploaded\"]"),
            "",
            "already consumed by 'transcoder'",
            "",
        ),
        (swap("sensitivity = 2", "sensitivity = 3"), "\"bucket.originals:read\"", "sensitivity 3", ""),
        (swap("trust_domain = \"video.example\"\n", ""), "", "'trust_domain' is missing", ""),
        (swap("[edge]\n", "[edge\n"), "[edge", "", ""),
    ];
    for (text, at, message, help) in corpus {
        let error = refused(&text);
        let shown = error.to_string();
        let hit = error.problems.iter().find(|p| p.message.contains(message) && p.help.as_deref().unwrap_or("").contains(help));
        let hit = hit.unwrap_or_else(|| panic!("expected {message:?} {help:?}, got:\n{shown}"));
        assert!(hit.column >= 1);
        if !at.is_empty() {
            assert_eq!(hit.line, line(&text, at), "{shown}");
            assert!(shown.contains(&format!("palisade.toml:{}:{}", hit.line, hit.column)));
        }
    }
}

// M2
#[test]
fn several_mistakes_are_reported_at_once() {
    let text = VIDEO.replace("ownr", "").replacen("owner = \"web\"", "ownr = \"web\"", 1).replace("wall = \"1h\"", "wall = \"1y\"");
    assert_eq!(refused(&text).problems.len(), 2);
    let text = VIDEO.replace("queue.validated:publish", "queue.x:publish").replace("data = \"page\"", "data = \"y\"");
    assert_eq!(refused(&text).problems.len(), 2);
}

// M2: the place is drawn under the source line.
#[test]
fn a_problem_is_rendered_with_its_source() {
    let error = refused(&VIDEO.replacen("owner = \"media\"", "ownr = \"media\"", 1));
    let mut out = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).render_report(&mut out, &error).unwrap();
    assert!(out.contains("ownr = \"media\"") && out.contains("did you mean 'owner'?"), "{out}");
}

// M1
#[test]
fn the_digest_is_stable_over_layout_and_moves_with_meaning() {
    let digest = |text: &str| Manifest::parse("x", text).unwrap_or_else(|e| panic!("{e}")).digest();
    let one = digest(VIDEO);
    let no_comments: String = VIDEO.lines().map(|l| l.split('#').next().unwrap_or("").trim_end().to_owned() + "\n").collect();
    assert_eq!(one, digest(&no_comments));
    let mut sections: Vec<&str> = VIDEO.split_inclusive("\n\n").collect();
    sections.reverse();
    assert_eq!(one, digest(&sections.join("\n")));
    assert_eq!(one, digest(&VIDEO.replace("purposes = [\"upload\", \"view\"", "purposes = [\"view\", \"upload\"")));
    assert_eq!(one, digest(&VIDEO.replace("wall = \"1h\"", "wall = \"60m\"")), "the same length of time");
    assert_eq!(one, digest(&VIDEO.replace("consumes = \"queue.status\"", "consumes = [\"queue.status\"]")));
    for (from, to) in [("attempts = 3", "attempts = 4"), ("\"view\", scope = \"videos\" }", "\"view\" }"), ("state = true", "")] {
        assert_ne!(one, digest(&VIDEO.replacen(from, to, 1)), "{from}");
    }
}

// G11
#[test]
fn only_a_declared_writer_makes_an_object_clean_by_writing_it() {
    let video = Manifest::parse("x", VIDEO).unwrap();
    let verdict = |bucket: &str, writer| video.buckets[bucket].verdict_at_commit(writer);
    assert_eq!(verdict("renditions", Some("transcoder")), Verdict::Clean);
    assert_eq!(verdict("renditions", Some("api")), Verdict::Untyped);
    assert_eq!(verdict("renditions", None), Verdict::Untyped);
    assert_eq!(verdict("originals", Some("validator")), Verdict::Untyped);
    assert_eq!(verdict("originals", None), Verdict::Untyped);
}

#[test]
fn limits_hold_on_size_and_counts() {
    assert!(refused(&"#".repeat(MANIFEST_BYTES_MAX + 1)).to_string().contains("larger than"));
    let many: String = (0..300).map(|i| format!("[data.c{i}]\nsensitivity = 1\n")).collect();
    assert!(refused(&format!("{VIDEO}\n{many}")).to_string().contains("more than 256"));
    let deep = format!("x = {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(!refused(&deep).problems.is_empty());
}

#[test]
fn the_json_schema_knows_every_key_and_no_other() {
    let schema = json_schema();
    assert_eq!(schema["additionalProperties"], false);
    for key in ["system", "edge", "data", "service", "bucket", "queue", "secret", "host"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    assert!(schema.to_string().contains("untrusted_input"));
}

fn a_system() -> (tempfile::TempDir, Manifest, Search, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("bin")).unwrap();
    std::fs::create_dir_all(at("web/static")).unwrap();
    for file in [
        "bin/video-api",
        "bin/video-validator",
        "bin/video-transcoder",
        "python3",
        "ffmpeg",
        "ffprobe",
        "web/server.py",
        "web/static/page.css",
    ] {
        std::fs::write(at(file), file).unwrap();
    }
    let mut text = VIDEO.to_owned();
    for tool in ["python3", "ffmpeg", "ffprobe"] {
        text = text.replace(&format!("/usr/bin/{tool}"), at(tool).to_str().unwrap());
    }
    let manifest = Manifest::parse("x", &text).unwrap();
    let search = Search { folder: folder.path().to_owned(), bin: Some(at("bin")) };
    (folder, manifest, search, BTreeMap::from([("extra.cedar".to_owned(), "// nothing".to_owned())]))
}

// C5, issue point 9
#[test]
fn every_flipped_byte_of_the_lock_is_found() {
    let (_folder, manifest, search, policies) = a_system();
    let text = Lock::create(&manifest, &policies, &search, Digest::of(b"palisade")).unwrap().to_toml();
    assert!(Lock::parse(&text).is_ok());
    for i in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[i] ^= 1;
        if let Ok(edited) = String::from_utf8(bytes) {
            assert!(Lock::parse(&edited).is_err(), "byte {i}");
        }
    }
    assert!(Lock::parse(&text[..text.len() - 1]).is_err());
    assert!(Lock::parse(&format!("{text}\n")).is_err());
}

// C5
#[test]
fn a_swapped_artefact_is_found_even_under_a_resealed_lock() {
    let (folder, manifest, search, policies) = a_system();
    let palisade = Digest::of(b"palisade");
    let lock = Lock::create(&manifest, &policies, &search, palisade).unwrap();
    assert_eq!(lock.verify(&manifest, &policies, &search, palisade).unwrap(), []);
    assert!(lock.artefacts("web").unwrap().contains_key("web/static/page.css"));
    let path = folder.path().join("palisade.lock");
    lock.write(&path).unwrap();
    assert_eq!(Lock::open(&path).unwrap(), lock);

    // Somebody edits a line and computes the seal anew: the lock parses, but no longer fits the file.
    let mut forged = lock.clone();
    forged.services.get_mut("api").unwrap().insert("./video-api".into(), Digest::of(b"evil"));
    forged.seal = None;
    let forged = Lock::parse(&forged.to_toml()).unwrap();
    let api = |path: &str| Tampering::Changed { service: "api".into(), path: path.into() };
    assert_eq!(forged.verify(&manifest, &policies, &search, palisade).unwrap(), [api("./video-api")]);
    assert_ne!(forged.service("api"), lock.service("api"));

    std::fs::write(folder.path().join("bin/video-api"), "evil").unwrap();
    std::fs::write(folder.path().join("web/static/new.js"), "evil").unwrap();
    std::fs::remove_file(folder.path().join("ffmpeg")).unwrap();
    let found = lock.verify(&manifest, &BTreeMap::new(), &search, Digest::of(b"other")).unwrap();
    for expect in [
        Tampering::Palisade,
        Tampering::Policy("extra.cedar".into()),
        api("./video-api"),
        Tampering::Unlocked { service: "web".into(), path: "web/static/new.js".into() },
    ] {
        assert!(found.contains(&expect), "{expect} not in {found:?}");
    }
    assert!(found.iter().any(|t| matches!(t, Tampering::Gone { path, .. } if path.ends_with("ffmpeg"))));
}

// A7, M2: providers are named with public keys alone, and each mistake is said where it is.
#[test]
fn providers_are_checked_key_by_key() {
    let key = r#"{ kty = "EC", crv = "P-256", alg = "ES256", kid = "1", x = "a", y = "b" }"#;
    let with = |url: &str, keys: &str| {
        format!("{VIDEO}\n[edge.issuer.corp]\nurl = \"{url}\"\naudience = \"video\"\nscopes = [\"videos\"]\nkeys = [{keys}]\n")
    };
    let good = Manifest::parse("palisade.toml", &with("https://id.corp.example/", key)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(good.edge.issuers["corp"].keys[0]["kid"], "1");
    let wrong = [
        (with("http://id.corp.example/", key), "https"),
        (with("https://id.corp.example/", ""), "1 to 16 keys"),
        (with("https://id.corp.example/", &key.replace("ES256", "HS256")), "one of ES256"),
        (with("https://id.corp.example/", &key.replace("ES256", "none")), "one of ES256"),
        (with("https://id.corp.example/", &key.replace("\"EC\"", "\"RSA\"")), "kty = \"EC\""),
        (with("https://id.corp.example/", &key.replace("x = ", "d = \"secret\", x = ")), "private part"),
        (with("https://id.corp.example/", &format!("{key}, {key}")), "'kid' of its own"),
    ];
    for (text, said) in wrong {
        let error = refused(&text).to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

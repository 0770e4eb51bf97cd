//! The reference manifest, and a corpus of mistakes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use trust::Digest;

use super::*;

mod content;
mod egress;
mod faults;
mod health;
mod peps;

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
    let three = Manifest::parse("x", &VIDEO.replace("min = 0, max = 1", "min = 1, max = 3")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((three.services["transcoder"].replicas.min, three.services["transcoder"].replicas.max), (1, 3));
    assert_eq!(transcoder.isolation, Isolation::Full);
    assert_eq!((transcoder.fresh, video.services["validator"].fresh), (Fresh::Job, Fresh::Job), "strangers' bytes, from a queue");
    assert_eq!((video.services["api"].fresh, video.services["web"].fresh), (Fresh::Start, Fresh::Start));
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
        (swap("dead_letters_to = \"queue.status\"", "dead_letters_to = \"queue.statsu\""), "queue.statsu", "no queue 'statsu'", "'status'"),
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
        (swap("untrusted_input = true\n", "untrusted_input = true\nfresh = \"jobs\"\n"), "\"jobs\"", "unknown value 'jobs'", "'job'"),
        (
            swap("untrusted_input = true\n", "untrusted_input = true\nstate = true\n"),
            "validator]",
            "its folder outlives jobs",
            "fresh = \"start\"",
        ),
        (swap("state = true", "state = true\nfresh = \"job\""), "\"job\"", "served by a process that outlives jobs", "of its own"),
        (swap("owner = \"web\"", "owner = \"web\"\nfresh = \"job\""), "\"job\"", "it consumes no queue", ""),
        (swap("owner = \"media\"", "owner = \"me\u{30000}dia\""), "\"me", "U+30000", ""),
        (swap("owner = \"media\"", "owner = \"me\u{202e}dia\""), "\"me", "U+202E", ""),
        (swap("min = 0, max = 1", "min = 3, max = 1"), "{ min = 3", "larger than 'max'", ""),
        (
            swap("state = true", "replicas = { max = 2 }\nstate = true"),
            "{ max = 2",
            "a service with a folder of its own has one replica",
            "in a bucket",
        ),
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

// I8: what the default does not allow is allowed when it is said.
#[test]
fn one_process_takes_all_jobs_only_when_the_manifest_says_so() {
    let text = VIDEO.replacen("untrusted_input = true\n", "untrusted_input = true\nstate = true\nfresh = \"start\"\n", 1);
    let video = Manifest::parse("x", &text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(video.services["validator"].fresh, Fresh::Start);
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
    for key in ["system", "edge", "data", "service", "bucket", "queue", "secret", "egress"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    assert!(schema.to_string().contains("untrusted_input"));
}

fn a_system() -> (tempfile::TempDir, Manifest, Search, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let files = "bin/video-api bin/video-validator bin/video-transcoder python3 ffmpeg ffprobe web/server.py web/static/page.css \
                 profiles/validator.syscalls profiles/transcoder.syscalls";
    for file in files.split(' ') {
        std::fs::create_dir_all(at(file).parent().unwrap()).unwrap();
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

/// The reference manifest with that in its `[edge]`.
fn edge_with(text: &str) -> String {
    VIDEO.replacen("hosts = [\"localhost\", \"127.0.0.1\"]\n", text, 1)
}

const SHOP: &str = r#"hosts = ["localhost", "shop.example", "api.shop.example", "new.example"]
[edge.certificate.shop]
hosts = ["shop.example"]
chain = "tls/shop.pem"
key = "tls/shop.key"
[edge.certificate.rest]
hosts = ["*.shop.example"]
chain = "/etc/tls/rest.pem"
key = "/etc/tls/rest.key"
[edge.acme]
directory = "https://acme.example/directory"
hosts = ["new.example"]
contact = ["mailto:operator@shop.example"]
terms_agreed = true
[edge.proxy_protocol]
from = ["10.0.0.0/8", "2001:db8::/32"]
"#;

// A1, A2: each host has exactly one certificate.
#[test]
fn each_host_of_the_edge_has_one_certificate() {
    let edge = Manifest::parse("x", &edge_with(SHOP)).unwrap_or_else(|e| panic!("{e}")).edge;
    let one = |host: &str| std::collections::BTreeSet::from([host.to_owned()]);
    let local = ["content.localhost", "localhost"].map(str::to_owned).into();
    assert_eq!(edge.certificates["shop"].hosts, one("shop.example"));
    assert_eq!(edge.certificates["rest"].hosts, one("api.shop.example"));
    assert_eq!((&edge.acme.as_ref().unwrap().hosts, &edge.local_hosts()), (&one("new.example"), &local));
    assert_eq!(edge.proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "2001:db8::/32"]);
    // A name in full wins over the wildcard that covers it too.
    let both = SHOP.replacen("hosts = [\"shop.example\"]", "hosts = [\"shop.example\", \"api.shop.example\"]", 1);
    let edge = Manifest::parse("x", &edge_with(&both)).unwrap_or_else(|e| panic!("{e}")).edge;
    assert_eq!((edge.certificates["shop"].hosts.len(), edge.certificates["rest"].hosts.len()), (2, 0));
}

// M2
#[test]
fn mistakes_about_certificates_and_load_balancers_are_named() {
    for (from, to, message, help) in [
        ("[edge.acme]\ndirectory", "[edge.acmee]\ndirectory", "unknown key 'acmee'", "'acme'"),
        ("\"new.example\"]\n[", "\"newer.example\"]\n[", "'newer.example' has no certificate", "[edge.certificate.NAME]"),
        ("hosts = [\"new.example\"]", "hosts = [\"other.example\"]", "no host 'other.example'", ""),
        ("hosts = [\"new.example\"]", "hosts = [\"*.example\"]", "proved by DNS alone", "as files"),
        ("hosts = [\"new.example\"]", "hosts = [\"new.example\", \"localhost\"]", "no authority gives", "leave it out"),
        ("hosts = [\"new.example\"]", "hosts = [\"new.example\", \"shop.example\"]", "has the certificate 'shop' already", ""),
        ("hosts = [\"new.example\"]", "hosts = []", "'new.example' has no certificate", ""),
        ("https://acme.example", "http://acme.example", "begins with https://", ""),
        ("terms_agreed = true", "terms_agreed = false", "without agreement", "terms_agreed = true"),
        ("terms_agreed = true\n", "", "terms_agreed", ""),
        ("mailto:operator", "operator", "mailto:", ""),
        ("hosts = [\"*.shop.example\"]", "hosts = [\"shop.example\", \"*.shop.example\"]", "is also for 'shop.example'", ""),
        ("hosts = [\"*.shop.example\"]", "hosts = [\"api.*.example\", \"*.shop.example\"]", "no wildcard as in", ""),
        ("hosts = [\"*.shop.example\"]", "hosts = [\"*.other.example\"]", "no host '*.other.example'", ""),
        ("tls/shop.pem", "../shop.pem", "without '..'", ""),
        ("\"10.0.0.0/8\"", "\"10.0.0.1/8\"", "\"10.0.0.0/8\"", ""),
        ("\"10.0.0.0/8\"", "\"0.0.0.0/0\"", "trusts every address", ""),
        ("[\"10.0.0.0/8\", \"2001:db8::/32\"]", "[]", "networks of load balancers", ""),
    ] {
        assert!(SHOP.contains(from), "{from}");
        let text = refused(&edge_with(&SHOP.replacen(from, to, 1))).to_string();
        assert!(text.contains(message) && text.contains(help), "{to}: {text}");
    }
}

// A13, C3: what one may ask for, and how long a workload's certificate lives; within bounds.
#[test]
fn limits_of_the_edge_and_lives_of_certificates_are_checked() {
    let edge = |limits: &str| edge_with(&format!("hosts = [\"localhost\"]\n[edge.limits]\n{limits}\n"));
    let system = |life: &str| VIDEO.replacen("[system]\n", &format!("[system]\nsvid_life = \"{life}\"\n"), 1);
    let parsed = |text: &str| Manifest::parse("x", text).unwrap_or_else(|e| panic!("{e}"));
    let limits = parsed(&edge("person = \"5000/s burst 9\"\nin_flight = 100000\naddress_connections = 1")).edge.limits;
    assert_eq!(limits.person, Some(Rate { requests: 5000, period_ms: 1000, burst: 9 }));
    assert_eq!((limits.in_flight, limits.address_connections, limits.address), (Some(100_000), Some(1), None));
    for (wrong, message) in [
        ("person = \"100/m\"", "for a second"),
        ("address = \"100\"", "is no rate"),
        ("in_flight = 100001", "1 to 100000"),
        ("person_in_flight = 0", "1 to 100000"),
        ("persons = \"100/s\"", "'person'"),
    ] {
        let text = refused(&edge(wrong)).to_string();
        assert!(text.contains(message), "{wrong}: {text}");
    }
    assert_eq!(parsed(VIDEO).svid_life_ms, 3_600_000);
    assert_eq!((parsed(&system("2m")).svid_life_ms, parsed(&system("1h")).svid_life_ms), (120_000, 3_600_000));
    for life in ["119s", "61m", "1d"] {
        assert!(refused(&system(life)).to_string().contains("\"2m\" to \"1h\""), "{life}");
    }
}

// B3, M2: applications are declared with the exact addresses that people are sent back to.
#[test]
fn applications_are_checked_address_by_address() {
    let with = |name: &str, returns: &str| format!("{VIDEO}\n[edge.client.{name}]\nreturns = [{returns}]\ntokens = \"opaque\"\n");
    let good = Manifest::parse("palisade.toml", &with("app", r#""https://app.example/cb", "http://127.0.0.1/cb""#)).unwrap();
    assert!(good.edge.clients["app"].opaque && !good.edge.clients["app"].proof_required);
    let wrong = [
        (with("app", ""), "1 to 16 addresses"),
        (with("app", r#""http://app.example/cb""#), "no address to return to"),
        (with("app", r#""https://a@app.example/cb""#), "no address to return to"),
        (with("app", r#""https://app.example/#x""#), "no address to return to"),
        (with("app", r#""http://127.0.0.1:80/cb""#), "no address to return to"),
        (with("app", r#""https:///cb""#), "no address to return to"),
        (with("edge", r#""https://app.example/cb""#), "Palisade's own clients"),
        (with("App", r#""https://app.example/cb""#), "lower-case"),
    ];
    for (text, said) in wrong {
        let error = refused(&text).to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

// A10, M2: who shows a certificate is declared with its name, and only where certificates are asked for.
#[test]
fn an_application_with_a_certificate_needs_authorities() {
    let with = |edge: &str, name: &str| {
        let text = VIDEO.replacen("[edge]\n", &format!("[edge]\n{edge}"), 1);
        format!("{text}\n[edge.client.batch]\nreturns = [\"https://app.example/cb\"]\ncertificate = \"{name}\"\n")
    };
    let asks = "client_ca = \"clients.pem\"\n";
    let good = Manifest::parse("palisade.toml", &with(asks, "batch.partner.example")).unwrap();
    assert_eq!(good.edge.client_ca.as_deref(), Some("clients.pem"));
    assert_eq!(good.edge.clients["batch"].certificate.as_deref(), Some("batch.partner.example"));
    assert!(refused(&with("", "batch.partner.example")).to_string().contains("asks nobody"));
    assert!(refused(&with(asks, "Batch.example")).to_string().contains("DNS name"));
}

// A3, M2
#[test]
fn services_of_the_same_route_are_told_apart_or_refused() {
    let with = |text: &str| {
        let shop = SHOP.replacen("[edge.acme]", &format!("{text}\n[edge.acme]"), 1);
        edge_with(&shop)
    };
    let service = |name: &str, at: &str, more: &str| {
        format!(
            "[service.{name}]\nrun = [\"./x\"]\ndata = \"video\"\npublic_at = {at}\npublic = [{{ path = \"/api/videos\", methods = [\"GET\"], purpose = \"view\"{more} }}]\n"
        )
    };
    for at in [
        "{ host = \"shop.example\" }",
        "{ headers = { x-release = \"next\" } }",
        "{ host = \"shop.example\", headers = { x-release = \"next\" } }",
    ] {
        let manifest = Manifest::parse("x", &with(&service("other", at, ""))).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert!(!manifest.services["other"].public_at.is_anything());
    }
    let two = |one: &str, other: &str| with(&(service("one", one, "") + &service("other", other, "")));
    let by_value = two("{ headers = { x-release = \"a\" } }", "{ headers = { x-release = \"b\", x-more = \"1\" } }");
    assert!(Manifest::parse("x", &by_value).is_ok());
    for (text, message) in [
        (with(&service("other", "{}", "")), "also a public route of 'api'"),
        (two("{ headers = { x-a = \"1\" } }", "{ headers = { x-b = \"1\" } }"), "also a public route of 'one'"),
        (two("{ host = \"shop.example\" }", "{ host = \"shop.example\" }"), "also a public route of 'one'"),
        (with(&service("other", "{ host = \"localhost\" }", "")), "serves every service that names no host"),
        (with(&service("other", "{ host = \"else.example\" }", "")), "no host 'else.example'"),
        (with(&service("other", "{ host = \"shop.example\" }", ", page = true")), "people sign in at 'localhost'"),
        (with(&service("other", "{ headers = { host = \"x\" } }", "")), "means something else already"),
        (with(&service("other", "{ headers = { X-Release = \"x\" } }", "")), "no name of a field"),
        (with(&service("other", "{ headers = { x-release = \"a b\" } }", "")), "visible ASCII"),
        (with(&service("other", "{ headers = { a = \"1\", b = \"1\", c = \"1\", d = \"1\", e = \"1\" } }", "")), "more than 4"),
        (with("[service.other]\nrun = [\"./x\"]\npublic_at = { host = \"shop.example\" }\n"), "no public routes"),
    ] {
        let said = refused(&text).to_string();
        assert!(said.contains(message), "{message}: {said}");
    }
}

// J1, M2: how much of access logs is kept, and which guards have one; a manifest that says nothing of it is the same as ever.
#[test]
fn access_logs_have_a_size_an_age_and_guards_that_ask_for_one() {
    let with = |kept: &str| VIDEO.replacen("[edge]\n", &format!("[edge]\naccess_log = {kept}\n"), 1);
    let parsed = |kept: &str| Manifest::parse("palisade.toml", &with(kept)).unwrap();
    let (plain, standard) = (Manifest::parse("palisade.toml", VIDEO).unwrap(), parsed("{ bytes = \"256MiB\", age = \"14d\" }"));
    assert_eq!((plain.edge.access_log, plain.digest()), (standard.edge.access_log, standard.digest()));
    let less = parsed("{ bytes = \"1MiB\" }");
    assert_eq!((less.edge.access_log.bytes, less.edge.access_log.age_ms), (1 << 20, 14 * 86_400_000));
    assert_ne!(less.digest(), plain.digest());
    assert!(refused(&with("{ bytes = \"1023KiB\" }")).to_string().contains("1MiB at least"));
    let asks = VIDEO.replacen("run = [\"./video-api\"]", "run = [\"./video-api\"]\naccess_log = true", 1);
    let asks = Manifest::parse("palisade.toml", &asks).unwrap();
    assert!(asks.services["api"].access_log && !asks.services["web"].access_log && asks.digest() != plain.digest());
}

// B13: a second proof is asked for where people come in, and nowhere else; a manifest that asks for none is as it was.
#[test]
fn a_route_may_take_a_second_proof_where_people_come_in() {
    let plain = Manifest::parse("palisade.toml", VIDEO).unwrap_or_else(|e| panic!("{e}"));
    let delete = "methods = [\"DELETE\"], purpose = \"manage\"";
    assert!(VIDEO.contains(delete));
    let text = VIDEO.replacen(delete, &format!("{delete}, step_up = true"), 1);
    let asking = Manifest::parse("palisade.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    let routes =
        |manifest: &Manifest| manifest.services["api"].routes.iter().filter(|r| r.step_up).map(|r| r.method.clone()).collect::<Vec<_>>();
    assert_eq!((routes(&plain), routes(&asking)), (Vec::new(), vec!["DELETE".to_owned()]));
    assert_ne!(plain.digest(), asking.digest());
    assert!(!serde_json::to_string(&plain).unwrap().contains("step_up"));
    let inside = text.replacen(
        "consumes = \"queue.status\"",
        "internal = [{ path = \"/x\", methods = [\"GET\"], purpose = \"view\", step_up = true }]\nconsumes = \"queue.status\"",
        1,
    );
    let said = Manifest::parse("palisade.toml", &inside).unwrap_err().to_string();
    assert!(said.contains("'step_up' are the edge's"), "{said}");
}

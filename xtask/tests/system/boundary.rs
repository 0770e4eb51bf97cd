//! Boundaries as people and strangers meet them: N3 in part, A5, A6, A17, D1, G5, G6.

use std::process::Command;

use serde_json::json;
use xtask::curl::Ask;

use crate::{READY, Stage};

// N3: two people never see each other's videos.
#[test]
fn two_people_never_see_each_others_videos() {
    let stage = Stage::set();
    let bob = stage.invited("bob");
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let list = bob.api("GET", "/api/videos", None, 200).unwrap().to_string();
    assert!(!list.contains(&uploaded.id), "{list}");
    for (method, path) in [("GET", String::new()), ("GET", "/watch".to_owned()), ("DELETE", String::new())] {
        let path = format!("/api/videos/{}{path}", uploaded.id);
        bob.api(method, &path, None, 404).unwrap();
    }
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
}

// A5, A6, A7: strangers get nothing, whatever they claim to be.
#[test]
fn strangers_get_nothing_whatever_headers_they_send() {
    let stage = Stage::set();
    let stranger = stage.running.person("stranger", &stage.scratch.0).curl;
    let claims: [(&str, &str); 4] = [
        ("palisade-user", "ada"),
        ("txn-token", "eyJhbGciOiJub25lIn0.e30."),
        ("x-forwarded-user", "ada"),
        ("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),
    ];
    for claim in claims {
        for (path, least) in [("/api/videos", 401), ("/no/such/route", 401), ("/originals/x/original", 401), ("/console", 300)] {
            let answer = stranger.ask(path, &Ask { headers: &[claim], ..Ask::default() }).unwrap();
            assert!((least..500).contains(&answer.status), "{claim:?} {path}: {}", answer.status);
        }
    }
    let unlisted = stage.ada.curl.ask("/no/such/route", &Ask::default()).unwrap();
    assert_eq!(unlisted.status, 404);
    // A14: another site's request with the person's cookie.
    let body = json!({ "name": "x", "size": 10, "type": "video/mp4" }).to_string();
    let cross = [("origin", "https://evil.example"), ("content-type", "application/json")];
    let answer =
        stage.ada.curl.ask("/api/videos", &Ask { method: "POST", headers: &cross, data: Some(body.as_bytes()), ..Ask::default() }).unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
}

// G5, G6: a presigned URL is good for what it was made for and nothing else.
#[test]
fn a_presigned_url_is_bound_to_method_key_size_and_type() {
    let stage = Stage::set();
    let created = stage.ada.api("POST", "/api/videos", Some(&json!({ "name": "a.mp4", "size": 100, "type": "video/mp4" })), 201).unwrap();
    let url = created["upload"]["url"].as_str().unwrap();
    let put = |url: &str, length: usize, media_type: &str| {
        let data = vec![7; length];
        stage
            .ada
            .curl
            .ask(url, &Ask { method: "PUT", headers: &[("content-type", media_type)], data: Some(&data), ..Ask::default() })
            .map_or(0, |a| a.status)
    };
    let id = created["id"].as_str().unwrap();
    for (what, status) in [
        ("one byte more", put(url, 101, "video/mp4")),
        ("one byte less", put(url, 99, "video/mp4")),
        ("another type", put(url, 100, "video/webm")),
        ("another key", put(&url.replace(id, "00000000-0000-7000-8000-000000000000"), 100, "video/mp4")),
        ("another signature", put(&url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), 100, "video/mp4")),
        ("a longer life", put(&url.replace("X-Amz-Expires=", "X-Amz-Expires=9"), 100, "video/mp4")),
        ("another method", stage.ada.curl.ask(url, &Ask::default()).unwrap().status),
    ] {
        assert!((400..500).contains(&status), "{what}: {status}");
    }
    assert_eq!(put(url, 100, "video/mp4"), 200);
    assert!((400..500).contains(&put(url, 100, "video/mp4")), "the URL was good for a second write");
}

// D1: a client without an SVID gets no byte from any inner port, and each refusal is in the audit log with its reason.
#[test]
fn inner_ports_refuse_clients_without_an_svid() {
    let stage = Stage::set();
    let ports = inner_ports(&stage);
    assert!(ports.len() >= 8, "{ports:?}");
    for port in &ports {
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--max-time", "5", &format!("https://127.0.0.1:{port}/")])
            .output()
            .unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "port {port} answered {:?}", String::from_utf8_lossy(&output.stdout));
        let plain = Command::new("curl").args(["--silent", "--max-time", "5", &format!("http://127.0.0.1:{port}/")]).output().unwrap();
        assert!(plain.stdout.is_empty(), "port {port} speaks plain HTTP");
    }
    let audit = stage.audit();
    assert!(audit.matches("client_certificate_missing").count() >= ports.len(), "{} ports", ports.len());
}

/// Loopback ports on which processes of this system listen, but the edge's.
pub fn inner_ports(stage: &Stage) -> Vec<u16> {
    let public: u16 = stage.running.address.rsplit(':').next().unwrap().parse().unwrap();
    let mut inodes = std::collections::BTreeSet::new();
    for process in xtask::processes::tree(stage.running.pid()).unwrap() {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            if let Some(inode) = target.display().to_string().strip_prefix("socket:[").and_then(|t| t.strip_suffix(']').map(str::to_owned))
            {
                inodes.insert(inode);
            }
        }
    }
    let mut ports = Vec::new();
    for line in std::fs::read_to_string("/proc/net/tcp").unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap();
        if fields[3] == "0A" && inodes.contains(fields[9]) && port != public {
            ports.push(port);
        }
    }
    ports
}

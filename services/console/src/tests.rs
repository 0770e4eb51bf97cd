//! Pages made of rich and of hostile facts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod sample;

use contract::{Peer, VerifiedAuthority};
use trust::{Authority, TraceContext};

use super::*;
use sample::Sample;

fn caller(user: &str) -> Caller {
    let authority = Authority {
        txn: "t".into(),
        user: user.into(),
        purpose: "operate".into(),
        scopes: Default::default(),
        roles: Default::default(),
        step_up: false,
        job: None,
    };
    Caller {
        peer: Peer::Workload("spiffe://video.example/role/edge".parse().unwrap()),
        authority: Some(VerifiedAuthority { authority, token: "".into() }),
        trace: TraceContext { trace_id: 1, span_id: 1, sampled: true },
    }
}

async fn get(reader: &Sample, path_and_query: &str) -> (u16, String, http::HeaderMap) {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let answer = Console.page(reader, &caller("ada"), path, query).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = body::collect(answer.into_body(), 4 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap(), headers)
}

const PAGES: [&str; 8] = [
    "/console",
    "/console/traces",
    "/console/traces?video=018f3c2e-video&troubled=1",
    "/console/traces/0af7651916cd43dd8448eb211c80319c",
    "/console/audit",
    "/console/audit?event=CallDecided&reason=policy_denied&who=ada&refused=1&before=9000",
    "/console/decisions?reason=policy_denied",
    "/console/breach",
];

// J12. With PALISADE_SAMPLES=FOLDER the pages are also written there, to be looked at.
#[tokio::test]
async fn every_page_shows_a_living_system() {
    let sample = Sample::rich();
    for (page, expect) in PAGES.into_iter().zip([
        &["18/min", "1/min \u{2715}2", "queue/validated", "epoch <b>42</b>", "untrusted input", "3 waiting"][..],
        &["POST /api/videos", "1 refused", "transcoder"],
        &["018f3c2e-video"],
        &[
            "allowed by flow.api.originals.presign-put",
            "refused: object quarantined",
            "ada",
            "upload",
            "#9012",
            "ffmpeg",
            "told by the service itself",
        ],
        &["control.apply", "Older records", "palisade audit verify"],
        &["selected"],
        &["policy denied", "at most"],
        &["Measured by attack", "1 input object, 1 output folder", "web can call 1 routes of api", "agree in every cell"],
    ]) {
        let (status, html, _) = get(&sample, page).await;
        assert_eq!(status, 200, "{page}");
        for text in expect {
            assert!(html.contains(text), "{page} does not have {text}");
        }
        if let Ok(folder) = std::env::var("PALISADE_SAMPLES") {
            let name = page.replace(['/', '?', '&', '='], "_");
            std::fs::write(format!("{folder}/{name}.html"), html.replace("/console/console.", "console.").replace("/console/mark", "mark"))
                .unwrap();
        }
    }
}

// J12: also before anything was heard, and when the log is broken.
#[tokio::test]
async fn pages_stand_with_no_facts_at_all_and_say_when_the_log_is_broken() {
    let mut empty = Sample::default();
    for page in PAGES.into_iter().filter(|p| !p.contains("0af76")) {
        assert_eq!(get(&empty, page).await.0, 200, "{page}");
    }
    assert_eq!(get(&empty, "/console/traces/0af7651916cd43dd8448eb211c80319c").await.0, 404);
    assert_eq!(get(&empty, "/console/none").await.0, 404);
    assert_eq!(get(&empty, "/console/traces/..%2f").await.0, 404);
    empty.facts.audit.broken = Some("record 2 <b>was</b> changed".into());
    let (_, html, _) = get(&empty, "/console").await;
    assert!(html.contains("does not verify") && html.contains("record 2 &#60;b&#62;was"), "{html}");
    empty.down = true;
    let (status, html, _) = get(&empty, "/console").await;
    assert_eq!(status, 500);
    assert!(html.contains("could not read its store"));
}

// J12: whatever a stranger puts into a name, a path or a log line, it stays text.
#[tokio::test]
async fn nothing_that_comes_from_outside_becomes_markup() {
    let canary = "\"'><script>alert(1)</script><img src=x onerror=1>";
    let sample = Sample::hostile(canary);
    let mut checked = 0;
    for page in PAGES {
        for page in [
            page.to_owned(),
            format!("{page}{}video=%22%3E%3Cscript%3E&who=%3Cscript%3E&user=%27%3Cscript%3E", if page.contains('?') { "&" } else { "?" }),
        ] {
            let (_, html, _) = get(&sample, &page).await;
            let scripts = html.matches("<script").count();
            assert_eq!(scripts, html.matches("<script src=\"/console/console.js\" defer>").count(), "{page}");
            assert!(!html.contains("<img src=x") && !html.contains("onerror=1>"), "{page}");
            checked += usize::from(html.contains("&#60;script&#62;alert"));
        }
    }
    assert!(checked >= 8, "the canary is on the pages, escaped: {checked}");
}

// The pages hold under their own Content-Security-Policy: nothing inline, nothing from elsewhere.
#[tokio::test]
async fn pages_have_nothing_inline_and_nothing_from_elsewhere() {
    let sample = Sample::rich();
    for page in PAGES {
        let (_, html, headers) = get(&sample, page).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (headers["cache-control"].to_str().unwrap(), headers["x-content-type-options"].to_str().unwrap()),
            ("no-store", "nosniff")
        );
        for bad in [" style=", "<style", " onclick", "javascript:", "http://", "https://", "//cdn"] {
            assert!(!html.contains(bad), "{page} has {bad}");
        }
    }
    for (asset, media) in
        [("/console/console.css", "text/css"), ("/console/console.js", "text/javascript"), ("/console/mark.svg", "image/svg+xml")]
    {
        let (status, text, headers) = get(&sample, asset).await;
        assert_eq!(status, 200);
        assert!(headers["content-type"].to_str().unwrap().starts_with(media));
        assert!(!text.contains("@import") && !text.contains("url("), "{asset}");
    }
}

// The script fetches the main part alone.
#[tokio::test]
async fn a_part_is_the_page_without_its_frame() {
    let sample = Sample::rich();
    let (_, whole, _) = get(&sample, "/console").await;
    let (_, part, _) = get(&sample, "/console?part=1").await;
    assert!(!part.contains("<html") && !part.contains("<nav") && part.contains("<svg"));
    assert!(whole.contains(part.trim()));
}

// L8: what was told of another manifest, or differs, is said; and how one tells it, where nothing was told.
#[tokio::test]
async fn a_breach_that_differs_or_is_of_another_manifest_says_so() {
    let mut sample = Sample::rich();
    let (_, html, _) = get(&sample, "/console/breach").await;
    assert!(!html.contains("class=\"alert\""), "{html}");
    let told = sample.breach.as_mut().unwrap();
    told.manifest = trust::Digest::of(b"older");
    told.differences.push("service.web reads bucket.originals: everybody's, which was not predicted".into());
    let (_, html, _) = get(&sample, "/console/breach").await;
    assert_eq!(html.matches("class=\"alert\"").count(), 2, "{html}");
    assert!(html.contains("another manifest") && html.contains("which was not predicted") && !html.contains("agree in every cell"));
    sample.breach = None;
    assert!(get(&sample, "/console/breach").await.1.contains("palisade breach --predict --tell"));
}

// J10: an undeclared call is an alert, a declared one is not; a refused attempt is red.
#[tokio::test]
async fn undeclared_calls_raise_an_alert() {
    let mut sample = Sample::rich();
    let (_, html, _) = get(&sample, "/console").await;
    assert!(!html.contains("Undeclared call"), "a refused attempt is not yet a breach");
    assert!(html.contains("class=\"line denied\""));
    sample.facts.flows.push(contract::console::LiveFlow {
        from: "service/web".into(),
        to: "bucket/originals".into(),
        allowed: 1,
        ..Default::default()
    });
    let (_, html, _) = get(&sample, "/console").await;
    assert!(html.contains("Undeclared call") && html.contains("service/web called bucket/originals"), "{html}");
}

// J3, J4: spans are shown as a tree, also when their parents are missing or circular.
#[tokio::test]
async fn spans_in_any_order_and_with_broken_parents_are_all_shown() {
    let mut sample = Sample::rich();
    let detail = sample.detail.as_mut().unwrap();
    detail.spans.reverse();
    let count = detail.spans.len();
    let (a, b) = (detail.spans[0].span.span.clone(), detail.spans[1].span.span.clone());
    detail.spans[0].span.parent = b;
    detail.spans[1].span.parent = a;
    detail.spans[2].span.parent = "ffffffffffffffff".into();
    let (_, html, _) = get(&sample, PAGES[3]).await;
    assert_eq!(html.matches("<details class=\"step").count(), count);
}

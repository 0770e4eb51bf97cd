//! What passes, in both directions, and what never does.

use bytes::Bytes;
use contract::body;
use contract::txn_token::Verifier;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use trust::{Fault, TrustDomain};

use super::world::{World, request};

// A11, A5: the service gets a transaction token and nothing of what the browser showed or claimed.
#[tokio::test]
async fn a_service_sees_a_transaction_token_and_no_credential() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let bearer = format!("Bearer {}", world.login.token());
    for credential in [("cookie", session.as_str()), ("authorization", bearer.as_str())] {
        let claims = [
            ("txn-token", "forged"),
            ("palisade-user", "root"),
            ("palisade-purpose", "operate"),
            ("palisade-job", "1"),
            ("palisade_user", "root"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1"),
            ("x-real-ip", "1"),
            ("x-user-id", "root"),
            ("palisade-oidc-client", "edge"),
            ("palisade-public-origin", "https://evil"),
            ("palisade-original-uri", "/x"),
            ("proxy-authorization", "Basic x"),
            ("x-http-method-override", "DELETE"),
            ("connection", "x-secret"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("baggage", "a=b"),
            ("b3", "1-2"),
            ("cookie2", "x"),
            ("x-app", "kept"),
            ("range", "bytes=0-1"),
        ];
        let headers: Vec<_> = [credential].into_iter().chain(claims).collect();
        assert_eq!(world.get("/api/videos", &headers).await.status, 200);
        let seen = world.api.last();
        let mut names: Vec<_> = seen.headers.keys().map(|n| n.as_str().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["cookie2", "host", "range", "traceparent", "txn-token", "x-app"]);
        let token = seen.headers["txn-token"].to_str().unwrap();
        let domain = TrustDomain::parse("video.example").unwrap();
        let verifier: &Verifier = &world.views.fresh().unwrap().verifier;
        let authority = verifier.verify(token, &*world.clock).unwrap();
        assert_eq!((authority.user.as_str(), authority.purpose.as_str(), authority.job.is_none()), ("u-anna", "view", true));
        assert_eq!(authority.scopes.iter().collect::<Vec<_>>(), ["videos"], "narrowed to the route's");
        assert_eq!(world.identity.id().trust_domain, domain);
        world.clock.forward_s(1);
    }
}

// A5: nor after the body, where nobody looks.
#[tokio::test]
async fn identity_headers_in_trailers_do_not_pass() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("palisade-user"), http::HeaderValue::from_static("root"))]);
    let frames = [http_body::Frame::data(Bytes::from_static(b"abc")), http_body::Frame::trailers(trailers)];
    let mut sent = request("POST", "/api/videos", &[("authorization", &bearer), ("trailer", "palisade-user")], "");
    *sent.body_mut() = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, contract::BoxError>))).boxed_unsync();
    assert_eq!(world.send(sent).await.status, 200);
    let seen = world.api.last();
    assert_eq!((seen.bytes, seen.trailers, seen.headers.contains_key("trailer")), (3, false, false));
}

// B9 in part, D6: a transaction token lives minutes, and serves one credential on one route for seconds.
#[tokio::test]
async fn a_transaction_token_serves_one_credential_and_route_for_seconds() {
    let world = World::new().await;
    let (one, other) = (format!("Bearer {}", world.login.token()), format!("Bearer {}", world.login.token()));
    let minted = async |bearer: &str, path: &str| {
        assert_eq!(world.get(path, &[("authorization", bearer)]).await.status, 200);
        world.api.last().headers["txn-token"].to_str().unwrap().to_owned()
    };
    let first = minted(&one, "/api/videos").await;
    assert_eq!(minted(&one, "/api/videos").await, first);
    assert_ne!(minted(&other, "/api/videos").await, first, "another credential");
    assert_ne!(minted(&one, "/api/videos/7").await, first, "another route");
    world.clock.forward_s(5);
    let later = minted(&one, "/api/videos").await;
    let view = world.views.fresh().unwrap();
    let txn = |token: &str| view.verifier.verify(token, &*world.clock).unwrap().txn;
    assert_ne!(txn(&first), txn(&later), "seconds later");
    world.push_view();
    assert_ne!(minted(&one, "/api/videos").await, later, "another view");
    world.clock.forward_s(trust::limits::TXN_TOKEN_LIFE_S);
    assert!(view.verifier.verify(&first, &*world.clock).is_err());
}

// A7, A17: a token that was verified before is refused once it has ended, once its key has, and once its session's view has.
#[tokio::test]
async fn a_known_token_is_refused_when_it_ends() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for _ in 0..2 {
        assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
    }
    let fetched = world.login.key_fetches.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(fetched, 1);
    world.clock.forward_s(299);
    world.push_view();
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
    world.clock.forward_s(1);
    let refused = world.get("/api/videos", &[("authorization", &bearer)]).await;
    assert_eq!((refused.status, refused.text.contains("token_expired")), (401, true));
}

// J5: a stranger's trace is noted on the span and never joined.
#[tokio::test]
async fn a_forged_traceparent_cannot_join_a_trace() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let forged = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = world.get("/api/videos", &[("authorization", &bearer), ("traceparent", forged), ("tracestate", "x=y")]).await;
    let passed = world.api.last().headers["traceparent"].to_str().unwrap().to_owned();
    assert!(!passed.contains("0af7651916cd43dd8448eb211c80319c"));
    assert!(passed.contains(answer.header("palisade-trace")), "the answer names the trace");
    let spans = world.sink.kept.spans.lock().unwrap();
    let span = spans.last().unwrap();
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (answer.header("palisade-trace"), ""));
    assert_eq!(span.attributes["claimed_trace"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((span.status, span.attributes["epoch"].as_u64()), (200, Some(7)));
    assert!(span.attributes["policy"].as_str().unwrap().starts_with("flow."));
}

// J5: nor by either form of B3.
#[tokio::test]
async fn forged_b3_cannot_join_a_trace() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let (trace, span) = ("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
    let single = format!("{trace}-{span}-1");
    for claims in [vec![("b3", single.as_str())], vec![("x-b3-traceid", trace), ("x-b3-spanid", span), ("x-b3-sampled", "1")]] {
        let headers: Vec<_> = [("authorization", bearer.as_str())].into_iter().chain(claims).collect();
        let answer = world.get("/api/videos", &headers).await;
        let passed = world.api.last().headers;
        assert!(!passed.keys().any(|name| name.as_str().contains("b3")), "{passed:?}");
        assert!(passed["traceparent"].to_str().unwrap().contains(answer.header("palisade-trace")));
        let spans = world.sink.kept.spans.lock().unwrap();
        let span = spans.last().unwrap();
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (answer.header("palisade-trace"), ""));
        assert_ne!(span.trace, trace);
        assert_eq!(span.attributes["claimed_trace"], trace);
    }
}

// A14: the header checklist, on every kind of answer.
#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let answers = [
        world.get("/api/videos", &[("authorization", &bearer)]).await,
        world.get("/api/videos", &[]).await,
        world.get("/auth/nothing", &[("accept", "text/html")]).await,
        world.get("/auth/login", &[]).await,
        world.get("/oidc/sign-in", &[]).await,
        world.get("/watch", &[]).await,
    ];
    for answer in answers {
        for (name, value) in [
            ("strict-transport-security", "max-age=31536000"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), value);
        }
        let csp = answer.header("content-security-policy");
        for part in ["default-src", "base-uri 'none'", "frame-ancestors 'none'", "form-action"] {
            assert!(csp.contains(part), "{part} in {csp}");
        }
        assert!(!csp.contains("unsafe"));
        assert_eq!(answer.header("palisade-trace").len(), 32);
    }
}

// A14, A5: a service cannot speak for the gateway.
#[tokio::test]
async fn a_service_cannot_set_cookies_open_cors_or_loosen_the_policy() {
    let world = World::new().await;
    world.api.answers(|| {
        let mut answer = body::with_type(http::StatusCode::OK, "text/html", "<p>");
        for (name, value) in [
            ("set-cookie", "__Host-palisade=planted; Path=/; Secure"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=0"),
            ("content-security-policy", "default-src *"),
            ("clear-site-data", "\"*\""),
            ("palisade-trace", "x"),
            ("txn-token", "leak"),
            ("server", "x"),
            ("x-content-type-options", "none"),
            ("connection", "close"),
            ("x-app", "kept"),
            ("cache-control", "max-age=60"),
        ] {
            answer.headers_mut().append(name, value.parse().unwrap());
        }
        Ok(answer)
    });
    let answer = world.get("/", &[("authorization", &format!("Bearer {}", world.login.token()))]).await;
    for name in ["set-cookie", "access-control-allow-origin", "clear-site-data", "txn-token", "server", "connection"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(
        (answer.header("x-app"), answer.header("cache-control"), answer.header("x-content-type-options")),
        ("kept", "max-age=60", "nosniff")
    );
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    let policies: Vec<_> = answer.headers.get_all("content-security-policy").iter().collect();
    assert!(policies.len() == 2 && policies.iter().any(|p| p.to_str().unwrap().contains("object-src 'none'")), "both are enforced");
}

#[tokio::test]
async fn what_the_policy_denies_is_not_passed_on() {
    let world = World::new().await;
    world.login.roles.lock().unwrap().insert("barred".to_owned());
    let bearer = format!("Bearer {}", world.login.token());
    let answer = world.get("/api/videos", &[("authorization", &bearer)]).await;
    assert_eq!((answer.status, answer.text.as_str()), (403, r#"{"error":"refused","reason":"policy_denied"}"#));
    assert_eq!(world.api.count(), 0);
    let kept = world.sink.kept.audit.lock().unwrap();
    assert_eq!(kept.last().unwrap().fields["decision"]["deny"]["policies"][0], "barred");
}

#[tokio::test]
async fn presigned_urls_go_to_objects_with_what_was_signed() {
    let world = World::new().await;
    let signed = "/originals/7/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab";
    let session = world.sign_in().await;
    let answer =
        world.send(request("PUT", signed, &[("cookie", &session), ("content-length", "5"), ("authorization", "AWS4 x")], "bytes")).await;
    assert_eq!(answer.status, 400, "cookie and authorization together are ambiguous here too");
    let answer =
        world.send(request("PUT", signed, &[("cookie", &session), ("content-length", "5"), ("content-type", "video/mp4")], "bytes")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let seen = world.objects.last();
    assert_eq!((seen.method.as_str(), seen.uri.as_str(), seen.bytes), ("PUT", format!("/presigned{signed}").as_str(), 5));
    let said = |name: &str| seen.headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    assert_eq!((said("palisade-original-uri").as_str(), said("palisade-public-origin").as_str()), (signed, "https://localhost:8443"));
    assert_eq!(
        (said("content-length").as_str(), said("content-type").as_str(), said("host").as_str()),
        ("5", "video/mp4", "localhost:8443")
    );
    for absent in ["cookie", "authorization", "txn-token"] {
        assert_eq!(said(absent), "", "{absent}");
    }
    for unsigned in
        ["/originals/7/a", "/originals/7/a?X-Amz-Signature=ab", "/originals/7/a?X-Amz-Signature=a&X-Amz-Signature=b&X-Amz-Algorithm=c"]
    {
        assert_eq!(world.get(unsigned, &[("cookie", &session)]).await.status, 401, "{unsigned}");
    }
    assert_eq!(world.objects.count(), 1);
}

#[tokio::test]
async fn login_is_reached_under_its_path_with_its_own_cookie_only() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let cookies = format!("{session}; __Host-palisade-login=l");
    let answer = world
        .get("/oidc/sign-in?request=1", &[("cookie", &cookies), ("palisade-oidc-client", "edge"), ("palisade-source", "192.0.2.1")])
        .await;
    assert_eq!((answer.status, answer.set_cookies().len()), (200, 1), "login may set its own cookie");
    let seen = world.login.passed_on.lock().unwrap().last().cloned().unwrap();
    assert_eq!((seen.uri.as_str(), seen.headers["cookie"].to_str().unwrap()), ("/sign-in?request=1", "__Host-palisade-login=l"));
    assert_eq!(seen.headers["palisade-public-origin"], "https://localhost:8443");
    assert_eq!(seen.headers["palisade-source"], "127.0.0.1", "the address that we saw, not the one that was claimed");
    assert!(!seen.headers.contains_key("palisade-oidc-client"), "a browser is not the edge's client");
    world.get("/oidc/userinfo", &[("authorization", "Bearer x")]).await;
    world.get("/oidc/sign-in", &[("authorization", "Bearer x")]).await;
    let seen = world.login.passed_on.lock().unwrap().clone();
    assert!(seen[1].headers.contains_key("authorization") && !seen[2].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_console_is_for_administrators() {
    let world = World::new().await;
    let session = world.sign_in().await;
    assert_eq!(world.get("/console", &[("cookie", &session)]).await.status, 403);
    assert_eq!((world.evidence.count(), world.refusals()), (0, vec!["caller_not_admitted".to_owned()]));
    world.login.roles.lock().unwrap().insert("admin".to_owned());
    let session = world.sign_in().await;
    assert_eq!(world.get("/console/traces/1", &[("cookie", &session)]).await.status, 200);
    let token = world.evidence.last().headers["txn-token"].to_str().unwrap().to_owned();
    let authority = world.views.fresh().unwrap().verifier.verify(&token, &*world.clock).unwrap();
    assert!(authority.roles.contains("admin") && authority.purpose == "operate");
    assert!(!authority.step_up, "signed in just now, by a password alone");
}

// A13: sizes, announced and not.
#[tokio::test]
async fn a_body_over_the_routes_limit_is_broken_off() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let announced = world.post("/api/videos", &[("authorization", &bearer), ("content-length", "1001")], "x").await;
    assert_eq!(announced.status, 413);
    assert_eq!(world.api.count(), 0);
    let streamed = |frames: usize| {
        let frames = (0..frames).map(|_| Ok::<_, contract::BoxError>(http_body::Frame::data(Bytes::from_static(&[0; 100]))));
        let mut request = request("POST", "/api/videos", &[("authorization", &bearer)], "");
        *request.body_mut() = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
        request
    };
    assert_eq!(world.send(streamed(10)).await.status, 200);
    assert_eq!(world.api.last().bytes, 1000);
    assert_eq!(world.send(streamed(11)).await.status, 413);
    assert_eq!(world.api.count(), 1, "the peer never had a whole message");
}

#[tokio::test]
async fn a_peers_failure_is_a_clear_answer() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    type Failure = fn() -> Result<Response<contract::Body>, Fault>;
    let cases: [(Failure, u16); 4] = [
        (|| Err(Fault::unavailable("secret address 10.0.0.1")), 503),
        (|| Err(Fault::timed_out("secret")), 504),
        (|| Err(Fault::refused("secret")), 502),
        (|| Err(Fault::internal("secret")), 500),
    ];
    for (failure, status) in cases {
        world.api.answers(failure);
        for path in ["/api/videos", "/watch"] {
            let answer = world.get(path, &[("authorization", &bearer)]).await;
            assert_eq!(answer.status, status, "{path}");
            assert!(!answer.text.contains("secret"));
            assert_eq!(answer.text.starts_with("<!doctype html>"), path == "/watch");
        }
    }
}

// A18: what streams by is not collected: the peer has the first bytes while the browser still sends.
#[tokio::test]
async fn a_large_upload_and_download_are_not_collected() {
    let world = World::new().await;
    let frame = Bytes::from(vec![7; 1 << 20]);
    let ahead_max = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (objects, ahead) = (world.objects.clone(), ahead_max.clone());
    let frames = futures::stream::iter((0..1024).map(move |made: usize| {
        let received = objects.received.load(std::sync::atomic::Ordering::SeqCst) >> 20;
        ahead.fetch_max(made - received, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, contract::BoxError>(http_body::Frame::data(frame.clone()))
    }));
    let mut upload: Request<contract::Body> = request("PUT", "/originals/7/original?X-Amz-Signature=s&X-Amz-Algorithm=a", &[], "");
    *upload.body_mut() = StreamBody::new(frames).boxed_unsync();
    assert_eq!(world.send(upload).await.status, 200);
    assert_eq!(world.objects.last().bytes, 1 << 30);
    assert!(ahead_max.load(std::sync::atomic::Ordering::SeqCst) <= 1, "no frame waited for another");
    // Downwards: frames are made only as they are read.
    let given = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = given.clone();
    world.objects.answers(move || {
        let counted = counted.clone();
        let frames = futures::stream::iter((0..1024).map(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, contract::BoxError>(http_body::Frame::data(Bytes::from(vec![1; 1 << 20])))
        }));
        Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
    });
    let download = request("GET", "/originals/7/original?X-Amz-Signature=s&X-Amz-Algorithm=a", &[], "");
    let mut answer = world.edge.serve_from(std::net::Ipv4Addr::LOCALHOST.into(), download).await;
    for _ in 0..3 {
        answer.body_mut().frame().await.unwrap().unwrap();
    }
    assert_eq!(given.load(std::sync::atomic::Ordering::SeqCst), 3);
}

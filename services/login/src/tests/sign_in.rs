//! The sign-in page: guessing, enumeration, forged forms, markup.

use http::{StatusCode, header};
use serde_json::json;

use super::house::{House, ORIGIN, PASSWORD, authorize, edge_peer, form};
use crate::page::FORM_COOKIE;

/// A page without what differs from request to request.
fn settled(text: &str, name: &str) -> String {
    let without = |text: String, mark: &str| {
        let mut parts = text.split(mark);
        let head = parts.next().unwrap_or_default().to_owned();
        parts.fold(head, |all, part| all + mark + part.split_once('"').map_or(part, |(_, rest)| rest))
    };
    without(without(text.replace(name, "NAME"), "name=\"form\" value=\""), "name=\"request\" value=\"")
}

// B12: the answer and the work are the same, whatever was wrong.
#[tokio::test]
async fn nobody_learns_who_has_an_account() {
    let house = House::new().await;
    house.person("Ada").await;
    house.invite("Invited").await;
    let mut answers = Vec::new();
    for (name, password) in
        [("Ada", "not her password"), ("Nobody", "not her password"), ("Invited", "not her password"), ("Nobody", PASSWORD)]
    {
        let before = house.computed();
        let answer = house.browser().sign_in(&authorize(true, &[]), name, password).await;
        assert_eq!(house.computed() - before, 1, "{name}: one hash, no more and no less");
        let headers = answer.headers.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
        answers.push((answer.status, headers, settled(&answer.text, name)));
    }
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    let refused = house.events("SignInRefused");
    assert!(refused.len() == 4 && refused.iter().all(|r| r["reason"] == json!("sign_in_failed")), "the audit log says no more either");
    assert!(!refused.iter().any(|r| r.to_string().contains("Ada")));
}

// B12: delays that grow, for names that nobody has too; the same answer; they end.
#[tokio::test]
async fn guessing_is_slowed_down_without_telling_whom_it_hits() {
    let mut house = House::new().await;
    house.person("Ada").await;
    for name in ["Ada", "Nobody"] {
        let mut last = String::new();
        for n in 0..6 {
            let answer = house.browser().sign_in(&authorize(true, &[]), name, "a wrong guess").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{n}");
            last = settled(&answer.text, name);
        }
        let before = house.computed();
        let locked = house.browser().sign_in(&authorize(true, &[]), name, PASSWORD).await;
        assert_eq!((locked.status, settled(&locked.text, name)), (StatusCode::UNAUTHORIZED, last), "the right one is not even looked at");
        assert_eq!(house.computed(), before);
    }
    house.restart().await;
    assert_eq!(
        house.browser().sign_in(&authorize(true, &[]), "ADA ", PASSWORD).await.status,
        StatusCode::UNAUTHORIZED,
        "kept over a restart"
    );
    assert!(house.events("SignInRefused").iter().any(|r| r["reason"] == json!("rate_exceeded")));
    house.pass(2);
    assert_eq!(house.browser().sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER, "the wait is over");
    assert_eq!(house.browser().sign_in(&authorize(true, &[]), "Ada", "a wrong guess").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.browser().sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER, "a success clears it");
}

// B12: one source that tries many names is slowed down; others are not.
#[tokio::test]
async fn spraying_is_slowed_down_at_its_source() {
    let house = House::new().await;
    house.person("Ada").await;
    for n in 0..31 {
        house.browser().sign_in(&authorize(true, &[]), &format!("name{n}"), "a wrong guess").await;
    }
    assert_eq!(house.browser().sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    let mut elsewhere = house.browser();
    elsewhere.source = "203.0.113.9".to_owned();
    assert_eq!(elsewhere.sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER);
}

/// Guesses at Ada's password from `networks` addresses, each of another network, `each` times; how many were looked at.
async fn attacked(house: &House, networks: usize, each: usize) -> u64 {
    let before = house.computed();
    for network in 0..networks {
        let mut browser = house.browser();
        browser.source = format!("10.{}.{}.9", network / 256, network % 256);
        for _ in 0..each {
            let answer = browser.sign_in(&authorize(true, &[]), "Ada", "a wrong guess").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    house.computed() - before
}

// B12: whoever guesses at an account, from however many addresses, does not keep its owner out: the browser that was used before comes
// in, also from elsewhere and also next to the guesser; so does a new browser from a network that was used before. What the guesser gets
// altogether is bounded.
#[tokio::test]
async fn guessing_at_an_account_does_not_keep_its_owner_out() {
    let house = House::new().await;
    house.person("Ada").await;
    let mut own = house.browser();
    assert_eq!(own.sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER);
    let guesses = attacked(&house, 30, 3).await;
    assert!((20..=22).contains(&guesses), "twenty are free for all strangers together: {guesses}");
    house.pass(3600);
    let more = attacked(&house, 30, 3).await;
    assert!((1..=2).contains(&more), "then one for each five minutes' wait: {more}");

    assert_eq!(house.browser().sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER, "a network known");
    own.source = "10.0.3.77".to_owned();
    let again = authorize(true, &[("prompt", "login")]);
    assert_eq!(own.sign_in(&again, "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER, "the known browser, next to the guesser");
    let mut stranger = house.browser();
    stranger.source = "10.9.9.9".to_owned();
    assert_eq!(stranger.sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::UNAUTHORIZED, "whoever is neither waits");
}

// B12: a known browser's cookie is for its account, unforged, and gives five guesses of its own and no more.
#[tokio::test]
async fn a_known_browser_is_slowed_down_too() {
    let house = House::new().await;
    house.person("Ada").await;
    house.person("Bob").await;
    let own = house.browser();
    assert_eq!(own.sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER);
    let again = authorize(true, &[("prompt", "login")]);
    let before = house.computed();
    for _ in 0..12 {
        own.sign_in(&again, "Ada", "a wrong guess").await;
    }
    assert_eq!(house.computed() - before, 6);
    assert_eq!(own.sign_in(&again, "Ada", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    house.pass(300);
    assert_eq!(own.sign_in(&again, "Ada", PASSWORD).await.status, StatusCode::SEE_OTHER);
    // For Bob it is a stranger's.
    let cookie = own.cookie(crate::device::COOKIE).unwrap();
    let headers = |value: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert(header::COOKIE, format!("{}={value}", crate::device::COOKIE).parse().unwrap());
        headers
    };
    let inner = &house.login.0;
    assert!(inner.device(&headers(&cookie), "ada").is_some());
    assert!(inner.device(&headers(&cookie), "bob").is_none());
    let mut edited = cookie.clone();
    edited.replace_range(..1, if cookie.starts_with('0') { "1" } else { "0" });
    assert!(inner.device(&headers(&edited), "ada").is_none());
    house.pass(181 * 24 * 3600);
    assert!(inner.device(&headers(&cookie), "ada").is_none(), "after half a year it is a stranger's");
}

// B12: a thousand guesses at the same time are a thousand, not one; and they do not fill the memory.
#[tokio::test]
async fn parallel_guesses_are_all_counted() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    let sent = browser.get(&authorize(true, &[])).await;
    let page = browser.get(&sent.location()).await;
    let before = house.computed();
    let tasks: Vec<_> = (0..40).map(|_| browser.submit("/sign-in", &page, &[("name", "Ada"), ("password", "a wrong guess")])).collect();
    let answers = join_all(tasks).await;
    assert!(answers.iter().all(|a| a.status == StatusCode::UNAUTHORIZED));
    assert!(house.computed() - before <= 6, "only those before the lock were computed");
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in pinned.iter_mut().zip(done.iter_mut()).filter(|(_, slot)| slot.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

// Forms work only from the page that they were on, in the browser that was given it.
#[tokio::test]
async fn forged_forms_are_refused() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    let sent = browser.get(&authorize(true, &[])).await;
    let page = browser.get(&sent.location()).await;
    let hidden = |name: &str| page.text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (token, carried, cookie) = (hidden("form"), hidden("request"), browser.cookie(FORM_COOKIE).unwrap());
    let other_cookie = "0".repeat(64);
    for (case, origin, fetch_site, cookie, token, good) in [
        ("as it should be", Some(ORIGIN), None, Some(&cookie), token.as_str(), true),
        ("no origin, but the browser says same-origin", None, Some("same-origin"), Some(&cookie), &token, true),
        ("another origin", Some("https://evil.example"), None, Some(&cookie), &token, false),
        ("a null origin", Some("null"), None, Some(&cookie), &token, false),
        ("no origin at all", None, None, Some(&cookie), &token, false),
        ("cross-site", Some(ORIGIN), Some("cross-site"), Some(&cookie), &token, false),
        ("no cookie", Some(ORIGIN), None, None, &token, false),
        ("another browser's cookie", Some(ORIGIN), None, Some(&other_cookie), &token, false),
        ("no token", Some(ORIGIN), None, Some(&cookie), "", false),
        ("the cookie as token", Some(ORIGIN), None, Some(&cookie), &cookie, false),
    ] {
        let mut request = form("/sign-in", &[("form", token), ("request", &carried), ("name", "Ada"), ("password", PASSWORD)]);
        for (name, value) in [("origin", origin), ("sec-fetch-site", fetch_site)] {
            value.map(|v| request.headers_mut().insert(name, v.parse().unwrap()));
        }
        cookie.map(|c| request.headers_mut().insert(header::COOKIE, format!("{FORM_COOKIE}={c}").parse().unwrap()));
        let answer = house.send(edge_peer(), request).await;
        assert_eq!(answer.status, if good { StatusCode::SEE_OTHER } else { StatusCode::FORBIDDEN }, "{case}");
        assert!(good || !answer.headers.contains_key("set-cookie"), "{case}");
    }
}

// The request that travels with the browser is ours, whole, and not too old.
#[tokio::test]
async fn travelling_requests_cannot_be_edited() {
    let house = House::new().await;
    let sent = house.browser().get(&authorize(true, &[])).await.location();
    let (path, carried) = sent.split_once("request=").unwrap();
    let (body, mac) = carried.split_once('.').unwrap();
    let swapped = house.browser().get(&authorize(false, &[])).await.location();
    let other = swapped.split_once("request=").unwrap().1.split_once('.').unwrap().0.to_owned();
    for (case, edited) in [("another request", format!("{other}.{mac}")), ("no MAC", format!("{body}.")), ("nothing", "x".to_owned())] {
        let answer = house.browser().get(&format!("{path}request={edited}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{case}");
    }
    house.pass(3601);
    assert_eq!(house.browser().get(&sent).await.status, StatusCode::BAD_REQUEST, "an hour");
}

// A11 in part: whatever is typed is text, and the pages allow nothing but themselves.
#[tokio::test]
async fn names_are_never_markup() {
    let house = House::new().await;
    let evil = "\"><script>alert(1)</script><b title='";
    let answer = house.browser().sign_in(&authorize(true, &[]), evil, "a wrong guess").await;
    let invited = house.invite("<img src=x onerror=alert(1)>").await;
    let welcome = house.browser().get(&invited.path).await;
    for page in [&answer, &welcome] {
        assert!(!page.text.contains("<script") && !page.text.contains("<img") && !page.text.contains("<test>"), "{}", page.text);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    assert!(answer.text.contains("&#60;script&#62;") || answer.text.contains("&lt;script&gt;"), "what was typed is shown, as text");
    let style = house.browser().get("/style.css").await;
    assert!(style.headers["content-type"].to_str().unwrap().starts_with("text/css") && style.text.contains("prefers-color-scheme"));
}

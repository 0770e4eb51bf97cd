//! Codes and refresh tokens that are shown twice, by others, or too late.

use http::{Method, StatusCode};

use super::house::{CLI_BACK, EDGE_BACK, House, ORIGIN, PASSWORD, VERIFIER, authorize};

fn text(value: &serde_json::Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

// B6, RFC 6749 section 4.1.2: a code that is shown twice ends all that came from it.
#[tokio::test]
async fn replayed_code_ends_the_tokens_that_came_from_it() {
    let house = House::new().await;
    house.person("Ada").await;
    let code = house.browser().code(true, "openid offline_access", "Ada").await;
    let tokens = house.exchange(true, &code).await.json();
    assert_eq!(house.exchange(true, &code).await.error(), (StatusCode::BAD_REQUEST, "invalid_grant".to_owned()));
    assert_eq!(house.refresh(true, &text(&tokens, "refresh_token")).await.error().1, "invalid_grant");
    assert_eq!(house.userinfo(&text(&tokens, "access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.events("CredentialReplayed")[0]["what"], "code");
}

// B2, B3: a code is bound to its client, its redirect URI, and a minute.
#[tokio::test]
async fn codes_are_bound_and_short_lived() {
    let house = House::new().await;
    house.person("Ada").await;
    let edge = [("redirect_uri", EDGE_BACK), ("client_id", "edge")];
    let cases = [
        ("another client", false, [("redirect_uri", EDGE_BACK), ("client_id", "palisade-cli")], 0),
        ("another redirect URI", true, [("redirect_uri", CLI_BACK), ("client_id", "edge")], 0),
        ("too late", true, edge, 60),
        ("in time", true, edge, 59),
    ];
    for (case, as_edge, params, wait) in cases {
        let code = house.browser().code(true, "openid", "Ada").await;
        house.pass(wait);
        let grant = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
        let answer = house.client(as_edge, "/token", &[grant.as_slice(), &params].concat()).await;
        assert_eq!(answer.status == StatusCode::OK, case == "in time", "{case}: {}", answer.text);
    }
}

// B6: rotation, and reuse that kills the family.
#[tokio::test]
async fn replayed_refresh_token_kills_its_family() {
    let mut house = House::new().await;
    house.person("Ada").await;
    let (stolen_from, other) = (house.browser().tokens(true, "Ada").await, house.browser().tokens(true, "Ada").await);
    let first = text(&stolen_from, "refresh_token");
    let second = text(&house.refresh(true, &first).await.json(), "refresh_token");
    assert_ne!(first, second, "each works once");
    house.restart().await;
    let third = house.refresh(true, &second).await.json();
    assert_eq!(third["scope"], stolen_from["scope"]);
    assert_eq!(house.refresh(true, &first).await.error(), (StatusCode::BAD_REQUEST, "invalid_grant".to_owned()));
    for token in [&second, &text(&third, "refresh_token")] {
        assert_eq!(house.refresh(true, token).await.error().1, "invalid_grant", "the whole family is dead");
    }
    assert_eq!(house.userinfo(&text(&third, "access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.refresh(true, &text(&other, "refresh_token")).await.status, StatusCode::OK, "other families live");
    let replays = house.events("CredentialReplayed");
    assert!(replays.iter().all(|r| r["what"] == "refresh_token" && r["client"] == "edge") && !replays.is_empty());
    assert!(!serde_json::to_string(&*house.sink.audit.lock().unwrap()).unwrap().contains(&first), "no token in the audit log");
}

// B6: two at the same time are two: one wins, and the family ends.
#[tokio::test]
async fn refresh_tokens_shown_at_the_same_time_do_not_both_work() {
    let house = House::new().await;
    house.person("Ada").await;
    let token = text(&house.browser().tokens(true, "Ada").await, "refresh_token");
    let (a, b) = tokio::join!(house.refresh(true, &token), house.refresh(true, &token));
    let won: Vec<_> = [&a, &b].into_iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(house.refresh(true, &text(&won[0].json(), "refresh_token")).await.error().1, "invalid_grant");
}

// B6: a refresh token in another client's hands is a stolen one.
#[tokio::test]
async fn refresh_token_of_another_client_kills_its_family() {
    let house = House::new().await;
    house.person("Ada").await;
    let token = text(&house.browser().tokens(true, "Ada").await, "refresh_token");
    assert_eq!(house.refresh(false, &token).await.error().1, "invalid_grant");
    assert_eq!(house.refresh(true, &token).await.error().1, "invalid_grant");
}

// B6: ends that nobody can put off, and scopes that cannot grow.
#[tokio::test]
async fn families_end_and_scopes_only_shrink() {
    let house = House::new().await;
    house.person("Ada").await;
    let narrowed = |token: String, scope: &'static str| {
        let house = &house;
        async move { house.client(true, "/token", &[("grant_type", "refresh_token"), ("refresh_token", &token), ("scope", scope)]).await }
    };
    let code = house.browser().code(true, "openid offline_access", "Ada").await;
    let mut token = text(&house.exchange(true, &code).await.json(), "refresh_token");
    assert_eq!(narrowed(token.clone(), "openid videos").await.error().1, "invalid_scope");
    let less = narrowed(token, "openid").await.json();
    assert_eq!(less["scope"], "openid");
    token = text(&less, "refresh_token");
    for _ in 0..4 {
        house.pass(7 * 86_400 - 1);
        token = text(&house.refresh(true, &token).await.json(), "refresh_token");
    }
    house.pass(2 * 86_400 + 4);
    assert_eq!(house.refresh(true, &token).await.error().1, "invalid_grant", "30 days, however often it was refreshed");
    let code = house.browser().code(true, "openid offline_access", "Ada").await;
    let unused = text(&house.exchange(true, &code).await.json(), "refresh_token");
    house.pass(7 * 86_400);
    assert_eq!(house.refresh(true, &unused).await.error().1, "invalid_grant", "7 days unused");
}

// B4 in part: the edge is the edge by its connection and its mark; nobody has a shared secret.
#[tokio::test]
async fn clients_are_who_they_are() {
    let house = House::new().await;
    for (case, as_edge, extra) in [
        ("the edge without its mark", false, ("client_id", "edge")),
        ("another client with the edge's mark", true, ("client_id", "palisade-cli")),
        ("no client", false, ("x", "y")),
        ("a client secret", false, ("client_secret", "s")),
        ("an assertion", true, ("client_assertion", "s")),
    ] {
        let params = [("grant_type", "refresh_token"), ("refresh_token", "x"), extra];
        assert_eq!(
            house.client(as_edge, "/token", &params).await.error(),
            (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()),
            "{case}"
        );
    }
    for (params, error) in [
        (&[("grant_type", "password")][..], "unsupported_grant_type"),
        (&[("grant_type", "client_credentials")], "unsupported_grant_type"),
        (&[], "invalid_request"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "unknown")], "invalid_grant"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "a"), ("refresh_token", "b")], "invalid_request"),
    ] {
        assert_eq!(house.client(true, "/token", params).await.error(), (StatusCode::BAD_REQUEST, error.to_owned()), "{params:?}");
    }
}

// RFC 7009.
#[tokio::test]
async fn revoked_tokens_end_with_their_family() {
    let house = House::new().await;
    house.person("Ada").await;
    for which in ["refresh_token", "access_token"] {
        let tokens = house.browser().tokens(true, "Ada").await;
        let (shown, refresh) = (text(&tokens, which), text(&tokens, "refresh_token"));
        let strangers = house.client(false, "/revoke", &[("token", &shown), ("client_id", "palisade-cli")]).await;
        assert_eq!(strangers.status, StatusCode::OK);
        let refresh = text(&house.refresh(true, &refresh).await.json(), "refresh_token");
        assert_eq!(house.client(true, "/revoke", &[("token", &shown)]).await.status, StatusCode::OK, "{which}");
        assert_eq!(house.refresh(true, &refresh).await.error().1, "invalid_grant", "{which}");
    }
    assert_eq!(house.client(true, "/revoke", &[("token", "unknown")]).await.status, StatusCode::OK, "section 2.2");
    assert_eq!(house.client(false, "/revoke", &[("token", "unknown")]).await.status, StatusCode::UNAUTHORIZED);
}

// RFC 6750 section 3.1, and what a signature alone does not say.
#[tokio::test]
async fn userinfo_takes_living_access_tokens_alone() {
    let house = House::new().await;
    house.person("Ada").await;
    let tokens = house.browser().tokens(true, "Ada").await;
    let access = text(&tokens, "access_token");
    let mut edited = access.clone().into_bytes();
    let middle = access.find('.').unwrap() + 10;
    edited[middle] = if edited[middle] == b'A' { b'B' } else { b'A' };
    for (case, token) in
        [("edited", String::from_utf8(edited).unwrap()), ("an ID token", text(&tokens, "id_token")), ("nothing", String::new())]
    {
        let answer = house.userinfo(&token).await;
        assert_eq!(answer.error(), (StatusCode::UNAUTHORIZED, "invalid_token".to_owned()), "{case}");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    }
    house.pass(299);
    assert_eq!(house.userinfo(&access).await.status, StatusCode::OK);
    house.pass(1);
    assert_eq!(house.userinfo(&access).await.status, StatusCode::UNAUTHORIZED, "five minutes");
}

// Whoever is removed is out at once.
#[tokio::test]
async fn removed_people_lose_sessions_codes_and_tokens() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    let other = house.person("Grace").await;
    let browser = house.browser();
    let tokens = browser.tokens(true, "Ada").await;
    let code = browser.get(&authorize(true, &[])).await.param("code").unwrap();
    assert_eq!(house.operate(Method::DELETE, &format!("/users/{user}"), vec![]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.refresh(true, &text(&tokens, "refresh_token")).await.error().1, "invalid_grant");
    assert_eq!(house.exchange(true, &code).await.error().1, "invalid_grant");
    assert_eq!(house.userinfo(&text(&tokens, "access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "no session");
    assert_eq!(browser.sign_in(&authorize(true, &[]), "Ada", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.operate(Method::DELETE, &format!("/users/{user}"), vec![]).await.status, StatusCode::NOT_FOUND);
    let people = house.operate(Method::GET, "/users", vec![]).await.json();
    assert_eq!((people.as_array().unwrap().len(), &people[0]["user"]), (1, &other.into()));
}

// RP-Initiated Logout: at once with an ID token of the session, otherwise only after a question.
#[tokio::test]
async fn signing_out_ends_the_session_and_its_tokens() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    let tokens = browser.tokens(true, "Ada").await;
    let asked = browser.get("/end-session").await;
    assert!(asked.status == StatusCode::OK && asked.text.contains("Sign out?"), "another site's link only gets a question");
    assert_eq!(house.refresh(true, &text(&tokens, "refresh_token")).await.status, StatusCode::OK);
    for (back, honoured) in [(format!("{ORIGIN}/"), true), ("https://evil.example/".to_owned(), false)] {
        let browser = house.browser();
        let tokens = browser.tokens(true, "Ada").await;
        let back = url::form_urlencoded::byte_serialize(back.as_bytes()).collect::<String>();
        let path = format!("/end-session?id_token_hint={}&post_logout_redirect_uri={back}&state=s", text(&tokens, "id_token"));
        let answer = browser.get(&path).await;
        assert_eq!(answer.location() == format!("{ORIGIN}/?state=s"), honoured, "{}", answer.location());
        assert_eq!(browser.cookie("__Host-palisade-login").as_deref(), Some(""), "the cookie is gone");
        assert_eq!(house.refresh(true, &text(&tokens, "refresh_token")).await.error().1, "invalid_grant");
        assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"));
    }
    let link = asked.text.split("href=\"/oidc/end-session").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    browser.get(&format!("/end-session{link}")).await;
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "after the question too");
}

//! One-time links: the first administrator's and everybody else's.

use http::{Method, StatusCode};

use super::house::{House, ORIGIN, PASSWORD, authorize};

const TYPED: &[(&str, &str)] = &[("password", PASSWORD), ("repeat", PASSWORD)];
const NAMED: &[(&str, &str)] = &[("name", "Grace"), ("password", PASSWORD), ("repeat", PASSWORD)];

// No default password anywhere: there is a link as long as nobody has enrolled, and it makes an administrator, once.
#[tokio::test]
async fn first_link_makes_one_administrator() {
    let mut house = House::new().await;
    let older = house.login.first_link().await.unwrap().unwrap().path;
    house.restart().await;
    let link = house.login.first_link().await.unwrap().unwrap().path;
    assert_eq!(house.browser().get(&older).await.status, StatusCode::GONE, "a newer one ends the older");
    for _ in 0..2 {
        assert_eq!(house.browser().get(&link).await.status, StatusCode::OK, "looking does not use it up");
    }
    let (first, second) = (house.browser(), house.browser());
    let mallory = [("name", "Mallory"), TYPED[0], TYPED[1]];
    let (a, b) = tokio::join!(first.enrol(&link, NAMED), second.enrol(&link, &mallory));
    let won = [a.status, b.status].iter().filter(|s| **s == StatusCode::SEE_OTHER).count();
    assert_eq!(won, 1, "{} {}", a.text, b.text);
    assert!(house.login.first_link().await.unwrap().is_none());
    assert_eq!(house.browser().get(&link).await.status, StatusCode::GONE);
    assert!(!house.events("CredentialReplayed").is_empty(), "showing it again is in the audit log");
    let people = house.operate(Method::GET, "/users", vec![]).await.json();
    assert_eq!(
        (people.as_array().unwrap().len(), &people[0]["roles"], &people[0]["enrolled"]),
        (1, &serde_json::json!(["admin"]), &true.into())
    );
}

// Enrolling signs in; the session is one like any other.
#[tokio::test]
async fn enrolled_people_are_signed_in() {
    let house = House::new().await;
    let link = house.login.first_link().await.unwrap().unwrap().path;
    let browser = house.browser();
    let answer = browser.enrol(&link, NAMED).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, format!("{ORIGIN}/")));
    assert!(browser.get(&authorize(true, &[])).await.param("code").is_some());
}

// Links work once, for a day, and for their person; a new invitation ends the older link.
#[tokio::test]
async fn links_work_once_and_for_a_day() {
    let house = House::new().await;
    let older = house.invite("Ada").await;
    let newer = house.invite("ada").await;
    assert_eq!(older.user, newer.user);
    assert_eq!(house.browser().get(&older.path).await.status, StatusCode::GONE);
    assert_eq!(house.browser().enrol(&newer.path, TYPED).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.browser().get(&newer.path).await.status, StatusCode::GONE, "used");
    let late = house.invite("Late").await;
    house.pass(24 * 3600);
    assert_eq!(house.browser().get(&late.path).await.status, StatusCode::GONE, "a day");
    for nonsense in ["/enrol", "/enrol?token=", "/enrol?token=00", "/enrol?token=a&token=b"] {
        assert_eq!(house.browser().get(nonsense).await.status, StatusCode::GONE, "{nonsense}");
    }
    let taken = house.operate(Method::POST, "/users", br#"{"name":"ADA"}"#.to_vec()).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "nobody's password is reset by inviting them again");
}

// B12: what is wrong with a new password is said, and the link stays good.
#[tokio::test]
async fn unfit_passwords_and_names_are_explained() {
    let house = House::new().await;
    house.invite("Taken").await;
    let link = house.login.first_link().await.unwrap().unwrap().path;
    for (name, password, repeat, says) in [
        ("Grace", "short", "short", "between 10 and 128"),
        ("Grace", "password123", "password123", "among the first"),
        ("Grace", "grace is great", "grace is great", "must not contain"),
        ("Grace", PASSWORD, "brisk otter lamppost", "not the same"),
        ("", PASSWORD, PASSWORD, "1 to 64"),
        ("a\u{202e}b", PASSWORD, PASSWORD, "1 to 64"),
        ("taken", PASSWORD, PASSWORD, "has this name"),
    ] {
        let answer = house.browser().enrol(&link, &[("name", name), ("password", password), ("repeat", repeat)]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name} {password}");
        assert!(answer.text.contains(says) && !answer.text.contains(password), "{says}: {}", answer.text);
    }
    assert_eq!(house.browser().enrol(&link, NAMED).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn unreadable_invitations_are_refused() {
    let house = House::new().await;
    for invite in
        [r#"{"name":""}"#, r#"{"name":" a"}"#, r#"{"name":"a\u200bb"}"#, r#"{"name":"a","roles":["A b"]}"#, r#"{"name":"a","x":1}"#, "{"]
    {
        let answer = house.operate(Method::POST, "/users", invite.as_bytes().to_vec()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{invite}");
    }
}

// B12: parameters of OWASP or more, a salt for each, and nothing readable in the file.
#[tokio::test]
async fn passwords_are_kept_as_argon2id_with_a_salt_each() {
    use state::sqlx::{self, Row};
    let house = House::new().await;
    house.person("Ada").await;
    house.person("Grace").await;
    let rows =
        sqlx::query("SELECT salt, hash, memory_kib, passes, lanes FROM person").fetch_all(house.login.0.store.reader()).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for row in &rows {
        let (salt, hash): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
        assert!(salt.len() == 16 && hash.len() == 32);
        assert!(row.get::<i64, _>(2) >= 19 * 1024 && row.get::<i64, _>(3) >= 2 && row.get::<i64, _>(4) >= 1);
        assert!(seen.insert(salt) && seen.insert(hash), "the same password, and yet");
    }
    assert_eq!(seen.len(), 4);
}

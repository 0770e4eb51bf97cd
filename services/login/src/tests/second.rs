//! The second factor: setting it up, signing in with it, losing it. B13.

use contract::login::{ACR_PASSWORD, ACR_SECOND, ISSUER_PATH};
use http::{Method, StatusCode};
use serde_json::json;
use trust::Secret;

use super::house::{Answer, Browser, CLI_BACK, EDGE_BACK, House, PASSWORD, authorize, claims};
use crate::totp::Totp;

/// An authenticator, with the recovery codes that came with it.
struct Device {
    totp: Totp,
    text: String,
    codes: Vec<String>,
}

impl Device {
    /// What a person does with the page that shows the secret.
    fn scanned(page: &Answer) -> Self {
        let text = page.text.split("id=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
        assert!(page.text.contains(&format!("secret={text}")) && page.text.contains("<svg"), "text, link and picture");
        let (mut bits, mut bytes) = (0_u64, Vec::new());
        for (n, letter) in text.bytes().enumerate() {
            bits = bits << 5 | u64::from(if letter.is_ascii_digit() { letter - b'2' + 26 } else { letter - b'A' });
            if n % 8 == 7 {
                bytes.extend_from_slice(&bits.to_be_bytes()[3..]);
                bits = 0;
            }
        }
        assert_eq!(bytes.len(), 20, "160 bits");
        Self { totp: Totp::of(Secret::new(bytes)), text, codes: Vec::new() }
    }

    fn code(&self, house: &House) -> String {
        self.totp.shown(house.clock().unix_s())
    }
}

fn codes_on(page: &Answer) -> Vec<String> {
    page.text.split("<li>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

/// Sends that form of a page that has several.
async fn press(browser: &Browser<'_>, page: Answer, act: &str) -> Answer {
    let form = page.text.split("<form").find(|form| form.contains(&format!("value=\"{act}\""))).unwrap().to_owned();
    browser.submit("/factor", &Answer { text: form, ..page }, &[]).await
}

fn is_asked(answer: &Answer) -> bool {
    answer.text.contains("name=\"proof\"")
}

/// Ada signs in with her password at this browser, as far as that leads.
async fn password(browser: &Browser<'_>, changes: &[(&str, &str)]) -> Answer {
    browser.sign_in(&authorize(true, changes), "Ada", PASSWORD).await
}

/// Ada sets up a second factor at this browser, at which she signs in for that.
async fn set_up(house: &House, browser: &Browser<'_>) -> Device {
    assert!(password(browser, &[("prompt", "login")]).await.param("code").is_some());
    let page = browser.get("/factor").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let shown = browser.submit("/factor", &page, &[]).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
    let mut device = Device::scanned(&shown);
    let done = browser.submit("/factor", &shown, &[("code", &device.code(house))]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    device.codes = codes_on(&done);
    house.pass(30);
    device
}

async fn with_device(house: &House) -> Device {
    house.person("Ada").await;
    set_up(house, &house.browser()).await
}

/// Ada signs in with both.
async fn both(house: &House, browser: &Browser<'_>, device: &Device, changes: &[(&str, &str)]) -> Answer {
    let asked = password(browser, changes).await;
    assert!(is_asked(&asked), "{}", asked.text);
    browser.submit("/sign-in/second", &asked, &[("code", &device.code(house))]).await
}

// B13: who has a second factor has no session before the code; tokens say what was proved and when.
#[tokio::test]
async fn signing_in_takes_the_second_factor_of_who_has_one() {
    let house = House::new().await;
    house.person("Bob").await;
    let device = with_device(&house).await;
    let browser = house.browser();
    let asked = password(&browser, &[]).await;
    assert!(asked.status == StatusCode::OK && is_asked(&asked));
    assert!(browser.cookie(crate::session::COOKIE).is_none() && browser.cookie(crate::device::COOKIE).is_none(), "nothing is begun");
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "nobody is signed in");
    let wrong = browser.submit("/sign-in/second", &asked, &[("code", "000000")]).await;
    assert!(wrong.status == StatusCode::UNAUTHORIZED && is_asked(&wrong) && browser.cookie(crate::session::COOKIE).is_none());
    house.pass(40);
    let shown = device.code(&house);
    let typed = format!("{} {}", &shown[..3], &shown[3..]);
    let done = browser.submit("/sign-in/second", &wrong, &[("code", &typed)]).await;
    let tokens = house.exchange(true, &done.param("code").unwrap()).await.json();
    let (id, now_s) = (claims(tokens["id_token"].as_str().unwrap()), house.clock().unix_s());
    assert_eq!((&id["acr"], &id["amr"], &id["auth_time"]), (&json!(ACR_SECOND), &json!(["pwd", "otp", "mfa"]), &json!(now_s)));
    let access = claims(tokens["access_token"].as_str().unwrap());
    assert_eq!((&access["acr"], &access["auth_time"]), (&json!(ACR_SECOND), &json!(now_s)));
    house.pass(100);
    let renewed = house.refresh(true, tokens["refresh_token"].as_str().unwrap()).await.json();
    let access = claims(renewed["access_token"].as_str().unwrap());
    assert_eq!((&access["acr"], &access["auth_time"]), (&json!(ACR_SECOND), &json!(now_s)), "renewed is not proved again");

    let bob = claims(house.browser().tokens(true, "Bob").await["id_token"].as_str().unwrap());
    assert_eq!((&bob["acr"], &bob["amr"]), (&json!(ACR_PASSWORD), &json!(["pwd"])));
    let people = house.operate(Method::GET, "/users", vec![]).await.json();
    let of = |name: &str| people.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["second_factor"].clone();
    assert_eq!((of("Ada"), of("Bob")), (json!(true), json!(false)));
    assert!(house.events("SignInRefused").iter().any(|r| r["reason"] == json!("second_factor_failed")));
    let said = house.browser().get("/.well-known/openid-configuration").await.json();
    assert_eq!(said["acr_values_supported"], json!([ACR_PASSWORD, ACR_SECOND]));
}

// B13: RFC 6238, section 5.2: a code works once, also the one that confirmed, also over a restart; the window has one step on each side.
#[tokio::test]
async fn a_code_works_once_and_in_its_time() {
    let mut house = House::new().await;
    house.person("Ada").await;
    let device = {
        let browser = house.browser();
        let device = set_up(&house, &browser).await;
        let asked = password(&house.browser(), &[]).await;
        assert!(is_asked(&asked));
        device
    };
    let now_s = house.clock().unix_s();
    let before = device.totp.shown(now_s - 30);
    let refused = async |house: &House, code: &str| {
        let browser = house.browser();
        let asked = password(&browser, &[]).await;
        browser.submit("/sign-in/second", &asked, &[("code", code)]).await.status == StatusCode::UNAUTHORIZED
    };
    assert!(refused(&house, &before).await, "within the window, but it was what confirmed");
    let code = device.code(&house);
    assert!(!refused(&house, &code).await);
    assert!(refused(&house, &code).await, "a replay");
    house.restart().await;
    assert!(refused(&house, &code).await, "a replay after a restart");
    assert!(refused(&house, &device.totp.shown(now_s + 60)).await, "two steps ahead");
    assert!(!refused(&house, &device.totp.shown(now_s + 30)).await, "one step ahead");
    assert!(refused(&house, &code).await, "older than what was accepted");
    house.pass(120);
    assert!(refused(&house, &device.totp.shown(house.clock().unix_s() - 60)).await, "two steps behind");
    assert!(!refused(&house, &device.totp.shown(house.clock().unix_s() - 30)).await, "one step behind");
}

// B12, B13: codes are counted by account; below the limit the right one is good, above it it is not looked at; the wait ends.
#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let house = House::new().await;
    let device = with_device(&house).await;
    let mut browser = house.browser();
    let guess =
        async |browser: &Browser<'_>, asked: &Answer, code: &str| browser.submit("/sign-in/second", asked, &[("code", code)]).await.status;
    let asked = password(&browser, &[]).await;
    for _ in 0..5 {
        assert_eq!(guess(&browser, &asked, "000000").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(guess(&browser, &asked, &device.code(&house)).await, StatusCode::SEE_OTHER, "five are free");
    house.pass(60);
    // From wherever: it is the account that is counted.
    browser = house.browser();
    let asked = password(&browser, &[]).await;
    let mut other = house.browser();
    other.source = "203.0.113.9".to_owned();
    let asked_there = password(&other, &[]).await;
    for _ in 0..3 {
        guess(&browser, &asked, "000000").await;
        guess(&other, &asked_there, "000000").await;
    }
    assert_eq!(guess(&browser, &asked, &device.code(&house)).await, StatusCode::UNAUTHORIZED, "after six the right one is not looked at");
    assert_eq!(guess(&other, &asked_there, &device.code(&house)).await, StatusCode::UNAUTHORIZED);
    assert!(house.events("SignInRefused").iter().any(|r| r["reason"] == json!("rate_exceeded")));
    house.pass(2);
    assert_eq!(
        guess(&browser, &asked, &device.code(&house)).await,
        StatusCode::SEE_OTHER,
        "the wait is over, and nothing was used up by it"
    );
}

// B12, B13: half a sign-in clears nothing: the password's own count goes on until the code was right, too.
#[tokio::test]
async fn the_second_step_is_no_way_around_the_passwords_limit() {
    let house = House::new().await;
    let device = with_device(&house).await;
    house.pass(24 * 3600 + 1);
    let mut browser = house.browser();
    browser.source = "203.0.113.9".to_owned();
    for n in 0..6 {
        assert!(is_asked(&password(&browser, &[]).await), "{n}");
    }
    let refused = password(&browser, &[]).await;
    assert!(refused.status == StatusCode::UNAUTHORIZED && !is_asked(&refused));
    house.pass(2);
    assert_eq!(both(&house, &browser, &device, &[]).await.status, StatusCode::SEE_OTHER);
    for n in 0..3 {
        assert!(is_asked(&password(&browser, &[("prompt", "login")]).await), "{n}: cleared by the whole");
    }
}

// B12, B13: whether somebody has a second factor is told after the right password alone.
#[tokio::test]
async fn nobody_learns_who_has_a_second_factor_without_the_password() {
    let house = House::new().await;
    house.person("Bob").await;
    with_device(&house).await;
    let mut answers = Vec::new();
    for name in ["Ada", "Bob", "Eve"] {
        let (before, browser) = (house.computed(), house.browser());
        let answer = browser.sign_in(&authorize(true, &[]), name, "not the password").await;
        assert_eq!(house.computed() - before, 1);
        assert!(!is_asked(&answer));
        answers.push((answer.status, answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

// B13: a recovery code works once, for its person, and is a second factor; new ones end the old ones.
#[tokio::test]
async fn recovery_codes_work_once() {
    let house = House::new().await;
    let device = with_device(&house).await;
    assert_eq!(device.codes.len(), 10);
    let recover = async |browser: &Browser<'_>, code: &str| {
        let asked = password(browser, &[("prompt", "login")]).await;
        browser.submit("/sign-in/second", &asked, &[("recovery", code)]).await
    };
    let browser = house.browser();
    let done = recover(&browser, &device.codes[0].to_uppercase().replace('-', " ")).await;
    let tokens = house.exchange(true, &done.param("code").unwrap()).await.json();
    assert_eq!(claims(tokens["id_token"].as_str().unwrap())["acr"], ACR_SECOND);
    assert!(house.events("ActDone").iter().any(|act| act["act"] == json!("login.recovery.use")));
    assert_eq!(recover(&house.browser(), &device.codes[0]).await.status, StatusCode::UNAUTHORIZED, "twice");
    let page = browser.get("/factor").await;
    assert!(page.text.contains("<b>9</b>"), "{}", page.text);
    let fresh = codes_on(&press(&browser, page, "codes").await);
    assert_eq!(recover(&house.browser(), &device.codes[1]).await.status, StatusCode::UNAUTHORIZED, "of the old ones");
    assert_eq!(recover(&house.browser(), &fresh[0]).await.status, StatusCode::SEE_OTHER);
}

// B13: Core, section 3.1.2.1: acr_values, max_age and prompt lead to a step-up where the session has less.
#[tokio::test]
async fn a_session_that_has_less_is_asked_for_more() {
    let house = House::new().await;
    let device = with_device(&house).await;
    let browser = house.browser();
    assert!(both(&house, &browser, &device, &[]).await.param("code").is_some());
    let other = "urn:other";
    let list = format!("{other} {ACR_SECOND} {ACR_PASSWORD}");
    for (case, changes, silent) in [
        ("a second factor", &[("acr_values", ACR_SECOND)][..], true),
        ("the first that is known", &[("acr_values", list.as_str())], true),
        ("of just now", &[("acr_values", ACR_SECOND), ("max_age", "300")], true),
        ("again", &[("acr_values", ACR_SECOND), ("prompt", "login")], false),
    ] {
        let answer = browser.get(&authorize(false, changes)).await;
        assert_eq!(answer.location().starts_with(CLI_BACK) && answer.param("code").is_some(), silent, "{case}");
    }
    house.pass(300);
    let just_now = [("acr_values", ACR_SECOND), ("max_age", "300")];
    assert!(browser.get(&authorize(true, &just_now)).await.param("code").is_some(), "300 s");
    house.pass(1);
    assert!(browser.get(&authorize(true, &just_now)).await.location().contains("/sign-in?"), "301 s");
    let silent = [("acr_values", ACR_SECOND), ("max_age", "300"), ("prompt", "none")];
    assert_eq!(browser.get(&authorize(true, &silent)).await.param("error").as_deref(), Some("login_required"));
    let done = both(&house, &browser, &device, &just_now).await;
    let id = house.exchange(true, &done.param("code").unwrap()).await.json();
    assert_eq!(claims(id["id_token"].as_str().unwrap())["auth_time"], json!(house.clock().unix_s()));
}

// B13: who has no second factor is never said to have proved one.
#[tokio::test]
async fn a_person_without_a_second_factor_cannot_step_up() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    let unmet = Some("unmet_authentication_requirements");
    let back = password(&browser, &[("acr_values", ACR_SECOND)]).await;
    assert!(back.location().starts_with(EDGE_BACK) && back.param("code").is_none() && back.param("error").as_deref() == unmet);
    assert!(browser.cookie(crate::session::COOKIE).is_some(), "but she is signed in");
    for prompt in ["", "none"] {
        let answer = browser.get(&authorize(true, &[("acr_values", ACR_SECOND), ("prompt", prompt)])).await;
        assert_eq!(answer.param("error").as_deref(), unmet, "{prompt}");
    }
    let list = format!("{ACR_PASSWORD} {ACR_SECOND}");
    for acr_values in ["urn:other", ACR_PASSWORD, &list] {
        let answer = browser.get(&authorize(true, &[("acr_values", acr_values)])).await;
        assert!(answer.param("code").is_some(), "{acr_values}");
    }
}

// B13: the page about it takes a sign-in of just now, and its own form.
#[tokio::test]
async fn the_page_about_it_takes_a_sign_in_of_just_now() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    let away =
        |answer: &Answer| answer.status == StatusCode::SEE_OTHER && answer.location().starts_with("/auth/login?return=%2Foidc%2Ffactor");
    assert!(away(&browser.get("/factor").await), "nobody");
    password(&browser, &[]).await;
    house.pass(300);
    let page = browser.get("/factor").await;
    assert_eq!(page.status, StatusCode::OK);
    house.pass(1);
    assert!(away(&browser.get("/factor").await) && away(&browser.submit("/factor", &page, &[]).await), "301 s");
    let forged = house.browser().submit("/factor", &page, &[]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN, "another browser's form");
    let device = set_up(&house, &browser).await;
    assert_eq!(both(&house, &browser, &device, &[("prompt", "login")]).await.status, StatusCode::SEE_OTHER);
    house.pass(301);
    let page = browser.get("/factor").await;
    assert!(away(&page) && page.location().ends_with("max_age=300"), "{}", page.location());
}

// B13: what is not confirmed does not count, for long or at all.
#[tokio::test]
async fn a_secret_counts_once_it_is_confirmed() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    password(&browser, &[]).await;
    let shown = browser.submit("/factor", &browser.get("/factor").await, &[]).await;
    let device = Device::scanned(&shown);
    assert!(password(&house.browser(), &[]).await.param("code").is_some(), "not yet");
    let wrong = browser.submit("/factor", &shown, &[("code", "000000")]).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains(&device.text), "the same one, to try again");
    house.pass(899);
    password(&browser, &[("prompt", "login")]).await;
    assert_eq!(browser.submit("/factor", &shown, &[("code", "000000")]).await.status, StatusCode::UNPROCESSABLE_ENTITY, "899 s");
    house.pass(1);
    let late = browser.submit("/factor", &shown, &[("code", &device.code(&house))]).await;
    assert_eq!((late.status, late.location()), (StatusCode::SEE_OTHER, format!("{ISSUER_PATH}/factor")), "900 s: begin again");
    assert!(password(&house.browser(), &[]).await.param("code").is_some());
}

// B13: sessions that proved less end when one is set up; all end when it goes, whoever takes it away.
#[tokio::test]
async fn setting_up_and_losing_it_end_what_proved_less() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    let elsewhere = house.browser();
    let tokens = elsewhere.tokens(true, "Ada").await;
    let browser = house.browser();
    let device = set_up(&house, &browser).await;
    assert!(elsewhere.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "the other browser");
    assert_eq!(house.refresh(true, tokens["refresh_token"].as_str().unwrap()).await.error().1, "invalid_grant");
    assert!(browser.get(&authorize(true, &[("acr_values", ACR_SECOND)])).await.param("code").is_some(), "this one has both now");

    let removed = press(&browser, browser.get("/factor").await, "remove").await;
    assert_eq!((removed.status, removed.location()), (StatusCode::SEE_OTHER, "/auth/logout".to_owned()));
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "signed out by that");
    assert!(password(&browser, &[]).await.param("code").is_some(), "and in by the password alone");
    assert_eq!(device.codes.len(), 10);

    let again = set_up(&house, &browser).await;
    let half_way = house.browser();
    let asked = password(&half_way, &[]).await;
    let reset = format!("/users/{user}/factor");
    assert_eq!(house.operate(Method::DELETE, &reset, vec![]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.operate(Method::DELETE, &reset, vec![]).await.status, StatusCode::NOT_FOUND);
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"));
    assert!(password(&browser, &[]).await.param("code").is_some());
    let late = half_way.submit("/sign-in/second", &asked, &[("code", &again.code(&house))]).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED, "begun before the reset: its secret is gone");
    let acts: Vec<String> = house.events("ActDone").iter().map(|act| act["act"].as_str().unwrap().to_owned()).collect();
    for act in ["login.factor.confirm", "login.factor.remove", "login.factor.reset"] {
        assert!(acts.iter().any(|a| a == act), "{act} is in the audit log: {acts:?}");
    }
}

// B13: that the password was right is told for this browser and five minutes.
#[tokio::test]
async fn half_a_sign_in_is_one_browsers_and_ends() {
    let house = House::new().await;
    let device = with_device(&house).await;
    let (browser, thief) = (house.browser(), house.browser());
    let asked = password(&browser, &[]).await;
    let mut page = thief.get(&thief.get(&authorize(true, &[])).await.location()).await;
    let proof = asked.text.split("name=\"proof\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    page.text.push_str(&format!("<input type=\"hidden\" name=\"proof\" value=\"{proof}\">"));
    let stolen = thief.submit("/sign-in/second", &page, &[("code", &device.code(&house))]).await;
    assert_eq!(stolen.status, StatusCode::BAD_REQUEST, "{}", stolen.text);
    house.pass(300);
    assert_eq!(browser.submit("/sign-in/second", &asked, &[("code", "000000")]).await.status, StatusCode::UNAUTHORIZED, "300 s");
    house.pass(1);
    let late = browser.submit("/sign-in/second", &asked, &[("code", &device.code(&house))]).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST, "301 s");
}

// B13: nothing readable is kept, or told to anybody; a secret in another person's place does not open.
#[tokio::test]
async fn secrets_are_sealed_and_recovery_codes_are_digests() {
    use state::sqlx::{self, Row};
    let house = House::new().await;
    let user = house.person("Ada").await;
    let device = set_up(&house, &house.browser()).await;
    let store = &house.login.0.store;
    let row = sqlx::query("SELECT sealed FROM factor").fetch_one(store.reader()).await.unwrap();
    let sealed: String = row.get(0);
    assert!(sealed.starts_with("sealed1."));
    assert!(house.login.0.sealer.open(&format!("second factor of {user}"), 1, &sealed).is_ok());
    assert!(house.login.0.sealer.open("second factor of somebody else", 1, &sealed).is_err());
    let records: String = house.sink.audit.lock().unwrap().iter().map(|r| format!("{:?}", r.fields)).collect();
    let files: Vec<u8> =
        std::fs::read_dir(house.folder()).unwrap().flat_map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default()).collect();
    let has = |needle: &[u8]| files.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle));
    assert!(has(user.as_bytes()), "the files are read");
    let plain = device.codes.iter().map(|code| code.replace('-', ""));
    for secret in plain.chain(device.codes.iter().cloned()).chain([device.text.clone(), hex::encode(device.totp.expose())]) {
        assert!(!records.to_lowercase().contains(&secret.to_lowercase()) && !has(secret.as_bytes()), "{secret}");
    }
    assert!(!has(device.totp.expose()));
}

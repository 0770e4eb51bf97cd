//! B13: a second factor through the real pages: set up, asked for, needed where the manifest says so, lost.

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use xtask::curl::{Answer, Ask};
use xtask::person::Person;
use xtask::webdriver::Browser;

use crate::Stage;

const SOON: Duration = Duration::from_secs(20);
const PASSWORD: &str = "long walks over quiet hills";
/// Deleting a video takes a second proof here; in the reference system it does not.
const ASKING: (&str, &str) =
    ("methods = [\"DELETE\"], purpose = \"manage\"", "methods = [\"DELETE\"], step_up = true, purpose = \"manage\"");
const STEP_UP: &str = "/auth/login?return=/&acr_values=urn:palisade:acr:second-factor&max_age=300";

/// A phone: RFC 6238 by OpenSSL's HMAC, and never the same code twice.
struct Phone {
    key: String,
    last: Cell<u64>,
}

impl Phone {
    fn scan(page: &str) -> Self {
        let text = page.split("id=\"secret\">").nth(1).unwrap_or_else(|| panic!("no secret: {page}")).split('<').next().unwrap();
        let five = |letter: u8| if letter.is_ascii_digit() { letter - b'2' + 26 } else { letter - b'A' };
        let bits: String = text.bytes().map(|letter| format!("{:05b}", five(letter))).collect();
        let bytes = bits.as_bytes().chunks(8).map(|eight| u8::from_str_radix(std::str::from_utf8(eight).unwrap(), 2).unwrap());
        Self { key: bytes.map(|byte| format!("{byte:02x}")).collect(), last: Cell::new(0) }
    }

    /// A code that counts and was not shown before; waits for one if need be.
    fn next(&self) -> String {
        loop {
            let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
            // One that is about to end might have ended when it arrives.
            let first = if now_s % 30 < 20 { now_s / 30 - 1 } else { now_s / 30 };
            let step = first.max(self.last.get() + 1);
            if step <= now_s / 30 + 1 {
                self.last.set(step);
                return self.code(step);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn code(&self, step: u64) -> String {
        let key = format!("hexkey:{}", self.key);
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha1", "-mac", "HMAC", "-macopt", &key, "-binary"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut openssl = openssl.spawn().unwrap();
        openssl.stdin.take().unwrap().write_all(&step.to_be_bytes()).unwrap();
        let mac = openssl.wait_with_output().unwrap().stdout;
        let at = usize::from(mac[19] & 15);
        format!("{:06}", (u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff) % 1_000_000)
    }
}

/// Tries to delete a video of hers.
fn delete(person: &Person) -> Answer {
    let created = person.api("POST", "/api/videos", Some(&json!({ "name": "a.mp4", "size": 10, "type": "video/mp4" })), 201).unwrap();
    let origin = person.curl.address().to_owned();
    let ask = Ask { method: "DELETE", headers: &[("origin", &origin), ("accept", "application/json")], ..Ask::default() };
    person.curl.ask(&format!("/api/videos/{}", created["id"].as_str().unwrap()), &ask).unwrap()
}

fn is_refused(answer: &Answer) -> bool {
    let challenge = answer.headers.get("www-authenticate").cloned().unwrap_or_default();
    let said = answer.text().contains("step_up_missing") && challenge.contains("error=\"insufficient_user_authentication\"");
    assert_eq!(said, answer.status == 401, "{}: {challenge}: {}", answer.status, answer.text());
    said
}

/// Signs in at a new browser, as far as the password leads.
fn by_password(stage: &Stage, browser: &str) -> (Person, Answer) {
    let person = stage.running.person(browser, &stage.scratch.0);
    let page = person.curl.page("/auth/login?return=/").unwrap();
    let asked = person.submit(&page, &[("name", "ada"), ("password", PASSWORD)]).unwrap();
    (person, asked)
}

fn is_asked(answer: &Answer) -> bool {
    answer.text().contains("name=\"proof\"")
}

fn me(person: &Person) -> Value {
    person.api("GET", "/auth/me", None, 200).unwrap()
}

// B13: an administrator's act that takes a second proof is refused to a session, and to a password, however fresh; the proof opens it.
#[test]
fn an_act_that_takes_a_second_proof_is_refused_without_it() {
    let stage = Stage::set_with_copy(&[ASKING]);
    let ada = &stage.ada;
    assert!(is_refused(&delete(ada)), "signed in a moment ago, by a password");
    // Asking for the step-up leads who has no second factor to where they get one.
    let page = ada.curl.page(STEP_UP).unwrap();
    assert!(page.url.ends_with("/oidc/factor"), "{}", page.url);
    let shown = ada.submit(&page, &[]).unwrap();
    let phone = Phone::scan(&shown.text());
    let kept = ada.submit(&shown, &[("code", &phone.next())]).unwrap();
    let text = kept.text();
    let codes: Vec<&str> = text.split("<li>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(codes.len(), 10, "{text}");
    assert!(is_refused(&delete(ada)), "the edge's session is the one of before");
    assert_eq!(ada.curl.page(STEP_UP).unwrap().status, 200);
    assert_eq!(me(ada)["acr"], "urn:palisade:acr:second-factor");
    let done = delete(ada);
    assert_eq!(done.status, 204, "{}", done.text());

    // Somebody with the password alone has nothing; with the code, everything; with the same code again, nothing.
    let (thief, asked) = by_password(&stage, "thief");
    assert!(asked.status == 200 && is_asked(&asked), "{}", asked.text());
    assert_eq!(thief.api("GET", "/auth/me", None, 401).unwrap()["reason"], "credential_missing");
    let wrong = thief.submit(&asked, &[("code", "000000")]).unwrap();
    assert!(wrong.status == 401 && is_asked(&wrong));
    let (other, asked) = by_password(&stage, "other");
    let code = phone.next();
    assert_eq!(other.submit(&asked, &[("code", &code)]).unwrap().status, 200);
    assert_eq!(delete(&other).status, 204);
    let (replaying, asked) = by_password(&stage, "replaying");
    assert_eq!(replaying.submit(&asked, &[("code", &code)]).unwrap().status, 401, "a replay");
    assert_eq!(replaying.submit(&asked, &[("recovery", codes[0])]).unwrap().status, 200);
    assert_eq!(delete(&replaying).status, 204);
    let (again, asked) = by_password(&stage, "again");
    assert_eq!(again.submit(&asked, &[("recovery", codes[0])]).unwrap().status, 401, "a recovery code twice");

    // The operator takes it away: the password is enough again, and never for what takes a second proof.
    let people: Value = serde_json::from_str(&stage.running.cli(&["user", "list"]).unwrap()).unwrap();
    assert_eq!(people[0]["second_factor"], true);
    stage.running.cli(&["user", "reset-second-factor", people[0]["user"].as_str().unwrap()]).unwrap();
    let (after, signed_in) = by_password(&stage, "after");
    assert!(signed_in.status == 200 && !is_asked(&signed_in));
    assert_eq!(me(&after)["acr"], "urn:palisade:acr:password");
    assert!(is_refused(&delete(&after)));
    let audit = stage.audit();
    for act in ["login.factor.confirm", "login.recovery.use", "login.factor.reset", "second_factor_failed", "step_up_missing"] {
        assert!(audit.contains(act), "{act} is not in the audit log");
    }
    for secret in codes.iter().copied().chain([code.as_str(), phone.key.as_str()]) {
        assert!(!audit.contains(&format!("\"{secret}\"")), "{secret} is in the audit log");
    }
}

// B13, N9: the pages in a browser, without an error on its console. Pictures are left in `target/screenshots`.
#[test]
fn a_person_sets_up_a_second_factor_in_a_browser() {
    let stage = Stage::set();
    let browser = Browser::start(&stage.scratch.0).unwrap();
    let shot = |name: &str| browser.screenshot(&xtask::tree::root().join("target/screenshots").join(name)).unwrap();
    let fill = |fields: &[(&str, &str)]| {
        for (name, value) in fields {
            browser.keys(&browser.find(&format!("input[name={name}]"), SOON).unwrap(), value).unwrap();
        }
        browser.click(&browser.find("form button[type=submit]", SOON).unwrap()).unwrap();
    };
    browser.go(&format!("{}/oidc/factor", stage.running.address)).unwrap();
    fill(&[("name", "ada"), ("password", PASSWORD)]);
    browser.find("input[value=begin]", SOON).unwrap();
    shot("factor-off.png");
    fill(&[]);
    browser.find(".picture svg", SOON).unwrap();
    let wide =
        browser.script("const at = document.querySelector('.picture svg').getBoundingClientRect(); return [at.width, at.height]").unwrap();
    assert!(wide[0].as_f64().unwrap() > 150.0 && wide[0] == wide[1], "the picture is shown, and square: {wide}");
    shot("factor-scan.png");
    let page = browser.script("return document.documentElement.outerHTML").unwrap();
    let phone = Phone::scan(page.as_str().unwrap());
    fill(&[("code", &phone.next())]);
    browser.until("document.querySelectorAll('.codes li').length === 10", SOON).unwrap();
    shot("factor-codes.png");
    browser.go(&format!("{}/oidc/factor", stage.running.address)).unwrap();
    browser.find("input[value=remove]", SOON).unwrap();
    shot("factor-on.png");
    browser.go(&format!("{}/auth/login?return=/&prompt=login", stage.running.address)).unwrap();
    fill(&[("name", "ada"), ("password", PASSWORD)]);
    browser.find("input[name=proof]", SOON).unwrap();
    shot("second.png");
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    fill(&[("code", "000000")]);
    browser.find("#error", SOON).unwrap();
    shot("second-wrong.png");
    // A refused code is answered with 401, which a browser notes.
    browser.complaints().unwrap();
    fill(&[("code", &phone.next())]);
    browser.until("document.querySelector('#person')?.textContent === 'ada'", SOON).unwrap();
    // Removing it signs out, here at once: the start of the system leads to sign-in, which asks for the password alone.
    browser.go(&format!("{}/oidc/factor", stage.running.address)).unwrap();
    browser.click(&browser.find("form:nth-of-type(2) button", SOON).unwrap()).unwrap();
    browser.find("input[name=password]", SOON).unwrap();
    fill(&[("name", "ada"), ("password", PASSWORD)]);
    browser.until("document.querySelector('#person')?.textContent === 'ada'", SOON).unwrap();
}

//! What a browser does at `login`, so that a row has a page, a code or a token to be asked with.

use contract::login::{CLIENT_HEADER, SOURCE_HEADER};
use contract::{Body, body};
use http::{Request, StatusCode, header};
use proxy::enforce::Proof;

use super::asked::{Asked, asked};
use super::house::{House, ORIGIN, get, operator, request};
use crate::breach::authenticator::Authenticator;

pub const PASSWORD: &str = "brisk otter lantern";
pub const BACK: &str = "https://video.example:8443/auth/callback";
/// RFC 7636, appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const FORM: &str = "application/x-www-form-urlencoded";

impl House {
    pub async fn sent(&self, request: Request<Body>) -> (StatusCode, String, String) {
        let answer = self.point("login").answer(&self.proof("edge"), request).await;
        for set in answer.headers().get_all(header::SET_COOKIE) {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            self.cookies().lock().unwrap().insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        let status = answer.status();
        let location = answer.headers().get(header::LOCATION).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let bytes = body::collect(answer.into_body(), 1 << 20).await.unwrap();
        (status, location, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn sign_in_path(&self) -> String {
        let (status, location, text) = self.sent(get(&authorize())).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        location.strip_prefix("/oidc").unwrap().to_owned()
    }

    /// The hidden fields of a page.
    pub async fn page(&self, path: &str) -> Vec<(String, String)> {
        let mut asked = get(path);
        let cookies: Vec<String> = self.cookies().lock().unwrap().iter().map(|(n, v)| format!("{n}={v}")).collect();
        if !cookies.is_empty() {
            asked.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        }
        let (status, _, text) = self.sent(asked).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        hidden(&text)
    }

    /// Somebody new who has a second factor: name, id, and a recovery code.
    pub async fn with_second_factor(&self) -> (String, String, String) {
        let name = format!("F{}", self.fresh());
        let (status, _, text) = self.sent((self.enrolment(&name).await.make)()).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        let mut fields = self.page("/factor").await;
        let mut shown = String::new();
        for _ in 0..2 {
            let pairs: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let cookies: Vec<String> = self.cookies().lock().unwrap().iter().map(|(n, v)| format!("{n}={v}")).collect();
            let cookies = cookies.join("; ");
            let headers = [(header::CONTENT_TYPE.as_str(), FORM), (header::ORIGIN.as_str(), ORIGIN), (header::COOKIE.as_str(), &cookies)];
            let (status, _, text) = self.sent(request("POST", "/factor", &headers, &encoded(&pairs))).await;
            assert_eq!(status, StatusCode::OK, "{text}");
            if let Some(phone) = Authenticator::scan(&text) {
                fields = hidden(&text);
                fields.push(("code".to_owned(), phone.shows(self.now_s(), 0)));
            }
            shown = text;
        }
        let people: serde_json::Value = serde_json::from_str(&self.text("login", &operator(), get("/users")).await).unwrap();
        let person = people.as_array().unwrap().iter().find(|person| person["name"] == name.as_str()).unwrap();
        assert_eq!(person["second_factor"], true);
        let code = shown.split("<li>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        (name, person["user"].as_str().unwrap().to_owned(), code)
    }

    pub fn form(&self, proof: Proof, path: &str, fields: &[(String, String)]) -> Asked {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        // The form's cookie, and not the session's: a session would be ended by a new one.
        let cookies = self.cookies().lock().unwrap();
        let cookie: Vec<String> = cookies.iter().filter(|(n, _)| n.contains("form")).map(|(n, v)| format!("{n}={v}")).collect();
        let headers = [
            (header::CONTENT_TYPE.as_str(), FORM),
            (header::ORIGIN.as_str(), ORIGIN),
            (header::COOKIE.as_str(), &cookie.join("; ")),
            (SOURCE_HEADER, "198.51.100.7"),
        ];
        asked(proof, "POST", path, &headers, &encoded(&fields))
    }

    pub async fn invited(&self, name: &str) -> String {
        let invite = serde_json::json!({ "name": name }).to_string();
        let invited = self.text("login", &operator(), request("POST", "/users", &[], &invite)).await;
        let invited: serde_json::Value = serde_json::from_str(&invited).unwrap();
        invited["path"].as_str().unwrap().to_owned()
    }

    pub async fn enrolment(&self, name: &str) -> Asked {
        let mut fields = self.page(&self.invited(name).await).await;
        fields.extend([("password", PASSWORD), ("repeat", PASSWORD)].map(|(n, v)| (n.to_owned(), v.to_owned())));
        self.form(self.proof("edge"), "/enrol", &fields)
    }

    /// Ann has a password.
    pub async fn enrolled(&self) {
        if !self.text("login", &operator(), get("/users")).await.contains("\"Ann\"") {
            let (status, _, text) = self.sent((self.enrolment("Ann").await.make)()).await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        }
    }

    pub async fn code(&self) -> String {
        self.enrolled().await;
        let mut fields = self.page(&self.sign_in_path().await).await;
        fields.extend([("name".to_owned(), "Ann".to_owned()), ("password".to_owned(), PASSWORD.to_owned())]);
        let signed_in = self.form(self.proof("edge"), "/sign-in", &fields);
        let (status, location, text) = self.sent((signed_in.make)()).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        let (_, rest) = location.split_once("code=").unwrap();
        rest.split('&').next().unwrap().to_owned()
    }

    pub async fn tokens(&self) -> serde_json::Value {
        let code = self.code().await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", BACK), ("code_verifier", VERIFIER)];
        let (status, _, text) =
            self.sent(request("POST", "/token", &[("content-type", FORM), (CLIENT_HEADER, "edge")], &encoded(&fields))).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The hidden fields of a page's forms.
pub fn hidden(text: &str) -> Vec<(String, String)> {
    let inputs = text.split("<input type=\"hidden\" name=\"").skip(1);
    inputs
        .filter_map(|rest| rest.split_once("\" value=\"").and_then(|(n, v)| Some((n.to_owned(), v.split('"').next()?.to_owned()))))
        .collect()
}

pub fn authorize() -> String {
    let fields = [
        ("response_type", "code"),
        ("client_id", "edge"),
        ("redirect_uri", BACK),
        ("scope", "openid profile offline_access videos"),
        ("state", "s"),
        ("nonce", "n"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    format!("/authorize?{}", encoded(&fields))
}

/// `application/x-www-form-urlencoded`.
pub fn encoded(fields: &[(&str, &str)]) -> String {
    let escaped = |text: &str| -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    fields.iter().map(|(n, v)| format!("{}={}", escaped(n), escaped(v))).collect::<Vec<_>>().join("&")
}

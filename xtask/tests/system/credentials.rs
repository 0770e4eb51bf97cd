//! Credentials with real processes: A8 (opaque tokens), A9 (DPoP), A10 (client certificates), A12 (API keys), and the access log that tells
//! of all of them. One running system; clients are curl and openssl.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::curl::{Answer, Ask, Curl};
use xtask::demo::Scratch;

use crate::{Stage, contained};

const BACK: &str = "http://127.0.0.1:4000/cb";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const HOSTS: &str = "hosts = [\"localhost\", \"127.0.0.1\"]";
const CLIENTS: &str = r#"
client_ca = "clients.pem"
[edge.client.app]
returns = ["http://127.0.0.1/cb"]
tokens = "opaque"
[edge.client.native]
returns = ["http://127.0.0.1/cb"]
dpop = true
[edge.client.batch]
returns = ["http://127.0.0.1/cb"]
certificate = "batch.partner.example"
"#;
/// What was revoked is refused after this, however busy the machine is.
const SECOND: Duration = Duration::from_secs(1);

fn openssl(arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut process = Command::new("openssl");
    let mut process = process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Base64url without padding (RFC 4648, section 5).
fn b64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |n| char::from(DIGITS[usize::try_from(bits >> (18 - 6 * n)).unwrap() & 63])).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

/// An authority's certificate and key in the folder.
fn authority(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let files = [key.to_str().unwrap(), certificate.to_str().unwrap()];
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=partners",
            "-keyout",
            files[0],
            "-out",
            files[1],
        ],
        b"",
    );
    (certificate, key)
}

/// A client's certificate of that authority.
fn client(folder: &Path, authority: &(PathBuf, PathBuf), file: &str) -> (PathBuf, PathBuf) {
    let (certificate, key, request) =
        (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")), folder.join(format!("{file}.csr")));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let more = folder.join("client.ext");
    std::fs::write(&more, "subjectAltName=DNS:batch.partner.example\nextendedKeyUsage=clientAuth\n").unwrap();
    openssl(
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=batch",
            "-keyout",
            &text(&key),
            "-out",
            &text(&request),
        ],
        b"",
    );
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            &text(&request),
            "-CA",
            &text(&authority.0),
            "-CAkey",
            &text(&authority.1),
            "-days",
            "30",
            "-extfile",
            &text(&more),
            "-out",
            &text(&certificate),
        ],
        b"",
    );
    (certificate, key)
}

/// A key that proofs are made with (RFC 9449).
struct Prover {
    key: PathBuf,
    jwk: Value,
}

impl Prover {
    fn new(folder: &Path, name: &str) -> Self {
        let key = folder.join(format!("{name}.key"));
        openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key.to_str().unwrap()], b"");
        let public = openssl(&["ec", "-in", key.to_str().unwrap(), "-pubout", "-outform", "DER"], b"");
        let point = &public[public.len() - 64..];
        Self { key, jwk: json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[..32]), "y": b64(&point[32..]) }) }
    }

    fn proof(&self, method: &str, url: &str, token: Option<&str>, nonce: Option<&str>) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut claims = json!({ "htm": method, "htu": url, "iat": now.as_secs(), "jti": format!("{}", now.as_nanos()) });
        if let Some(token) = token {
            claims["ath"] = b64(&openssl(&["dgst", "-sha256", "-binary"], token.as_bytes())).into();
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let head = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk });
        let said = format!("{}.{}", b64(head.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
        let signature = openssl(&["dgst", "-sha256", "-sign", self.key.to_str().unwrap()], said.as_bytes());
        format!("{said}.{}", b64(&fixed(&signature)))
    }
}

/// Both numbers of a signature in DER, each in 32 bytes (RFC 7518, section 3.4).
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        (at + 2 + length, [vec![0; 32 - digits.len()], digits.to_vec()].concat())
    };
    let (next, r) = number(2);
    [r, number(next).1].concat()
}

struct House {
    stage: Stage,
    /// An application's own client: no cookies of anybody's.
    app: Curl,
}

impl House {
    /// A code for that application, as the signed-in person's browser gets it.
    fn code(&self, client: &str) -> String {
        let mut next = format!(
            "/oidc/authorize?response_type=code&client_id={client}&redirect_uri={}&scope=openid%20videos&state=s&nonce=n&code_challenge={CHALLENGE}&code_challenge_method=S256",
            BACK.replace(':', "%3A").replace('/', "%2F")
        );
        for _ in 0..5 {
            let answer = self.stage.ada.curl.ask(&next, &Ask::default()).unwrap();
            let to = answer.headers.get("location").unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text())).clone();
            if let Some(query) = to.strip_prefix(BACK) {
                let code = query.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).unwrap_or_else(|| panic!("{to}"));
                return code.to_owned();
            }
            next = to.strip_prefix(&self.stage.running.address).unwrap_or(&to).to_owned();
        }
        panic!("no code for {client}: {next}");
    }

    /// Redeems it; `proof` is asked for each try, with the nonce that the one before was told.
    fn redeem(&self, client: &str, shows: Option<(&Path, &Path)>, prover: Option<&Prover>) -> Answer {
        let form = format!(
            "grant_type=authorization_code&client_id={client}&code_verifier={VERIFIER}&redirect_uri={BACK}&code={}",
            self.code(client)
        );
        self.proven("POST", "/oidc/token", prover, None, |headers| {
            let headers = [&[("content-type", "application/x-www-form-urlencoded")], headers].concat();
            self.app
                .ask("/oidc/token", &Ask { method: "POST", headers: &headers, data: Some(form.as_bytes()), shows, ..Ask::default() })
                .unwrap()
        })
    }

    /// Sends with a proof, and once more with the nonce where one is wanted, as RFC 9449 section 8 has clients do.
    fn proven(
        &self,
        method: &str,
        path: &str,
        prover: Option<&Prover>,
        token: Option<&str>,
        send: impl Fn(&[(&str, &str)]) -> Answer,
    ) -> Answer {
        let url = format!("{}{path}", self.stage.running.address);
        let Some(prover) = prover else { return send(&[]) };
        let first = send(&[("dpop", &prover.proof(method, &url, token, None))]);
        let Some(nonce) = first.headers.get("dpop-nonce").filter(|_| first.status >= 400) else { return first };
        send(&[("dpop", &prover.proof(method, &url, token, Some(nonce)))])
    }

    fn get(&self, headers: &[(&str, &str)], shows: Option<(&Path, &Path)>) -> u16 {
        self.app.ask("/api/videos", &Ask { headers, shows, ..Ask::default() }).unwrap().status
    }

    fn bearing(&self, token: &str) -> u16 {
        self.get(&[("authorization", &format!("Bearer {token}"))], None)
    }

    /// Lines of the access log, once `enough` of them are there.
    fn lines(&self, arguments: &[&str], enough: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let text = self.stage.running.cli(&[&["logs"], arguments].concat()).unwrap_or_default();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= enough {
                return lines;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{arguments:?}: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn token(answer: &Answer) -> String {
    answer.json(200).unwrap()["access_token"].as_str().unwrap().to_owned()
}

// A8, A9, A10, A12, J1.
#[test]
fn each_kind_of_credential_counts_as_it_should_and_every_request_is_a_line_that_an_operator_can_find() {
    let scratch = Scratch::new().unwrap();
    let clients = format!("{HOSTS}{CLIENTS}");
    let setting =
        contained::copied(&scratch, &[(HOSTS, &clients), ("run = [\"./video-api\"]", "run = [\"./video-api\"]\naccess_log = true")]);
    let partners = authority(&scratch.0, "partners");
    let apps = setting.manifest.parent().unwrap().to_owned();
    std::fs::copy(&partners.0, apps.join("clients.pem")).unwrap();
    let stage = Stage::set_with(scratch, setting);
    let app = Curl::new(&stage.running.address, &stage.running.certificate, &stage.scratch.0, "app");
    let house = House { stage, app };
    let secrets = [opaque(&house), key(&house), bound_to_a_key(&house), bound_to_a_certificate(&house, &partners)].concat();
    told(&house, &secrets);
}

/// A8: a reference stands for its claims until it is revoked, and a second longer at most.
fn opaque(house: &House) -> Vec<String> {
    let token = token(&house.redeem("app", None, None));
    assert!(token.starts_with("palt_"), "{token}");
    assert_eq!(house.bearing(&token), 200);
    let form = format!("token={token}&client_id=app");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let revoke = Ask { method: "POST", headers: &headers, data: Some(form.as_bytes()), ..Ask::default() };
    assert_eq!(house.app.ask("/oidc/revoke", &revoke).unwrap().status, 200);
    std::thread::sleep(SECOND);
    assert_eq!(house.bearing(&token), 401);
    vec![token]
}

/// A12: made by the operator, used in both places, revoked.
fn key(house: &House) -> Vec<String> {
    let cli = |arguments: &[&str]| -> Value { serde_json::from_str(&house.stage.running.cli(arguments).unwrap()).unwrap_or_default() };
    let people = cli(&["user", "list"]);
    let ada = people.as_array().unwrap().iter().find(|person| person["name"] == "ada").unwrap()["user"].as_str().unwrap().to_owned();
    let made = cli(&["key", "create", "nightly", "--for", &ada, "--scope", "videos"]);
    let (key, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    assert_eq!((house.bearing(&key), house.get(&[("x-api-key", &key)], None)), (200, 200));
    assert_eq!(house.get(&[("x-api-key", &key), ("authorization", &format!("Bearer {key}"))], None), 400);
    let list = house.stage.running.cli(&["key", "list"]).unwrap();
    assert!(list.contains(&id) && !list.contains(&key), "{list}");
    house.stage.running.cli(&["key", "revoke", &id]).unwrap();
    std::thread::sleep(SECOND);
    assert_eq!((house.bearing(&key), house.get(&[("x-api-key", &key)], None)), (401, 401));
    vec![key]
}

/// A9: a token counts with a proof of its own key, for this request, once.
fn bound_to_a_key(house: &House) -> Vec<String> {
    let (own, other) = (Prover::new(&house.stage.scratch.0, "own"), Prover::new(&house.stage.scratch.0, "other"));
    assert_eq!(house.redeem("native", None, None).status, 400, "no token without a proof");
    let given = house.redeem("native", None, Some(&own));
    let bound = token(&given);
    assert_eq!(given.json(200).unwrap()["token_type"], "DPoP");
    let authorization = format!("DPoP {bound}");
    let used = std::cell::RefCell::new(String::new());
    let ask = |prover: &Prover| {
        house.proven("GET", "/api/videos", Some(prover), Some(&bound), |headers| {
            headers[0].1.clone_into(&mut used.borrow_mut());
            let headers = [&[("authorization", authorization.as_str())], headers].concat();
            house.app.ask("/api/videos", &Ask { headers: &headers, ..Ask::default() }).unwrap()
        })
    };
    assert_eq!(ask(&own).status, 200);
    let again = used.borrow().clone();
    assert_eq!(house.get(&[("authorization", &authorization), ("dpop", &again)], None), 401, "a proof counts once");
    assert_eq!(ask(&other).status, 401, "another's key");
    assert_eq!(house.bearing(&bound), 401, "as Bearer");
    vec![bound]
}

/// A10: a token counts over a connection that has shown its certificate.
fn bound_to_a_certificate(house: &House, partners: &(PathBuf, PathBuf)) -> Vec<String> {
    let folder = &house.stage.scratch.0;
    let (own, other) = (client(folder, partners, "batch"), client(folder, partners, "batch-2"));
    let stranger = client(folder, &authority(folder, "strangers"), "stranger");
    let shows = |shown: &'static str, pair: &(PathBuf, PathBuf), token: &str| {
        let answer = house.get(&[("authorization", &format!("Bearer {token}"))], Some((&pair.0, &pair.1)));
        (shown, answer)
    };
    assert_eq!(house.redeem("batch", None, None).status, 401, "it shows itself by nothing else");
    let bound = token(&house.redeem("batch", Some((&own.0, &own.1)), None));
    assert_eq!(shows("its own", &own, &bound), ("its own", 200));
    assert_eq!(shows("another of the same name", &other, &bound), ("another of the same name", 401));
    assert_eq!(house.bearing(&bound), 401, "none");
    let refused = house.app.ask("/api/videos", &Ask { shows: Some((&stranger.0, &stranger.1)), ..Ask::default() });
    assert!(refused.is_err(), "a stranger's certificate makes no connection: {refused:?}");
    vec![bound]
}

/// J1: the edge's log and the guard's say what happened, for their owner alone, and none of the secrets.
fn told(house: &House, secrets: &[String]) {
    let keys = house.lines(&["--service", "api", "--path", "/api/videos", "--status", "2xx"], 5);
    let shown: Vec<&str> = keys.iter().map(|line| line["shown"].as_str().unwrap()).collect();
    assert!(["token", "key"].iter().all(|kind| shown.contains(kind)), "{shown:?}");
    let one = keys.iter().find(|line| line["shown"] == "key").unwrap();
    assert_eq!((&one["route"], &one["decision"], &one["tls"]), (&"GET /api/videos".into(), &"allow".into(), &"1.3".into()), "{one}");
    let (person, trace) = (one["person"].as_str().unwrap(), one["trace"].as_str().unwrap());
    assert!(house.lines(&["--person", person, "--status", "200"], 5).iter().all(|line| line["person"] == person));
    let denied = house.lines(&["--denied", "--status", "401", "-n", "3"], 3);
    assert!(denied.len() == 3 && denied.iter().all(|line| !line["reason"].as_str().unwrap().is_empty()), "{denied:?}");
    let inside = house.lines(&["--guard", "api", "--trace", trace], 1);
    assert_eq!(
        (&inside[0]["point"], &inside[0]["shown"], &inside[0]["person"]),
        (&"guard".into(), &"workload".into(), &person.into()),
        "{inside:?}"
    );
    let folder = house.stage.running.dir.join("log/access");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        for secret in secrets.iter().map(String::as_str).chain(["code=", VERIFIER, "palisade-session"]) {
            assert!(!text.contains(secret), "{secret} is in {}", path.display());
        }
        files += 1;
    }
    assert!(files >= 2, "one of the edge's and one of the guard's: {files}");
}

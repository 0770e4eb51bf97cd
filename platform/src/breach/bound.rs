//! Applications of the copy: Ada signs in to them, so that there are tokens to be stolen: plain ones, references, and such as are bound to a
//! key (RFC 9449) or to a certificate (RFC 8705).

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use breach::Script;
use breach::attacker::hand::HOPS_MAX;
use breach::attacker::http::{Answer, Ask, Request, parameter, text_of};
use breach::attacker::script::filled;
use breach::attacker::techniques::{Bound, BoundTo, Credential, Thief, proven};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use trust::SystemClock;

use super::browser::Browser;
use super::people::People;
use super::stage::Stage;

/// Where people come back to: nobody listens there, who asks takes the code from the redirect.
const BACK: &str = "http://127.0.0.1:4000/cb";
const RETURNS: &str = "http://127.0.0.1/cb";
/// File of the authority of clients' certificates, in the copy's folder.
const AUTHORITY: &str = "breach/clients.pem";
/// Names of the applications, each with what is particular of it.
const PLAIN: &str = "breach-plain";
const REFERENCE: &str = "breach-reference";
const NATIVE: &str = "breach-native";
const BATCH: &str = "breach-batch";
/// Names in the certificates of a partner and of another.
const PARTNER: &str = "batch.partner.example";
const OTHER: &str = "other.partner.example";

/// Adds the applications to the manifest's table `edge` of a copy.
pub(super) fn declare(edge: &mut toml::Table) {
    edge.insert("client_ca".to_owned(), AUTHORITY.into());
    let clients = edge.entry("client").or_insert_with(|| toml::Table::new().into());
    let Some(clients) = clients.as_table_mut() else { return };
    for (name, key, value) in [
        (PLAIN, "tokens", toml::Value::from("signed")),
        (REFERENCE, "tokens", "opaque".into()),
        (NATIVE, "dpop", true.into()),
        (BATCH, "certificate", PARTNER.into()),
    ] {
        let mut client = toml::Table::new();
        client.insert("returns".to_owned(), toml::Value::Array(vec![RETURNS.into()]));
        client.insert(key.to_owned(), value);
        clients.insert(name.to_owned(), client.into());
    }
}

/// Makes the authority of clients' certificates, for the copy in `folder`, and certificates of two partners, in `scratch`.
pub(super) fn certificates(scratch: &Path, folder: &Path) -> io::Result<()> {
    let made = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "partners");
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let partner = |name: &str| -> Result<_, rcgen::Error> {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        Ok((authority, [(PARTNER, partner(PARTNER)?), (OTHER, partner(OTHER)?)]))
    };
    let (authority, partners) = made().map_err(io::Error::other)?;
    fs::write(folder.join(AUTHORITY), authority)?;
    for (name, (chain, key)) in partners {
        let [at, key_at] = papers(scratch, name);
        fs::write(at, chain)?;
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(key_at)?;
        io::Write::write_all(&mut file, key.as_bytes())?;
    }
    Ok(())
}

/// Files of a partner's certificate and key.
fn papers(scratch: &Path, name: &str) -> [PathBuf; 2] {
    [scratch.join(format!("{name}.pem")), scratch.join(format!("{name}.key"))]
}

/// What was stolen of Ada's applications, and what the thief has.
pub(super) struct Tokens {
    /// Such as count by themselves.
    pub(super) bearers: Vec<Credential>,
    /// Such as are bound.
    pub(super) bound: Vec<Bound>,
    /// Why some could not be had.
    pub(super) unbound: Vec<String>,
    /// The thief.
    pub(super) thief: Prover,
}

/// Somebody with a key of their own, and perhaps a certificate.
pub(super) struct Prover {
    key: EcdsaKeyPair,
    origin: String,
    with: Browser,
}

impl Tokens {
    /// Has Ada sign in to each application, and use what it was given once.
    pub(super) fn of(scratch: &Path, stage: &Stage, people: &People, script: &Script, own: &str) -> io::Result<Self> {
        let showing = |name: &str| people.stranger.showing(papers(scratch, name));
        let thief = Prover::new(&stage.origin, showing(OTHER))?;
        let mut all = Self { bearers: Vec::new(), bound: Vec::new(), unbound: Vec::new(), thief };
        let Some(opens) = opens(script, own) else {
            all.unbound.push(format!("{}: no public route is there to show one at", breach::untried::NONE_BOUND));
            return Ok(all);
        };
        let scopes = &people.partner_scopes;
        let ada = Owner { browser: &people.ada, scopes };
        for (client, what) in [(PLAIN, "an access token"), (REFERENCE, "an access token by reference")] {
            match ada.redeemed(client, &people.stranger, None) {
                Ok((text, _)) => {
                    all.bearers.push(Credential { what: what.to_owned(), home: ("authorization", format!("Bearer {text}")), text });
                }
                Err(error) => all.unbound.push(format!("{what} could not be had: {error}")),
            }
        }
        let prover = Prover::new(&stage.origin, people.stranger.bare())?;
        let batch = Prover::new(&stage.origin, showing(PARTNER))?;
        for (to, client, prover) in [(BoundTo::Key, NATIVE, &prover), (BoundTo::Certificate, BATCH, &batch)] {
            match ada.bound(to, client, prover, &opens) {
                Ok(bound) => all.bound.push(bound),
                Err(error) => all.unbound.push(format!("a token of {client} could not be had: {error}")),
            }
        }
        for bound in &all.bound {
            all.bearers.push(Credential { what: bound.what(), home: ("", String::new()), text: bound.text.clone() });
        }
        Ok(all)
    }
}

/// A route that a token opens: service, path, and what only the service itself says.
fn opens(script: &Script, own: &str) -> Option<(String, String, String)> {
    script.services.iter().find_map(|(service, part)| {
        let fits = |route: &&manifest::Route| route.public && route.method == "GET" && !route.page && !route.websocket;
        let route = part.routes.iter().find(fits)?;
        let path = format!("{}?breach={own}&hops={HOPS_MAX}", filled(&route.path, own));
        Some((service.clone(), path, format!("\"breach_service\":\"{service}\"")))
    })
}

/// A person with a browser.
struct Owner<'a> {
    browser: &'a Browser,
    scopes: &'a [String],
}

impl Owner<'_> {
    /// A code for an application, as the person's browser gets it.
    fn code(&self, client: &str, verifier: &str) -> io::Result<String> {
        let scope = ["openid", "offline_access"].into_iter().chain(self.scopes.iter().map(String::as_str)).collect::<Vec<_>>().join("%20");
        let back = BACK.replace(':', "%3A").replace('/', "%2F");
        let challenge = URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()));
        let mut next = format!(
            "{}/authorize?response_type=code&client_id={client}&redirect_uri={back}&scope={scope}&state=s&nonce=n&code_challenge={challenge}&code_challenge_method=S256",
            contract::login::ISSUER_PATH
        );
        for _ in 0..8 {
            let answer = self.browser.ask(&Request::new("GET", next))?;
            let Some(to) = answer.header("location") else { return Err(refused("no code", &answer)) };
            if to.starts_with(BACK) {
                return parameter(to, "code")
                    .ok_or_else(|| io::Error::other(format!("no code, but {}", parameter(to, "error").unwrap_or_default())));
            }
            next = self.browser.path_of(to);
        }
        Err(io::Error::other("no code after eight redirects"))
    }

    /// Access and refresh token for an application, asked for by `by`, with a proof where it has a key.
    fn redeemed(&self, client: &str, by: &Browser, prover: Option<&Prover>) -> io::Result<(String, Option<String>)> {
        let verifier = random();
        let code = self.code(client, &verifier)?;
        let form = format!("grant_type=authorization_code&client_id={client}&code_verifier={verifier}&redirect_uri={BACK}&code={code}");
        let path = format!("{}/token", contract::login::ISSUER_PATH);
        let request = Request::new("POST", path.clone()).body("application/x-www-form-urlencoded", form);
        let answer = match prover {
            Some(prover) => proven(by, &request, &|nonce| prover.prove("POST", &path, None, nonce))?,
            None => by.ask(&request)?,
        };
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = text_of(&said, "access_token").ok_or_else(|| refused("no token", &answer))?;
        Ok((text.to_owned(), text_of(&said, "refresh_token").map(str::to_owned)))
    }

    /// A bound token, used once.
    fn bound(&self, to: BoundTo, client: &str, prover: &Prover, opens: &(String, String, String)) -> io::Result<Bound> {
        let by_key = to == BoundTo::Key;
        let (text, refresh) = self.redeemed(client, &prover.with, by_key.then_some(prover))?;
        let (_, path, said) = opens;
        let scheme = if by_key { "DPoP" } else { "Bearer" };
        let request = Request::new("GET", path.clone()).with("authorization", format!("{scheme} {text}"));
        let used = std::cell::RefCell::new(None);
        let prove = |nonce: Option<&str>| {
            let proof = prover.prove("GET", path, Some(&text), nonce)?;
            *used.borrow_mut() = Some((proof.clone(), nonce.map(str::to_owned)));
            Ok(proof)
        };
        let answer = if by_key { proven(&prover.with, &request, &prove)? } else { prover.with.ask(&request)? };
        // What its owner cannot use would be refused to everybody, and that would say nothing.
        if !answer.text().contains(said.as_str()) {
            return Err(refused("its owner cannot use it", &answer));
        }
        let (used, nonce) = used.into_inner().unzip();
        let elsewhere = format!("{}/userinfo", contract::login::ISSUER_PATH);
        let astray = by_key.then(|| prover.prove("GET", &elsewhere, Some(&text), nonce.flatten().as_deref())).transpose()?;
        // One that was on its way when it was stolen.
        let code = self.code(client, &random())?;
        Ok(Bound { to, client: client.to_owned(), text, refresh, code: Some((code, BACK.to_owned())), opens: opens.clone(), used, astray })
    }
}

fn refused(what: &str, answer: &Answer) -> io::Error {
    io::Error::other(format!("{what}: {}", answer.status))
}

fn random() -> String {
    trust::clock::random_hex(&*trust::SystemEntropy::shared(), 32)
}

impl Prover {
    fn new(origin: &str, with: Browser) -> io::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(io::Error::other)?;
        Ok(Self { key, origin: origin.to_owned(), with })
    }
}

impl Thief for Prover {
    fn prove(&self, method: &str, path: &str, token: Option<&str>, nonce: Option<&str>) -> io::Result<String> {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // SEC 1, section 2.3.3: a byte that says that it is uncompressed, then both coordinates.
        let point = self.key.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..).unwrap_or_default());
        let head = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": { "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) } });
        let target = format!("{}{}", self.origin, path.split('?').next().unwrap_or_default());
        let mut claims = json!({ "htm": method, "htu": target, "iat": SystemClock::shared().unix_s(), "jti": random() });
        if let Some(fields) = claims.as_object_mut() {
            let hash = |token: &str| encoded(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
            fields.extend(token.map(|token| ("ath".to_owned(), hash(token).into())));
            fields.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        }
        let said = format!("{}.{}", encoded(head.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), said.as_bytes()).map_err(io::Error::other)?;
        Ok(format!("{said}.{}", encoded(signature.as_ref())))
    }

    fn with_another_certificate(&self) -> &dyn Ask {
        &self.with
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    // L11: a copy of any system has applications whose tokens can be stolen, beside its own.
    #[test]
    fn a_copy_has_applications_of_every_kind_beside_its_own() {
        let mut edge: toml::Table = "[client.own]\nreturns = [\"https://own.example/cb\"]\n".parse().unwrap();
        declare(&mut edge);
        let clients = edge["client"].as_table().unwrap();
        let names: BTreeSet<&str> = clients.keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from([BATCH, NATIVE, PLAIN, REFERENCE, "own"]));
        assert_eq!((clients[NATIVE]["dpop"].as_bool(), clients[BATCH]["certificate"].as_str()), (Some(true), Some(PARTNER)));
    }
}

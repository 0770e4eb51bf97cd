//! A7: forged tokens, as tables, for every verifier of tokens (RFC 8725; RFC 7515 section 10; published attacks on JOSE libraries).
//!
//! Wherever a forger could have the genuine key sign, the forgery is signed with it: then nothing but the rule in question refuses it.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD as B64};
use contract::signing::SigningKey;
use serde_json::{Value, json};

/// What is wrong, the token, and why it must be refused.
pub type Forged = (String, String, &'static str);

/// A key whose owner signs whatever is wanted.
pub struct Forger {
    der: Vec<u8>,
    /// As the product knows it.
    pub key: SigningKey,
    /// Its public half.
    pub jwk: Value,
    typ: &'static str,
}

impl Forger {
    pub fn new(typ: &'static str) -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap().as_ref().to_vec();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        let point = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap().public_key().as_ref().to_vec();
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.kid(), "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65])});
        Self { der, key, jwk, typ }
    }

    fn sign(&self, message: &str) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.der).unwrap();
        pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
    }

    /// A JWS of exactly these texts.
    pub fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let signature = self.sign(&message);
        format!("{message}.{}", B64.encode(signature))
    }

    pub fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": self.typ, "kid": self.key.kid()})
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        header.to_string()
    }

    /// Everything that does not depend on what the claims mean.
    pub fn forgeries(&self, claims: &Value) -> Vec<Forged> {
        let mut all = Vec::new();
        self.algorithms(claims, &mut all);
        self.headers(claims, &mut all);
        self.signatures(claims, &mut all);
        self.spellings(claims, &mut all);
        self.payloads(claims, &mut all);
        all
    }

    fn algorithms(&self, claims: &Value, all: &mut Vec<Forged>) {
        let reason = "token_algorithm_refused";
        let names = [
            "none", "None", "NONE", "nOnE", "", " ES256", "es256", "ES256 ", "ES256K", "ES384", "ES512", "RS256", "RS512", "PS256",
            "EdDSA", "HS256", "HS384",
        ];
        let odd = [Value::Null, json!(5), json!(["ES256"]), json!({"ES256": 1}), json!(true)];
        for alg in names.into_iter().map(Value::from).chain(odd) {
            let header = self.with("alg", alg.clone());
            all.push((format!("alg {alg}, signed"), self.signed(&header, &claims.to_string()), reason));
            let message = format!("{}.{}.", B64.encode(&header), B64.encode(claims.to_string()));
            all.push((format!("alg {alg}, without a signature"), message, reason));
        }
        let point =
            [vec![4], B64.decode(self.jwk["x"].as_str().unwrap()).unwrap(), B64.decode(self.jwk["y"].as_str().unwrap()).unwrap()].concat();
        // SubjectPublicKeyInfo of P-256 (RFC 5480), as servers keep it in a file.
        let spki = [&hex("3059301306072a8648ce3d020106082a8648ce3d030107034200")[..], &point].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
        let secrets = [
            ("point", point),
            ("DER", spki),
            ("PEM", pem.into_bytes()),
            ("JWK", self.jwk.to_string().into_bytes()),
            ("name", self.key.kid().into()),
            ("empty", vec![]),
        ];
        for (what, secret) in secrets {
            let message = format!("{}.{}", B64.encode(self.with("alg", json!("HS256"))), B64.encode(claims.to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            all.push((format!("HS256 under the public key's {what}"), format!("{message}.{}", B64.encode(tag)), reason));
        }
    }

    fn headers(&self, claims: &Value, all: &mut Vec<Forged>) {
        let stranger = Self::new(self.typ);
        let refused = "token_header_refused";
        for (name, value) in [
            ("jku", json!("https://evil.example/jwks")),
            ("jwk", stranger.jwk.clone()),
            ("jwk", self.jwk.clone()),
            ("x5u", json!("https://evil.example/c.pem")),
            ("x5t", json!("AAAA")),
            ("x5t#S256", json!("AAAA")),
            ("x5c", json!(["AAAA"])),
            ("crit", json!([])),
            ("crit", json!(["exp"])),
            ("crit", json!(["urn:unknown"])),
            ("b64", json!(false)),
            ("b64", json!(true)),
            ("zip", json!("DEF")),
            ("cty", json!("JWT")),
            ("epk", self.jwk.clone()),
            ("enc", json!("A256GCM")),
            ("url", json!("https://localhost")),
            ("nonce", json!("1")),
            ("ALG", json!("none")),
        ] {
            all.push((format!("{name} {value}"), self.signed(&self.with(name, value.clone()), &claims.to_string()), refused));
            let mut header = stranger.header();
            header[name] = value;
            all.push((format!("{name}, a stranger's"), stranger.signed(&header.to_string(), &claims.to_string()), refused));
        }
        for kid in [
            "../../../../dev/null",
            "/proc/self/environ",
            "' OR '1'='1",
            "x' UNION SELECT 'AAAA' --",
            "\0",
            "https://evil.example/k",
            "",
            "*",
            "0",
            &"k".repeat(4000),
        ] {
            all.push((format!("kid {:.20}", kid), self.signed(&self.with("kid", json!(kid)), &claims.to_string()), "token_key_unknown"));
        }
        let mut none = self.header();
        none.as_object_mut().unwrap().remove("kid");
        all.push(("no kid".to_owned(), self.signed(&none.to_string(), &claims.to_string()), "token_key_unknown"));
        all.push(("kid null".to_owned(), self.signed(&self.with("kid", Value::Null), &claims.to_string()), "token_key_unknown"));
        for kid in [json!(1), json!([self.key.kid()]), json!({"a": 1})] {
            all.push((format!("kid {kid}"), self.signed(&self.with("kid", kid), &claims.to_string()), "token_malformed"));
        }
        let others = [
            "JWT",
            "jwt",
            "at+jwt ",
            "AT+JWT",
            "application/at+jwt",
            "application/txntoken+jwt",
            "txntoken+jwt",
            "at+jwt",
            "dpop+jwt",
            "palisade-view+jwt",
            "logout+jwt",
            "",
        ];
        for typ in others.into_iter().filter(|typ| *typ != self.typ).map(Value::from).chain([Value::Null, json!([self.typ])]) {
            all.push((format!("typ {typ}"), self.signed(&self.with("typ", typ), &claims.to_string()), "token_type_mismatch"));
        }
    }

    fn signatures(&self, claims: &Value, all: &mut Vec<Forged>) {
        let good = self.signed(&self.header().to_string(), &claims.to_string());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let bytes = B64.decode(signature).unwrap();
        let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.der)
            .unwrap()
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap();
        let stranger = Self::new(self.typ);
        let flipped = |n: usize| bytes.iter().enumerate().map(|(i, b)| if i == n { b ^ 1 } else { *b }).collect::<Vec<_>>();
        for (what, forged) in [
            ("no", vec![]),
            ("a null", vec![0; 64]),
            ("an all-ones", vec![0xff; 64]),
            ("a halved", bytes[..32].to_vec()),
            ("a truncated", bytes[..63].to_vec()),
            ("a longer", [&bytes[..], &[0]].concat()),
            ("a swapped", [&bytes[32..], &bytes[..32]].concat()),
            ("an r of zero in the", [&[0; 32][..], &bytes[32..]].concat()),
            ("an s of zero in the", [&bytes[..32], &[0; 32]].concat()),
            ("a DER", asn1.as_ref().to_vec()),
            ("another's", stranger.sign(message)),
            ("a flipped first bit of the", flipped(0)),
            ("a flipped last bit of the", flipped(63)),
        ] {
            all.push((format!("{what} signature"), format!("{message}.{}", B64.encode(forged)), "token_invalid"));
        }
        all.push((
            "a stranger's token".to_owned(),
            stranger.signed(&stranger.header().to_string(), &claims.to_string()),
            "token_key_unknown",
        ));
        all.push((
            "a stranger's token under our key's name".to_owned(),
            stranger.signed(&self.header().to_string(), &claims.to_string()),
            "token_invalid",
        ));
        let parts: Vec<&str> = good.split('.').collect();
        let mut raised = claims.clone();
        raised["roles"] = json!(["admin"]);
        all.push((
            "other claims under an old signature".to_owned(),
            format!("{}.{}.{}", parts[0], B64.encode(raised.to_string()), parts[2]),
            "token_invalid",
        ));
    }

    fn spellings(&self, claims: &Value, all: &mut Vec<Forged>) {
        // A padding byte makes the last character of header and claims carry bits that stand for nothing.
        let header = (0..3).map(|n| self.header().to_string() + &" ".repeat(n)).find(|h| h.len() % 3 == 1).unwrap();
        let claims = (0..3).map(|n| claims.to_string() + &" ".repeat(n)).find(|c| c.len() % 3 == 1).unwrap();
        let good = self.signed(&header, &claims);
        let parts: Vec<&str> = good.split('.').collect();
        let bent = |part: &str| {
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last = alphabet.iter().position(|c| *c == *part.as_bytes().last().unwrap()).unwrap();
            format!("{}{}", &part[..part.len() - 1], char::from(alphabet[last | 1]))
        };
        let (h, c, s) = (parts[0], parts[1], parts[2]);
        let signature = B64.decode(s).unwrap();
        for (what, forged) in [
            ("trailing bits in the header", format!("{}.{c}.{s}", bent(h))),
            ("trailing bits in the claims", format!("{h}.{}.{s}", bent(c))),
            ("trailing bits in the signature", format!("{h}.{c}.{}", bent(s))),
            ("padding of the header", format!("{h}==.{c}.{s}")),
            ("padding of the claims", format!("{h}.{c}==.{s}")),
            ("padding of the signature", format!("{h}.{c}.{}", URL_SAFE.encode(&signature))),
            ("a blank in the signature", format!("{h}.{c}.{} {}", &s[..9], &s[9..])),
            ("a tab in the claims", format!("{h}.{}\t{}.{s}", &c[..9], &c[9..])),
            ("a blank after a dot", format!("{h}. {c}.{s}")),
            ("the other alphabet", format!("{h}.{c}.+{}", &s[1..])),
            ("a dot more", format!("{good}.")),
            ("a dot before", format!(".{good}")),
            ("two parts", format!("{h}.{c}")),
            ("four parts", format!("{good}.{s}")),
            ("five parts, as of a JWE", format!("{h}.{c}.{s}.{c}.{s}")),
            ("nothing but dots", "..".to_owned()),
            ("nothing", ".".to_owned()),
            ("JSON serialization", json!({"protected": h, "payload": c, "signature": s}).to_string()),
            ("a percent-encoding", good.replacen('.', "%2E", 1)),
        ] {
            all.push((what.to_owned(), forged, "token_malformed"));
        }
    }

    fn payloads(&self, claims: &Value, all: &mut Vec<Forged>) {
        let (header, text) = (self.header().to_string(), claims.to_string());
        let doubled = |name: &str, value: Value| format!("{{{}:{value},{}", json!(name), &text[1..]);
        let nested = self.signed(&header, &text);
        for (what, payload) in [
            ("a token in a token", nested.clone()),
            ("a token in a string", json!(nested).to_string()),
            ("a list", format!("[{text}]")),
            ("a number", "1".to_owned()),
            ("null", "null".to_owned()),
            ("nothing", String::new()),
            ("a deep nest", "[".repeat(3000)),
            ("text behind", format!("{text}x")),
            ("two objects", format!("{text}{text}")),
            ("sub twice", doubled("sub", json!("u-root"))),
            ("aud twice", doubled("aud", json!("https://evil.example"))),
            ("exp twice", doubled("exp", json!(u64::MAX))),
            ("iss twice", doubled("iss", json!("https://evil.example"))),
            ("a claim that limits and nobody reads", doubled("nbf", json!(u64::MAX))),
        ] {
            all.push((format!("{what} for claims"), self.signed(&header, &payload), "token_malformed"));
        }
        for (name, value) in [
            ("exp", json!("9999999999")),
            ("exp", json!(1e300)),
            ("exp", json!(-1)),
            ("exp", Value::Null),
            ("iat", json!("0")),
            ("aud", json!([claims["aud"], "https://evil.example"])),
            ("aud", Value::Null),
            ("iss", json!([claims["iss"]])),
            ("sub", json!(7)),
            ("sub", Value::Null),
        ] {
            let mut bent = claims.clone();
            bent[name] = value.clone();
            all.push((format!("{name} {value}"), self.signed(&header, &bent.to_string()), "token_malformed"));
        }
        for name in ["exp", "iat", "aud", "iss", "sub"] {
            let mut less = claims.clone();
            less.as_object_mut().unwrap().remove(name);
            all.push((format!("no {name}"), self.signed(&header, &less.to_string()), "token_malformed"));
        }
        for (what, header) in [
            ("alg twice, the good one last", format!("{{\"alg\":\"none\",{}", &header[1..])),
            ("typ twice, the good one last", format!("{{\"typ\":\"JWT\",{}", &header[1..])),
            ("kid twice, the good one last", format!("{{\"kid\":\"x\",{}", &header[1..])),
        ] {
            all.push((what.to_owned(), self.signed(&header, &text), "token_malformed"));
        }
        all.push((
            "alg twice, the bad one last".to_owned(),
            self.signed(&format!("{},\"alg\":\"none\"}}", &header[..header.len() - 1]), &text),
            "token_algorithm_refused",
        ));
        for header in ["[]", "null", "\"ES256\"", "", "{", "\u{feff}{}"] {
            all.push((format!("a header of {header:?}"), self.signed(header, &text), "token_malformed"));
        }
        let mut long = claims.clone();
        long["jti"] = json!("x".repeat(9000));
        all.push(("an oversized token".to_owned(), self.signed(&header, &long.to_string()), "token_malformed"));
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

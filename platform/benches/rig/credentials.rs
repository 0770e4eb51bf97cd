//! Certificates, keys and tokens that all targets of the rig share, in the files that each of them reads.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use trust::SystemClock;

use super::world::World;

/// Who issues the tokens, for whom, and what they allow.
pub const ISSUER: &str = "https://issuer.bench.local";
pub const AUDIENCE: &str = "orders";
pub const SCOPE: &str = "orders:read";

/// How many different tokens `many.lua` uses in turn.
const MANY: usize = 2000;

struct Signer {
    algorithm: &'static str,
    key: KeyPair,
}

impl Signer {
    fn all() -> [Self; 3] {
        let of = |algorithm, key: Result<KeyPair, rcgen::Error>| Self { algorithm, key: key.unwrap() };
        [
            of("ES256", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)),
            of("RS256", KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)),
            of("EdDSA", KeyPair::generate_for(&PKCS_ED25519)),
        ]
    }

    fn jwk(&self) -> Value {
        let raw = self.key.public_key_raw();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self.algorithm {
            "ES256" => json!({ "kty": "EC", "crv": "P-256", "x": encode(&raw[1..33]), "y": encode(&raw[33..65]) }),
            // RSAPublicKey of 2048 bits (RFC 8017, appendix A.1.1): 9 bytes before the modulus, 5 before the exponent of 3 bytes.
            "RS256" => json!({ "kty": "RSA", "n": encode(&raw[9..265]), "e": encode(&raw[267..270]) }),
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(raw) }),
        };
        jwk["kid"] = self.algorithm.into();
        jwk["alg"] = self.algorithm.into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn token(&self, claims: &Value) -> String {
        // `at+jwt` without a declared issuer would be a question to `login`, which the rig has not.
        let header = json!({ "alg": self.algorithm, "kid": self.algorithm, "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let der = self.key.serialize_der();
        let random = SystemRandom::new();
        let signature = match self.algorithm {
            "ES256" => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
                key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            "RS256" => {
                let key = RsaKeyPair::from_pkcs8(&der).unwrap();
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            _ => Ed25519KeyPair::from_pkcs8(&der).unwrap().sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims(person: &str, change: &Value) -> Value {
    let now = SystemClock::shared().unix_s();
    let scope = format!("profile {SCOPE}");
    let mut claims =
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": person, "client_id": "bench", "iat": now, "exp": now + 86_400, "scope": scope });
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

/// Writes everything into `folder`, under the authority of `world`.
pub fn write(world: &World, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let put = |name: &str, text: &str| {
        // Keys that others can read are refused.
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    put("ca.pem", &world.root_pem());
    let domain = world.domain();
    let names = |name: &str| vec![format!("{name}.bench.local"), "localhost".to_owned(), "127.0.0.1".to_owned()];
    for (name, id, names) in [
        ("gateway", domain.service("front"), names("gateway")),
        ("app", domain.service("app"), names("app")),
        ("evil", domain.service("stranger"), names("evil")),
        // An SVID and nothing else, as guards want it.
        ("front", domain.service("front"), Vec::new()),
    ] {
        let (certificate, key) = world.pem(&id, &names);
        put(&format!("{name}.pem"), &certificate);
        put(&format!("{name}.key"), &key);
        put(&format!("{name}.both.pem"), &format!("{certificate}{key}"));
    }
    let signers = Signer::all();
    put("jwks.json", &json!({ "keys": signers.iter().map(Signer::jwk).collect::<Vec<_>>() }).to_string());
    for signer in &signers {
        put(&format!("{}.pub.pem", signer.algorithm), &signer.key.public_key_pem());
    }
    let mut tokens = serde_json::Map::new();
    let good = claims("user-1234", &Value::Null);
    for signer in &signers {
        tokens.insert(signer.algorithm.to_owned(), signer.token(&good).into());
    }
    let [es256, ..] = &signers;
    let past = SystemClock::shared().unix_s() - 3600;
    for (name, change) in [
        ("expired", json!({ "exp": past })),
        ("wrong issuer", json!({ "iss": "https://evil.local" })),
        ("wrong audience", json!({ "aud": "billing" })),
        ("no scope", json!({ "scope": "profile" })),
    ] {
        tokens.insert(name.to_owned(), es256.token(&claims("user-1234", &change)).into());
    }
    let [forger, ..] = Signer::all();
    tokens.insert("forged".to_owned(), forger.token(&good).into());
    put("tokens.json", &Value::Object(tokens).to_string());
    put("many.lua", &many(es256));
}

/// A script for `wrk`: `MANY` persons' tokens in turn, the same load without one hot token.
fn many(signer: &Signer) -> String {
    let mut script = "local tokens = {\n".to_owned();
    for person in 0..MANY {
        writeln!(script, "  \"{}\",", signer.token(&claims(&format!("user-{person}"), &Value::Null))).unwrap();
    }
    script.push_str(
        "}\nlocal requests, at = {}, 0\n\
         function init()\n  for n, token in ipairs(tokens) do\n    \
         wrk.headers[\"Authorization\"] = \"Bearer \" .. token\n    requests[n] = wrk.format()\n  end\nend\n\
         function request()\n  at = at % #requests + 1\n  return requests[at]\nend\n",
    );
    script
}

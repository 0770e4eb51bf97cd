//! RFC 9449's own examples, and what is a little different from them (A9, B10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use trust::SystemEntropy;

use super::*;

/// RFC 9449, figure 2.
const TOKEN_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
/// RFC 9449, figure 13.
const RESOURCE_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
/// RFC 9449, section 7.1.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
/// RFC 9449, section 6.1.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const NOW_S: u64 = 1_800_000_000;

fn proofs() -> Proofs {
    Proofs::new(&SystemEntropy, 0)
}

fn about<'a>(token: Option<&'a str>) -> About<'a> {
    About { method: "GET", origin: "https://api.example", path: "/things/1%3B2", token }
}

/// Signs whatever it is told to.
struct Signer {
    pair: EcdsaKeyPair,
    jwk: Value,
}

impl Signer {
    fn new() -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65])});
        Self { pair, jwk }
    }
    fn head(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk})
    }
    fn sign(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", B64.encode(head), B64.encode(claims));
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", B64.encode(signature))
    }
}

fn claims(jti: &str) -> Value {
    let ath = B64.encode(Digest::of(b"the token").as_bytes());
    json!({"jti": jti, "htm": "GET", "htu": "https://api.example/things/1%3B2", "iat": NOW_S, "ath": ath})
}

fn with(mut value: Value, name: &str, new: Value) -> String {
    value[name] = new;
    value.to_string()
}

// A9, B10: RFC 9449, figures 2 and 13, and the thumbprint and hash of sections 6.1 and 7.1.
#[test]
fn the_rfcs_examples_verify_and_have_the_rfcs_thumbprint() {
    let token = About { method: "POST", origin: "https://server.example.com", path: "/token", token: None };
    let proof = proofs().verify(TOKEN_PROOF, &token, 1_562_262_616).unwrap();
    assert_eq!(proof.key.as_str(), JKT);
    let resource = About { method: "GET", origin: "https://resource.example.org", path: "/protectedresource", token: Some(TOKEN) };
    let proof = proofs().verify(RESOURCE_PROOF, &resource, 1_562_262_618).unwrap();
    assert_eq!(proof.key.as_str(), JKT);
    let other = About { token: Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxV"), ..resource };
    assert_eq!(proofs().verify(RESOURCE_PROOF, &other, 1_562_262_618).unwrap_err(), DenyReason::ProofTokenMismatch);
    assert_eq!(proofs().verify(RESOURCE_PROOF, &token, 1_562_262_618).unwrap_err(), DenyReason::ProofMethodMismatch);
}

// RFC 8037, appendix A.3: the thumbprint of an Ed25519 key; and a proof signed with such a key.
#[test]
fn ed25519_keys_count_too() {
    let jwk = Jwk {
        x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into(),
        ..serde_json::from_value(json!({"kty": "OKP", "crv": "Ed25519", "x": ""})).unwrap()
    };
    assert_eq!(jwk.key("EdDSA").unwrap().1.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let head = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": B64.encode(pair.public_key())}});
    let signed = format!("{}.{}", B64.encode(head.to_string()), B64.encode(claims("a").to_string()));
    let proof = format!("{signed}.{}", B64.encode(pair.sign(signed.as_bytes())));
    assert!(proofs().verify(&proof, &about(Some("the token")), NOW_S).is_ok());
}

// A9: each way in which a proof can be wrong, for its own reason.
#[test]
fn a_proof_that_is_a_little_wrong_is_refused_for_its_own_reason() {
    use DenyReason::{
        ProofAlgorithmRefused, ProofInvalid, ProofKeyRefused, ProofMalformed, ProofMethodMismatch, ProofNonceWanted, ProofStale,
        ProofTargetMismatch, ProofTokenMismatch, ProofTypeMismatch,
    };
    let (signer, stranger) = (Signer::new(), Signer::new());
    let (head, good) = (signer.head(), claims("a"));
    let say = |name: &str, value: Value| signer.sign(&head.to_string(), &with(good.clone(), name, value));
    let under = |name: &str, value: Value| signer.sign(&with(head.clone(), name, value), &good.to_string());
    let key = |name: &str, value: Value| under("jwk", serde_json::from_str(&with(signer.jwk.clone(), name, value)).unwrap());
    let check = |proof: &str| proofs().verify(proof, &about(Some("the token")), NOW_S).map(|_| ());
    let htu = |text: &str| say("htu", text.into());
    for (what, proof) in [
        ("plain", signer.sign(&head.to_string(), &good.to_string())),
        ("as old as it may be", say("iat", (NOW_S - 60).into())),
        ("as early as it may be", say("iat", (NOW_S + 5).into())),
        ("with a claim more", say("exp", (NOW_S + 60).into())),
        ("a jti of 256 bytes", say("jti", "x".repeat(256).into())),
        ("host in capitals, port said", htu("https://API.example:443/things/1%3B2")),
        ("query and fragment do not count", htu("https://api.example/things/1%3B2?a=b#c")),
        ("another spelling of the path", htu("https://api.example/%74hings/1%3b2")),
        ("key members that say what it is for", key("use", "sig".into())),
    ] {
        assert_eq!(check(&proof), Ok(()), "{what}");
    }
    let stolen = with(head.clone(), "jwk", stranger.jwk.clone());
    let twice = head.to_string().replacen('{', r#"{"typ":"dpop+jwt","#, 1);
    for (what, proof, reason) in [
        ("nothing", String::new(), ProofMalformed),
        ("four parts", format!("{}.a", signer.sign(&head.to_string(), &good.to_string())), ProofMalformed),
        ("padding", format!("{}=", signer.sign(&head.to_string(), &good.to_string())), ProofMalformed),
        ("longer than any", say("x", "x".repeat(4096).into()), ProofMalformed),
        ("typ twice", signer.sign(&twice, &good.to_string()), ProofMalformed),
        ("crit", under("crit", json!(["exp"])), ProofMalformed),
        ("no jti", say("jti", "".into()), ProofMalformed),
        ("a jti too long", say("jti", "x".repeat(257).into()), ProofMalformed),
        ("an iat that is text", say("iat", NOW_S.to_string().into()), ProofMalformed),
        ("a token", under("typ", "at+jwt".into()), ProofTypeMismatch),
        ("alg none", under("alg", "none".into()), ProofAlgorithmRefused),
        ("alg HS256", under("alg", "HS256".into()), ProofAlgorithmRefused),
        ("alg ES384", under("alg", "ES384".into()), ProofAlgorithmRefused),
        ("the key of another algorithm", under("alg", "EdDSA".into()), ProofKeyRefused),
        ("no key", under("jwk", Value::Null), ProofKeyRefused),
        ("a private key", key("d", "AAAA".into()), ProofKeyRefused),
        ("a symmetric key", under("jwk", json!({"kty": "oct", "k": "AAAA"})), ProofKeyRefused),
        ("another curve", key("crv", "P-384".into()), ProofKeyRefused),
        ("half a key", key("x", "AAAA".into()), ProofKeyRefused),
        ("another's key", signer.sign(&stolen, &good.to_string()), ProofInvalid),
        ("another method", say("htm", "POST".into()), ProofMethodMismatch),
        ("small letters", say("htm", "get".into()), ProofMethodMismatch),
        ("another host", htu("https://api.example.evil/things/1%3B2"), ProofTargetMismatch),
        ("another port", htu("https://api.example:8443/things/1%3B2"), ProofTargetMismatch),
        ("http", htu("http://api.example/things/1%3B2"), ProofTargetMismatch),
        ("a user", htu("https://a@api.example/things/1%3B2"), ProofTargetMismatch),
        ("another path", htu("https://api.example/things/1%3B2/"), ProofTargetMismatch),
        ("what a path may hold encoded is not what it divides by", htu("https://api.example/things/1;2"), ProofTargetMismatch),
        ("a path alone", htu("/things/1%3B2"), ProofTargetMismatch),
        ("another token", say("ath", B64.encode([0; 32]).into()), ProofTokenMismatch),
        ("no token", say("ath", Value::Null), ProofTokenMismatch),
        ("too old", say("iat", (NOW_S - 61).into()), ProofStale),
        ("too early", say("iat", (NOW_S + 6).into()), ProofStale),
        ("a nonce of elsewhere", say("nonce", "elsewhere".into()), ProofNonceWanted),
    ] {
        assert_eq!(check(&proof), Err(reason), "{what}");
    }
}

// A9: RFC 9449, section 11.1. Two keys may use the same jti.
#[test]
fn a_proof_counts_once_and_is_remembered_until_it_is_too_old() {
    let (proofs, a, b) = (proofs(), Signer::new(), Signer::new());
    let take = |signer: &Signer, jti: &str, now_s: u64| {
        let proof = signer.sign(&signer.head().to_string(), &claims(jti).to_string());
        proofs.verify(&proof, &about(Some("the token")), now_s).and_then(|proof| proofs.spend(proof, now_s)).map(|_| ())
    };
    assert_eq!(take(&a, "1", NOW_S), Ok(()));
    assert_eq!(take(&a, "2", NOW_S), Ok(()));
    assert_eq!(take(&b, "1", NOW_S), Ok(()));
    for later in 0..=60 {
        assert_eq!(take(&a, "1", NOW_S + later), Err(DenyReason::ProofReplayed), "{later} s later");
    }
    assert_eq!(take(&a, "1", NOW_S + 61), Err(DenyReason::ProofStale));
}

// A9: the table has an end, and at its end nothing passes; one key cannot take all of it.
#[test]
fn a_full_table_lets_nothing_pass_and_no_key_fills_it_alone() {
    let proofs = proofs();
    let spend = |key: u32, n: u32, now_s| {
        let jti = Digest::of(format!("{key} {n}").as_bytes());
        proofs.spend(Proof { key: Thumbprint(key.to_string()), jti }, now_s).map(|_| ())
    };
    let keys = u32::try_from(SEEN_MAX).unwrap() / SEEN_OF_KEY_MAX;
    for key in 0..keys {
        for n in 0..SEEN_OF_KEY_MAX {
            assert_eq!(spend(key, n, NOW_S), Ok(()));
        }
        assert_eq!(spend(key, SEEN_OF_KEY_MAX, NOW_S), Err(DenyReason::Overloaded), "this key has had its share");
    }
    assert_eq!(spend(keys, 0, NOW_S), Err(DenyReason::Overloaded), "and so has everybody");
    assert_eq!(spend(0, 0, NOW_S), Err(DenyReason::ProofReplayed));
    assert_eq!(spend(keys, 0, NOW_S + REMEMBERED_S), Ok(()), "a period later there is room");
}

// A9: RFC 9449, section 9: who has just started has seen nothing, and says so.
#[test]
fn a_new_process_wants_a_nonce_of_its_own_in_what_is_older_than_itself() {
    let (signer, proofs) = (Signer::new(), Proofs::new(&SystemEntropy, NOW_S));
    let prove = |nonce: Option<String>, iat: u64, now_s: u64| {
        let mut said = claims("a");
        said["iat"] = iat.into();
        if let Some(nonce) = nonce {
            said["nonce"] = nonce.into();
        }
        let proof = signer.sign(&signer.head().to_string(), &said.to_string());
        proofs.verify(&proof, &about(Some("the token")), now_s).map(|_| ())
    };
    assert_eq!(prove(None, NOW_S, NOW_S), Err(DenyReason::ProofNonceWanted));
    assert_eq!(prove(None, NOW_S + 5, NOW_S), Err(DenyReason::ProofNonceWanted), "clocks may differ");
    assert_eq!(prove(Some(proofs.nonce(NOW_S)), NOW_S, NOW_S), Ok(()));
    assert_eq!(prove(None, NOW_S + 6, NOW_S + 6), Ok(()));
    let other = Proofs::new(&SystemEntropy, NOW_S);
    assert_eq!(prove(Some(other.nonce(NOW_S)), NOW_S, NOW_S), Err(DenyReason::ProofNonceWanted), "of the process before");
    let period = NOW_S - NOW_S % NONCE_PERIOD_S;
    let nonce = proofs.nonce(period);
    let last = period + 2 * NONCE_PERIOD_S - 1;
    assert_eq!(prove(Some(nonce.clone()), last, last), Ok(()));
    assert_eq!(prove(Some(nonce), last + 1, last + 1), Err(DenyReason::ProofNonceWanted), "nonces end");
}

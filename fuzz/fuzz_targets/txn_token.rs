//! Transaction tokens: nobody without the key makes one that is accepted, whatever the bytes.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use contract::signing::{AuthorityKey, PublicKey};
use contract::txn_token::Verifier;
use libfuzzer_sys::fuzz_target;
use trust::{Clock, SpiffeId, TrustDomain};

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// The generator of P-256: a key whose private half is 1, and signs nothing here.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

static VERIFIER: LazyLock<(Verifier, String)> = LazyLock::new(|| {
    let public: PublicKey = PublicKey::from_point(&decode(POINT));
    let owner: SpiffeId = "spiffe://video.example/role/edge".parse().expect("an id");
    let domain: TrustDomain = owner.trust_domain.clone();
    let kid = public.kid();
    (Verifier::new(domain, &[AuthorityKey { kid: kid.clone(), owner, public, not_after_s: u64::MAX }]), kid)
});

fn decode(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        _ => 63,
    };
    let bits: Vec<u8> = text.bytes().flat_map(|c| (0..6).rev().map(move |n| value(c) >> n & 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
}

fuzz_target!(|text: &str| {
    let (verifier, kid) = &*VERIFIER;
    assert!(verifier.verify(text, &Still).is_err(), "a token without a signature was accepted");
    let named = text.replace("{kid}", kid);
    assert!(verifier.verify(&named, &Still).is_err());
});

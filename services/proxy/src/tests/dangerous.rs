//! A bundle with one question left out leaves out that question and nothing else.

use contract::identity::Revocation;
use rustls::pki_types::{CertificateDer, UnixTime};
use trust::{Clock, DenyReason, SpiffeId};

use super::world::{MovedClock, TestCa};
use crate::bundle::Usage;
use crate::svid::PendingKey;

// L13, A2: who signed it is not asked of a caller; the time, the domain and the revocations are, and of a server everything. Whatever it was
// made of asks as before.
#[test]
fn a_bundle_that_believes_any_caller_believes_no_server_and_nobody_whose_time_is_over() {
    let (ours, forger, foreign) = (TestCa::new("video.example"), TestCa::new("video.example"), TestCa::new("other.example"));
    let front = ours.domain.service("front");
    let clock = MovedClock::by(0);
    let strict = ours.identity(&ours.domain.service("back"), clock.clone());
    let open = strict.dangerous_believing_any_caller();
    assert_eq!((open.id(), open.life_s(), open.bundle().roots()), (strict.id(), strict.life_s(), strict.bundle().roots()));
    let leaf = |ca: &TestCa, id: &SpiffeId, to_s| {
        let key = PendingKey::generate().unwrap();
        CertificateDer::from(ca.certify(key.csr(), &[id.to_string()], -7200, to_s))
    };
    let (genuine, forged) = (leaf(&ours, &front, 3600), leaf(&forger, &front, 3600));
    let (ended, stranger) = (leaf(&forger, &front, -60), leaf(&foreign, &foreign.domain.service("front"), 3600));
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(clock.unix_s()));
    for (what, leaf, usage, of_strict, of_open) in [
        ("genuine", &genuine, Usage::Client, None, None),
        ("genuine", &genuine, Usage::Server, None, None),
        ("forged", &forged, Usage::Client, Some(DenyReason::SvidUntrusted), None),
        ("forged", &forged, Usage::Server, Some(DenyReason::SvidUntrusted), Some(DenyReason::SvidUntrusted)),
        ("another domain's", &stranger, Usage::Client, Some(DenyReason::TrustDomainForeign), Some(DenyReason::TrustDomainForeign)),
    ] {
        for (bundle, expect) in [(strict.bundle(), of_strict), (open.bundle(), of_open)] {
            assert_eq!(bundle.verify(leaf, &[], usage, now).err().map(|refusal| refusal.reason), expect, "{what}, {usage:?}");
        }
    }
    assert_eq!(open.bundle().verify(&ended, &[], Usage::Client, now).unwrap_err().reason, DenyReason::SvidExpired);
    open.bundle().revoke(&[Revocation { spiffe_id: front, before_s: clock.unix_s() }]);
    assert_eq!(open.bundle().verify(&forged, &[], Usage::Client, now).unwrap_err().reason, DenyReason::SvidRevoked);
}

//! Known browsers: whoever has signed in here before is told apart from strangers who guess.
//!
//! After a sign-in the browser gets a cookie that says so for this one account, under our MAC. It proves nothing about the person and
//! opens nothing; it only gives the browser a count of failures of its own (`throttle`), which no stranger can use up. Whoever steals it
//! gets five guesses and then waits, as strangers do.
//!
//! Spec:       OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
//! Guarantees: B12. Not here: the counts.

use http::HeaderMap;
use trust::clock::random_hex;

use crate::form;
use crate::provider::Inner;

/// The cookie.
pub(crate) const COOKIE: &str = "__Host-palisade-device";
/// It counts for this long.
const LIFE_S: u64 = 180 * 24 * 3600;
const MAC_PURPOSE: &str = "device";

impl Inner {
    /// Id of the browser, if it is known for the account.
    pub(crate) fn device(&self, headers: &HeaderMap, account: &str) -> Option<String> {
        let (id, rest) = form::cookie(headers, COOKIE)?.split_once('.')?;
        let (at_s, mac) = rest.split_once('.')?;
        if !self.is_mac(MAC_PURPOSE, &format!("{account}\0{id}\0{at_s}"), mac) {
            return None;
        }
        let at_s: u64 = at_s.parse().ok()?;
        (self.now_s() <= at_s.saturating_add(LIFE_S)).then(|| id.to_owned())
    }

    /// The cookie that makes the browser a known one for the account; a new id each time, so that an older copy of it shares nothing.
    pub(crate) fn device_cookie(&self, account: &str) -> String {
        let (id, at_s) = (random_hex(&*self.entropy, 16), self.now_s());
        let mac = self.mac(MAC_PURPOSE, &format!("{account}\0{id}\0{at_s}"));
        form::set_cookie(COOKIE, &format!("{id}.{at_s}.{mac}"), LIFE_S)
    }
}

//! A page's owner, asked in the gateway's place by somebody who has a genuine token and not the page's role.
//!
//! Nobody of the model comes so far: the gateway asks everybody for the same role first. The run, which is the operator of the copy, calls
//! as the gateway, with the authority that one of the copy's services has in hand just now.
//!
//! Guarantees: L13.
//! Not here:   what the gateway asks (`techniques::console`), certificates (`genuine`).

use std::io;
use std::path::Path;

use breach::Control;
use contract::{Call, Client, Who, body, evidence};
use serde_json::Value;
use tokio::runtime::Handle;
use trust::{DenyReason, SystemClock, SystemEntropy, TraceContext};

use super::Probed;
use super::genuine::{Authority, Doors};

/// The role that has the pages.
const OWNER: &str = "evidence";
/// As much of a refusal as is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What a page's owner made of it.
pub(in crate::breach) struct Asked {
    pub(in crate::breach) probed: Probed,
    /// The trace of it, so that its record is not taken for one of the gateway's.
    pub(in crate::breach) trace: String,
}

/// Asks for a page with this person's token.
pub(in crate::breach) fn asked(handle: &Handle, dir: &Path, scratch: &Path, token: &str) -> io::Result<Asked> {
    let doors = Doors::read(dir)?;
    let genuine = Authority::of_the_copy(dir, scratch, &doors)?;
    let page = evidence::ROUTES.iter().find(|route| matches!(route.who, Who::Person(_)) && !route.path.contains('{'));
    let page = page.ok_or_else(|| io::Error::other("no page of the console has a path of its own"))?;
    let way = doors.way(&genuine.identity(&doors.domain.role("edge"))?, &doors.domain.role(OWNER))?;
    let request = http::Request::builder().method(page.method).uri(page.path).body(body::empty()).map_err(io::Error::other)?;
    let trace = TraceContext::root(SystemClock::shared().unix_s(), &SystemEntropy);
    let call = Call { token: Some(token), trace: Some(trace) };
    let answer = handle.block_on(Client::new(way).send(&call, request)).map_err(io::Error::other)?;
    let status = answer.status();
    let text = handle.block_on(body::collect(answer.into_body(), REFUSAL_BYTES_MAX));
    let said: Value = text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let probed = judged(status, said.get("reason").and_then(Value::as_str)).ok_or_else(|| {
        // Neither shows whether the role was asked for.
        io::Error::other(format!("{OWNER} answered the run, which came in the gateway's place, with {status} {said}"))
    })?;
    Ok(Asked { probed, trace: trace.trace_hex() })
}

/// What an answer says of whether the role was asked for, if it does.
fn judged(status: http::StatusCode, reason: Option<&str>) -> Option<Probed> {
    if status.is_success() {
        return Some(Probed::new(Control::Role, OWNER, false, "a page is given to somebody without its role"));
    }
    let refused = reason == Some(DenyReason::CallerNotAdmitted.code());
    refused.then(|| Probed::new(Control::Role, OWNER, true, "somebody without a page's role is refused, though the gateway let them pass"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // L13: only an answer that tells whether the role was asked for is taken for one.
    #[test]
    fn an_answer_for_another_reason_says_nothing_of_the_role() {
        let stands =
            |status: u16, reason| http::StatusCode::from_u16(status).ok().and_then(|status| judged(status, reason)).map(|it| it.stands);
        assert_eq!(stands(200, None), Some(false));
        assert_eq!(stands(403, Some("caller_not_admitted")), Some(true));
        for (status, reason) in [(403, Some("token_expired")), (401, Some("authority_missing")), (403, None), (503, None), (404, None)] {
            assert_eq!(stands(status, reason), None, "{status} {reason:?}");
        }
    }
}

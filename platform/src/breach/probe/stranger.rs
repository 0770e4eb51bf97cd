//! A stranger: calls the copy's guards with a genuine certificate of a service from which no flow leads there.
//!
//! Nobody of the model comes so far: a sandbox has no way to a service that it has no flow to.
//!
//! Guarantees: D4 measured, L13.
//! Not here:   certificates that are not genuine (`breach::nearby`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use breach::Control;
use contract::body;
use evidence::log::Entry;
use serde_json::Value;
use tokio::runtime::Handle;
use trust::SpiffeId;

use super::Probed;
use super::genuine::{Authority, Doors};

/// Doors that were called with a genuine certificate of somebody who is no caller: by service, as whom.
pub(in crate::breach) type Called = BTreeMap<String, SpiffeId>;

/// Calls every guard as a service that is none of its callers; what each made of it is in its records (`judged`).
pub(in crate::breach) fn as_no_caller(handle: &Handle, dir: &Path, scratch: &Path) -> io::Result<Called> {
    let doors = Doors::read(dir)?;
    let genuine = Authority::of_the_copy(dir, scratch, &doors)?;
    let services: Vec<&SpiffeId> = doors.at.keys().filter(|id| id.as_service().is_some()).collect();
    let mut called = Called::new();
    for (name, callers) in &doors.callers {
        // Nobody calls itself.
        let stranger = services.iter().find(|id| !callers.contains(id));
        let to = services.iter().find(|id| id.as_service() == Some(name));
        if let (Some(stranger), Some(to)) = (stranger, to)
            && answers(handle, &genuine, stranger, (&doors, to))?
        {
            called.insert(name.clone(), (*stranger).clone());
        }
    }
    Ok(called)
}

/// What the guards' records say of calls by strangers.
pub(in crate::breach) fn judged(called: &Called, entries: &[Entry]) -> Vec<Probed> {
    let mut probed = Vec::new();
    for (service, stranger) in called {
        let text = |entry: &Entry, name: &str| entry.record.fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (stranger, own) = (stranger.to_string(), |entry: &&Entry| entry.workload.as_service() == Some(service));
        let about = entries.iter().filter(own).filter(|entry| text(entry, "point") == "guard" && text(entry, "principal") == stranger);
        let reason = |entry: &Entry| entry.record.fields.get("decision")?.get("deny")?.get("reason")?.as_str().map(str::to_owned);
        let reasons: Vec<String> = about.filter_map(reason).collect();
        let stands = reasons.iter().any(|reason| reason == "peer_undeclared");
        let what = match (stands, reasons.first()) {
            (true, _) => "a caller that no flow names is refused".to_owned(),
            (false, Some(other)) => format!("a caller that no flow names is let in, and stopped by what comes next ({other})"),
            (false, None) => continue,
        };
        probed.push(Probed::new(Control::GuardIn, service, stands, what));
    }
    probed
}

/// Whether a door answers whoever has this certificate, whatever the answer.
fn answers(handle: &Handle, genuine: &Authority, stranger: &SpiffeId, (doors, to): (&Doors, &SpiffeId)) -> io::Result<bool> {
    let transport = doors.way(&genuine.identity(stranger)?, to)?;
    let request = http::Request::builder().uri("/").body(body::empty()).map_err(io::Error::other)?;
    Ok(handle.block_on(transport.call(request)).is_ok())
}

//! `palisade sandbox trace`: the list of system calls of a service, from what it is seen to make.
//!
//! The system runs as with `up`; the one service's sandbox tells each allowed call the first time. Whoever runs it gives the service work as
//! it will have it. What was seen is added to the list, never taken from it: a call that this run did not need, another may.
//!
//! Guarantees: I6 the list is made of what was seen.
//! Not here:   how calls are seen (`sandbox`), what the list allows (`sandbox::Calls`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use sandbox::Calls;

use super::up::Up;
use super::{Failure, Format, say};
use crate::system::{Applied, Layout};

/// Runs the system until Ctrl-C, then writes the list.
pub(super) fn trace(service: &str, up: Up, format: Format) -> Result<ExitCode, Failure> {
    let applied = Applied::open(&up.manifest.manifest)?;
    let found = applied.manifest.services.get(service).ok_or_else(|| super::explain::unknown(&applied, service))?;
    let layout = Layout { dir: crate::folder::claim(&up.dir.dir)? };
    let kept: Vec<_> = (0..found.replicas.max)
        .map(|replica| if replica == 0 { format!("guard-{service}") } else { format!("guard-{service}.{}", replica.saturating_add(1)) })
        .map(|guard| layout.data(&guard).join(crate::guard::TRACED))
        .collect();
    for path in &kept {
        let _absent = std::fs::remove_file(path); // Of a trace that was not finished; `keep` adds to what is there.
    }
    let code = up.traced(Some(service), format)?;
    let list = found.syscalls.clone().unwrap_or_else(|| format!("profiles/{service}.syscalls"));
    let path = applied.search.folder.join(&list);
    let seen: BTreeSet<String> = kept.iter().flat_map(|path| lines(path)).collect();
    if seen.is_empty() {
        return Err(Failure::failed(format_args!(
            "no system call of {service} was seen: it was not started; give it work while this runs"
        )));
    }
    let before: BTreeSet<String> = lines(&path).into_iter().filter(|line| !line.starts_with('#')).collect();
    let text = Calls::text(seen.union(&before).map(String::as_str));
    let count = Calls::parse(&text).map_err(Failure::failed)?.count();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::failed)?;
    }
    std::fs::write(&path, &text).map_err(Failure::failed)?;
    let general = Calls::General.count();
    match format {
        Format::Json => say(serde_json::json!({ "service": service, "list": path, "allowed": count, "general": general, "seen": seen })),
        Format::Text => {
            say(format_args!("{}: {count} calls, where ordinary programs have {general}", path.display()));
            say(match found.syscalls {
                Some(_) => "Run `palisade lock`: the list is pinned like everything that runs.".to_owned(),
                None => format!("Write syscalls = \"{list}\" into [service.{service}], then run `palisade lock`."),
            });
        }
    }
    Ok(code)
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

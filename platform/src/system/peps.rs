//! Decision points as members of the system: one for each enforcement point that the manifest declares.
//!
//! Guarantees: E21: the socket is the proxy's user's alone, and lies where only its owner can put one.

use super::{BootTemplate, Builder, Member, Replacement, SystemError, io, unix_listener};
use crate::folder;

impl Builder<'_> {
    /// The decision point of an enforcement point, with a socket that belongs to the proxy's user.
    pub(super) fn pdp(&mut self, pep: &str, declared: &manifest::Pep, origin: &str) -> Result<(), SystemError> {
        let own = rustix::process::geteuid();
        let uid = declared.uid.unwrap_or_else(|| own.as_raw());
        if uid != own.as_raw() && !own.is_root() {
            return Err(SystemError::PepUser { pep: pep.to_owned(), uid });
        }
        folder::passable(&self.layout.peps())?;
        let path = self.layout.pep(pep);
        let listener = unix_listener(&path)?;
        std::os::unix::fs::chown(&path, Some(uid), None).map_err(io("cannot give to its user", &path))?;
        let settings =
            serde_json::json!(crate::pdp::Settings { origin: origin.to_owned(), uid, limits: self.applied.manifest.edge.limits.into() });
        let name = format!("pdp-{pep}");
        let id = self.applied.manifest.trust_domain.pdp(pep);
        let boot = BootTemplate(self.boot(id, self.layout.data(&name), String::new(), Vec::new(), settings)?);
        let (args, listeners) = (vec!["pdp".to_owned(), pep.to_owned()], vec![("pep".to_owned(), listener)]);
        self.members.push(Member { name, args, artefacts: Vec::new(), listeners, boot, stage: 4, replacement: Replacement::Never });
        self.peps.push((pep.to_owned(), path));
        Ok(())
    }
}

//! Where a system keeps its things: one folder, and the place of each thing in it.

use std::path::PathBuf;

/// Where a system keeps its things.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The folder of all.
    pub dir: PathBuf,
}

impl Layout {
    /// Sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }
    /// An operator's socket of a role.
    #[must_use]
    pub fn operator(&self, role: &str) -> PathBuf {
        self.run().join(format!("{role}.sock"))
    }
    /// Sockets of enforcement points.
    #[must_use]
    pub fn peps(&self) -> PathBuf {
        self.dir.join("pep")
    }
    /// The socket at which an enforcement point asks.
    #[must_use]
    pub fn pep(&self, name: &str) -> PathBuf {
        self.peps().join(format!("{name}.sock"))
    }
    /// A process's own folder.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join("data").join(name)
    }
    /// The lock.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("palisade.lock")
    }
    /// Logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }
    /// Access logs.
    #[must_use]
    pub fn access_logs(&self) -> PathBuf {
        self.logs().join("access")
    }
    /// What was kept of a service each time that it was contained.
    #[must_use]
    pub fn contained(&self, service: &str) -> PathBuf {
        self.dir.join("contained").join(service)
    }
    /// The key that verifies the audit log's checkpoints.
    #[must_use]
    pub fn audit_key(&self) -> PathBuf {
        self.data("anchor").join("audit.vkey")
    }
    /// The certificate by which browsers may trust the local HTTPS address.
    #[must_use]
    pub fn local_ca(&self) -> PathBuf {
        self.data("identity").join("public").join("local-ca.pem")
    }
}

//! What outlives the process: the account and the certificates, sealed, in files of their owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use trust::{KeySealer, SealError};

use super::order::Pems;
use super::{AcmeError, AcmeSettings};
use crate::edge::certificates::Shown;

/// Version of what is sealed.
const VERSION: u32 = 1;

/// The folder.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    sealer: KeySealer,
}

/// An account, and what it was made for.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptAccount {
    pub(super) directory: String,
    pub(super) contact: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

impl Kept {
    /// Makes the folder if there is none.
    pub(super) fn open(folder: PathBuf, sealer: KeySealer) -> Result<Self, AcmeError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| AcmeError::Folder { path: folder.clone(), source })?;
        Ok(Self { folder, sealer })
    }

    /// The account with that authority under those contacts; nothing when there is none.
    pub(super) fn account(&self, settings: &AcmeSettings) -> Result<Option<KeptAccount>, AcmeError> {
        let kept: Option<KeptAccount> = self.read("account")?;
        Ok(kept.filter(|kept| kept.directory == settings.directory && kept.contact == settings.contact))
    }

    pub(super) fn keep_account(&self, account: &KeptAccount) -> Result<(), AcmeError> {
        self.write("account", account)
    }

    /// A host's certificate; nothing when there is none.
    pub(super) fn certificate(&self, host: &str) -> Result<Option<Shown>, AcmeError> {
        let Some(pems) = self.read::<Pems>(&named(host))? else { return Ok(None) };
        let shown = Shown::parse(pems.chain.as_bytes(), pems.key.expose().as_bytes(), &[host.to_owned()], &self.folder)?;
        Ok(Some(shown))
    }

    pub(super) fn keep_certificate(&self, host: &str, pems: &Pems) -> Result<(), AcmeError> {
        self.write(&named(host), pems)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, AcmeError> {
        let text = match fs::read_to_string(self.folder.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let tampered = |error| AcmeError::Tampered(name.to_owned(), error);
        let plain = self.sealer.open(name, VERSION, &text).map_err(tampered)?;
        serde_json::from_slice(plain.expose()).map(Some).map_err(|_| tampered(SealError::Malformed(name.to_owned())))
    }

    /// Whole or not at all: a neighbour file, flushed, then renamed over.
    fn write<T: Serialize>(&self, name: &str, what: &T) -> Result<(), AcmeError> {
        let text = zeroize::Zeroizing::new(serde_json::to_vec(what).map_err(|error| self.failed(error.into()))?);
        let sealed = self.sealer.seal(name, VERSION, &text).map_err(|error| AcmeError::Tampered(name.to_owned(), error))?;
        let beside = self.folder.join(format!("{name}.new"));
        let store = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
            file.write_all(sealed.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, self.folder.join(name))?;
            File::open(&self.folder)?.sync_all()
        };
        store().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> AcmeError {
        AcmeError::Folder { path: self.folder.clone(), source }
    }
}

/// The name of a host's file; hosts have no `/`.
fn named(host: &str) -> String {
    format!("certificate-{host}")
}

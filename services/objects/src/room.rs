//! The room: sorts requests into S3, presigning, verdicts and redeeming.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use contract::objects::ROUTES;
use contract::queue::QueueClient;
use contract::{Body, Caller, Found, Room, Route, body, find};
use http::{Request, Response};
use s3s::service::S3Service;
use telemetry::Recorder;
use tokio::sync::Notify;
use trust::{Clock, DenyReason, Entropy, ObjectRef};

use crate::blob::Blobs;
use crate::gate::{Gate, Visitor};
use crate::ledger::Ledger;
use crate::refusal::Refusal;
use crate::rules::Rules;
use crate::s3;

/// What an object store is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its folder: database, key, and bytes. Nobody else's.
    pub folder: PathBuf,
    /// Nothing is received while its disk has less free than this, in bytes (`FREE_BYTES_MIN`).
    pub free_bytes_min: u64,
    /// The present rules.
    pub rules: Arc<dyn Rules>,
    /// For leases, and for events of created objects.
    pub queue: QueueClient,
    /// The public origin (`https://HOST[:PORT]`) that presigned URLs have.
    pub origin: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Where decisions and acts are recorded.
    pub recorder: Recorder,
}

/// Why the object store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database or its key file.
    #[error("the object store's database cannot be used")]
    State(#[from] state::StateError),
    /// The folders of bytes.
    #[error("the object store's folders cannot be used")]
    Folder(#[from] io::Error),
}

/// The object store. Clones share everything.
#[derive(Clone)]
pub struct Objects {
    pub(crate) shelf: Arc<Shelf>,
    s3: S3Service,
}

/// All that the acts share.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) gate: Arc<Gate>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) origin: String,
    /// Wakes the messenger.
    pub(crate) stirred: Notify,
    /// Which version of an object a job's lease has read; nothing if more than one.
    pub(crate) reads: Mutex<BTreeMap<(String, ObjectRef), Option<String>>>,
}

impl Objects {
    /// Opens the store in `parts.folder`, and sweeps away what uploads that were cut short have left.
    ///
    /// # Errors
    /// `State` when the database or its key cannot be used, `Folder` when the folders cannot.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        Self::with_leases(parts, true).await
    }

    /// The same without asking whether a job's lease lives. For a throw-away copy of a system alone, to see that an attack finds that.
    ///
    /// # Errors
    /// As `open`.
    pub async fn dangerous_open_without_leases(parts: Parts) -> Result<Self, OpenError> {
        Self::with_leases(parts, false).await
    }

    async fn with_leases(parts: Parts, asks: bool) -> Result<Self, OpenError> {
        let Parts { folder, free_bytes_min, rules, queue, origin, clock, entropy, recorder } = parts;
        let ledger = Arc::new(Ledger::open(&folder, &*entropy).await?);
        let blobs = Blobs::open(&folder, free_bytes_min).await?;
        let swept = blobs.sweep(&ledger.blobs().await?).await?;
        if swept > 0 {
            tracing::warn!(swept, "bytes that no object has were removed");
        }
        let gate = Arc::new(Gate { rules, queue, recorder, clock: Arc::clone(&clock), dangerous_leaseless: !asks });
        let (stirred, reads) = (Notify::new(), Mutex::default());
        let shelf = Arc::new(Shelf { gate, ledger, blobs, clock, entropy, origin, stirred, reads });
        let s3 = s3::service(Arc::clone(&shelf));
        Ok(Self { shelf, s3 })
    }

    async fn route(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let Found::Route(route, values) = find(ROUTES, request.method().as_str(), &path) else {
            return Err(Refusal::Denied(DenyReason::RouteUnknown));
        };
        let value = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone().into_owned());
        let at = match (value("bucket"), value("key")) {
            (Some(bucket), Some(key)) => Some(ObjectRef::new(bucket, key).map_err(|error| Refusal::Invalid(error.to_string()))?),
            _ => None,
        };
        if let Some(at) = at.as_ref().filter(|_| route.action.starts_with("objects.redeem.")) {
            return self.shelf.redeem(caller, at, request).await;
        }
        let Some(principal) = caller.workload().cloned() else { return Err(Refusal::Denied(DenyReason::CallerNotAdmitted)) };
        let visitor = Visitor { principal, authority: caller.authority().cloned(), trace: caller.trace };
        match (asks(&request), &at) {
            (Some("presign"), Some(at)) if route.action == "objects.post" => self.shelf.presign(&visitor, at, request).await,
            (Some("presign-parts"), Some(at)) if route.action == "objects.post" => self.shelf.presign_parts(&visitor, at, request).await,
            (Some("verdict"), Some(at)) if route.action == "objects.post" => self.shelf.verdict(&visitor, at, request).await,
            _ => s3::call(&self.s3, visitor, request).await,
        }
    }
}

/// The one parameter of a request that has exactly one, without a value.
fn asks(request: &Request<Body>) -> Option<&str> {
    let query = request.uri().query()?;
    let name = query.strip_suffix('=').unwrap_or(query);
    (!name.contains(['&', '='])).then_some(name)
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Room for Objects {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        let head = request.method() == http::Method::HEAD;
        let response = self.route(&caller, request).await.unwrap_or_else(Refusal::response);
        if head { response.map(|_| body::empty()) } else { response }
    }
}

//! The way to the authority: its directory over HTTPS, and our account there.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{Account, BodyWrapper, BytesResponse, HttpClient, NewAccount};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kept::{Kept, KeptAccount};
use super::{AcmeError, AcmeSettings};
use crate::roots::{self, RootsError};
use crate::{limits, tls};

/// Largest answer of an authority, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long one exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);

/// HTTPS to an authority, one connection for each request.
#[derive(Clone)]
pub(in crate::edge) struct Directory {
    config: Arc<ClientConfig>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("{0} is no https address")]
    Address(Uri),
    #[error("no connection to {host}")]
    Connection {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {0} broke")]
    Broken(String, #[source] hyper::Error),
    #[error("the answer of {0} is larger than {ANSWER_BYTES_MAX} bytes or broke off")]
    Answer(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} seconds", EXCHANGE_MAX.as_secs())]
    Late,
}

impl Directory {
    /// With the roots of that file, or the machine's.
    ///
    /// # Errors
    /// `Roots`.
    pub(in crate::edge) fn new(root: Option<&Path>) -> Result<Self, AcmeError> {
        let found = roots::read(root).map_err(|RootsError { path, source }| AcmeError::Roots { path, source })?;
        let unusable = |error: rustls::Error| AcmeError::Roots { path: root.map(Path::to_owned).unwrap_or_default(), source: error.into() };
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(found)
            .with_no_client_auth();
        config.alpn_protocols = vec![tls::HTTP1.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// The account there: the one that is kept, or a new one, which is then kept.
    pub(super) async fn account(&self, settings: &AcmeSettings, kept: Option<KeptAccount>, keep: &Kept) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(self.clone()));
        if let Some(kept) = kept {
            return Ok(builder.from_credentials(kept.credentials).await?);
        }
        let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&new, settings.directory.clone(), None).await?;
        let new = KeptAccount { directory: settings.directory.clone(), contact: settings.contact.clone(), credentials };
        keep.keep_account(&new)?;
        Ok(account)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

impl HttpClient for Directory {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            let exchanged = tokio::time::timeout(EXCHANGE_MAX, exchange(config, request)).await;
            let answer = exchanged.unwrap_or(Err(ExchangeError::Late));
            answer.map(BytesResponse::from).map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

async fn exchange(config: Arc<ClientConfig>, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, ExchangeError> {
    let uri = request.uri().clone();
    let wrong = || ExchangeError::Address(uri.clone());
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
    let field = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
    request.headers_mut().insert(header::HOST, field);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| wrong())?;

    let unreachable = |source| ExchangeError::Connection { host: host.clone(), source };
    let tcp = connect(&host, authority.port_u16().unwrap_or(443)).await.map_err(unreachable)?;
    let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(unreachable)?;
    let broken = |error| ExchangeError::Broken(host.clone(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    driving.abort();
    let body = body.map_err(|error| ExchangeError::Answer(host.clone(), error))?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

/// The first of the host's addresses that answers.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(Duration::from_millis(limits::CONNECT_MS), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(late) => last = io::Error::new(io::ErrorKind::TimedOut, late),
        }
    }
    Err(last)
}

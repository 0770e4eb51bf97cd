//! Knocking: a TLS client that believes whoever answers and shows whatever it is given, to see what a listener says to somebody whom it
//! should not know. For breaking into a throw-away copy; nothing that carries a request uses it.
//!
//! Spec:       RFC 8446, RFC 5246; RFC 7301 (ALPN).
//! Guarantees: D1 is tried with it.
//! Not here:   certificates that are shown, and what an answer means (`palisade breach`).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, Stream};
use trust::SystemClock;
use x509_parser::extensions::GeneralName;

use crate::tls::{Clocked, provider};

/// How long a listener has to say something. A refusal comes at once.
const SILENCE: Duration = Duration::from_secs(2);
/// As much of an answer as is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// RFC 8446, section 5.1: the first byte of an alert's record.
const ALERT: u8 = 21;

/// What is shown: the chain in DER, leaf first, and a key in PKCS #8, whether or not it is the leaf's.
#[derive(Clone)]
pub struct Papers {
    /// Leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Papers({} certificates)", self.chain.len())
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A TLS alert.
    Alert,
    /// Closed without a word.
    Closed,
    /// No word.
    Silence,
    /// Something was said.
    Answered,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The chain that the listener showed, in DER; empty where it showed none.
    pub chain: Vec<Vec<u8>>,
    /// How it ended.
    pub end: End,
}

/// Knocks in TLS: shows `papers`, speaks `alpn`, says `word` once the handshake is made.
///
/// # Errors
/// Nobody listens there; the papers' key is of no known form.
pub fn in_tls(at: SocketAddr, papers: Option<&Papers>, alpn: &[u8], old: bool, word: &[u8]) -> io::Result<Heard> {
    let shown = papers.map(certified).transpose().map_err(io::Error::other)?;
    let seen = Arc::new(Believes::default());
    let version = if old { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Clocked(SystemClock::shared())))
        .with_protocol_versions(&[version])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>);
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(Shows(shown))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let mut socket = socket(at)?;
    let nobody = ServerName::IpAddress(at.ip().into());
    let mut connection = ClientConnection::new(Arc::new(config), nobody).map_err(io::Error::other)?;
    let end = conversation(&mut Stream::new(&mut connection, &mut socket), word);
    let chain = seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Heard { chain, end })
}

/// Knocks without TLS: says `word`.
///
/// # Errors
/// Nobody listens there.
pub fn in_plain(at: SocketAddr, word: &[u8]) -> io::Result<Heard> {
    let mut socket = socket(at)?;
    Ok(Heard { chain: Vec::new(), end: conversation(&mut socket, word) })
}

/// The URI that a certificate has as its name.
#[must_use]
pub fn name_of(leaf: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let uri = |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
    names.value.general_names.iter().find_map(uri)
}

fn socket(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&at, SILENCE)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_write_timeout(Some(SILENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn conversation(stream: &mut (impl Read + Write), word: &[u8]) -> End {
    // Whoever is refused may be so before the word is out; what the other side said of that is read all the same.
    let written = stream.write_all(word).and_then(|()| stream.flush());
    if let Err(error) = written
        && is_alert(&error)
    {
        return End::Alert;
    }
    let mut answer = [0; ANSWER_BYTES_MAX];
    match stream.read(&mut answer) {
        Ok(0) => End::Closed,
        // Without TLS of its own, an alert is all that a TLS listener says.
        Ok(_) if answer.first() == Some(&ALERT) => End::Alert,
        Ok(_) => End::Answered,
        Err(error) if is_alert(&error) => End::Alert,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => End::Silence,
        Err(_) => End::Closed,
    }
}

fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_) | rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_)))
}

fn certified(papers: &Papers) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let key = PrivateKeyDer::try_from(papers.key.clone()).map_err(|why| rustls::Error::General(why.to_owned()))?;
    let key = provider().key_provider.load_private_key(key)?;
    // Not compared: a genuine certificate may be shown with a key that is not its own.
    Ok(Arc::new(CertifiedKey::new(papers.chain.iter().cloned().map(CertificateDer::from).collect(), key)))
}

/// Shows this, whoever asks.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes everybody, and remembers what they showed.
#[derive(Debug, Default)]
struct Believes(Mutex<Vec<Vec<u8>>>);

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(rest).map(|one| one.as_ref().to_vec()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

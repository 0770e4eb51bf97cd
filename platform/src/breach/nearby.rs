//! Somebody nearby: in the outer network of the copy, beside its inner listeners, with certificates of their own making.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use breach::attacker::nearby::{End, Knocked, Nearby, Shown, Speaks};
use proxy::knock::{self, Heard, Papers};
use proxy::tls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};

/// Listening, in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A place in the copy's network.
pub(super) struct Neighbourhood {
    /// The edge's port, which is for everybody.
    public: u16,
    authority: Authority,
    /// Chains that listeners showed.
    seen: Mutex<BTreeMap<SocketAddr, Vec<Vec<u8>>>>,
}

/// An authority that nobody trusts.
struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Neighbourhood {
    /// Beside the system at `origin`.
    pub(super) fn of(origin: &str) -> io::Result<Self> {
        let public = origin.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok()).unwrap_or(443);
        let authority = Authority::new().map_err(io::Error::other)?;
        Ok(Self { public, authority, seen: Mutex::default() })
    }

    /// The chain that the listener at this address shows.
    fn chain_of(&self, at: SocketAddr) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&at).cloned().unwrap_or_default()
    }

    fn papers(&self, at: SocketAddr, shown: &Shown) -> Result<Option<Papers>, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let chain = match shown {
            Shown::Nothing => return Ok(None),
            Shown::SelfSigned(name) => vec![leaf(name)?.self_signed(&key)?.der().to_vec()],
            Shown::OwnAuthority(name) => {
                vec![leaf(name)?.signed_by(&key, &self.authority.issuer)?.der().to_vec(), self.authority.der.clone()]
            }
            Shown::InAuthoritysName(name) => {
                // Its names and key identifiers are those of the genuine authority; the key that signs is not.
                let genuine: Vec<Vec<u8>> = self.chain_of(at).into_iter().skip(1).collect();
                let Some(above) = genuine.first() else { return Ok(None) };
                let issuer = Issuer::from_ca_cert_der(&above.as_slice().into(), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
                std::iter::once(leaf(name)?.signed_by(&key, &issuer)?.der().to_vec()).chain(genuine).collect()
            }
            Shown::Genuine(of) => self.chain_of(*of),
        };
        Ok(Some(Papers { chain, key: key.serialize_der() }).filter(|papers| !papers.chain.is_empty()))
    }
}

impl Nearby for Neighbourhood {
    fn listeners(&self) -> Vec<SocketAddr> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let ports = listening(&text("/proc/net/tcp")).into_iter().chain(listening(&text("/proc/net/tcp6")));
        let inner: BTreeSet<u16> = ports.filter(|port| *port != self.public).collect();
        inner.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
    }

    fn knock(&self, at: SocketAddr, shown: &Shown, speaks: Speaks) -> Knocked {
        let papers = match self.papers(at, shown) {
            Ok(papers) if papers.is_some() || *shown == Shown::Nothing => papers,
            Ok(_) => return Knocked { who: None, end: End::Untried(format!("{}: there is none to be had", shown.words())) },
            Err(error) => return Knocked { who: None, end: End::Untried(format!("{}: {error}", shown.words())) },
        };
        let (http1, http2) = (&b"GET / HTTP/1.1\r\nhost: mesh\r\n\r\n"[..], &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]);
        let heard = match speaks {
            Speaks::Http2 => knock::in_tls(at, papers.as_ref(), tls::H2, false, http2),
            Speaks::Http1 => knock::in_tls(at, papers.as_ref(), tls::HTTP1, false, http1),
            Speaks::Tcp => knock::in_tls(at, papers.as_ref(), tls::TCP, false, b"x"),
            Speaks::OldTls => knock::in_tls(at, papers.as_ref(), tls::HTTP1, true, http1),
            Speaks::PlainHttp1 => knock::in_plain(at, http1),
            Speaks::PlainHttp2 => knock::in_plain(at, http2),
        };
        match heard {
            Ok(heard) => self.understood(at, heard),
            Err(error) => Knocked { who: None, end: End::Untried(format!("{}: {}", breach::untried::NOBODY_THERE, error.kind())) },
        }
    }
}

impl Neighbourhood {
    fn understood(&self, at: SocketAddr, heard: Heard) -> Knocked {
        let who = heard.chain.first().and_then(|leaf| knock::name_of(leaf));
        if !heard.chain.is_empty() {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(at, heard.chain);
        }
        let end = match heard.end {
            knock::End::Answered => End::Answered,
            // Which of these it is depends on who is faster, so that a report says the same of all.
            knock::End::Alert | knock::End::Closed => End::Refused("an alert, or closed"),
            knock::End::Silence => End::Refused("silence"),
        };
        Knocked { who, end }
    }
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "an authority of its own");
        let der = params.self_signed(&key)?.der().to_vec();
        Ok(Self { der, issuer: Issuer::new(params, key) })
    }
}

/// A certificate as a workload of ours would have it, with this name.
fn leaf(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Ports of a table of sockets that somebody listens on, on loopback or on every address.
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| -> Option<u16> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let here = address_of(address).is_some_and(|address| address.is_loopback() || address.is_unspecified());
        (state == LISTENING && here).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// An address as `/proc/net` has it: in words of 32 bits, each with its bytes in the machine's order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> =
        hex.as_bytes().chunks(8).map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes())).collect();
    let bytes: Vec<u8> = words?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn inner_listeners_are_those_of_loopback_and_of_every_address() {
        let line = |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 1");
        let word = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let table = [
            "  sl  local_address rem_address   st".to_owned(),
            line(&format!("{}:1F90", word([127, 0, 0, 1])), "0A"),
            line(&format!("{}:1F91", word([127, 0, 0, 1])), "01"),
            line(&format!("{}:0050", word([10, 99, 0, 2])), "0A"),
            line(&format!("{}:0051", word([0, 0, 0, 0])), "0A"),
        ];
        assert_eq!(listening(&table.join("\n")), [0x1f90, 0x51]);
        assert_eq!(listening("nothing\nof a table"), Vec::<u16>::new());
    }

    // D1: against a listener that asks for nothing every form is answered, so that no refusal of the copy is our own mistake.
    #[test]
    fn somebody_who_believes_everybody_answers_every_forged_certificate() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let nearby = Neighbourhood::of("https://localhost:1").unwrap();
        let at = runtime.block_on(careless());
        let first = nearby.knock(at, &Shown::Nothing, Speaks::Http1);
        assert_eq!((first.who.as_deref(), first.end), (Some("spiffe://x.example/service/a"), End::Answered));
        let name = "spiffe://x.example/service/b".to_owned();
        for shown in [Shown::SelfSigned(name.clone()), Shown::OwnAuthority(name.clone()), Shown::InAuthoritysName(name)] {
            assert_eq!(nearby.knock(at, &shown, Speaks::Http1).end, End::Answered, "{shown:?}");
        }
        assert_eq!(nearby.knock(at, &Shown::Genuine(at), Speaks::Http1).end, End::Refused("an alert, or closed"), "it has not the key");
        assert_eq!(nearby.knock(at, &Shown::Nothing, Speaks::PlainHttp1).end, End::Refused("an alert, or closed"), "it speaks TLS alone");
    }

    /// A TLS listener that takes every certificate whose key is there, and says a word.
    async fn careless() -> SocketAddr {
        use tokio::io::AsyncWriteExt;
        let authority = Authority::new().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let own = leaf("spiffe://x.example/service/a").unwrap().signed_by(&key, &authority.issuer).unwrap();
        let chain = vec![own.der().clone(), authority.der.clone().into()];
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(std::sync::Arc::new(Anybody))
            .with_single_cert(chain, key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _gone = stream.write_all(b"come in").await;
                    let _gone = stream.shutdown().await;
                }
            }
        });
        at
    }

    #[derive(Debug)]
    struct Anybody;

    impl rustls::server::danger::ClientCertVerifier for Anybody {
        fn client_auth_mandatory(&self) -> bool {
            false
        }
        fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
            &[]
        }
        fn verify_client_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
            Ok(rustls::server::danger::ClientCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("not spoken here".to_owned()))
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &tls::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            tls::provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

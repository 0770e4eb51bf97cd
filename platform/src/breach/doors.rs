//! Doors outside of every sandbox: addresses that the run puts up itself, each with somebody who notices who comes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A metadata service, a neighbour, and the internet.
pub(crate) const ADDRESSES: &[Ipv4Addr] =
    &[Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(10, 99, 0, 2), Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(93, 184, 215, 14)];
/// A neighbour by IPv6.
pub(crate) const ADDRESSES_6: &[Ipv6Addr] = &[Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2)];
/// Ports that they listen on: of machines, databases, brokers, and of what runs containers.
pub(super) const TCP_PORTS: &[u16] = &[22, 25, 53, 80, 443, 2375, 3306, 5432, 6379, 6443, 8080, 10250];
/// A place at one of the addresses where nobody listens.
pub(super) const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(93, 184, 215, 14), 444);
/// Every address that is put up here: those of IPv6 where the kernel has it.
pub(super) fn addresses() -> Vec<IpAddr> {
    let is_up = |address: &&Ipv6Addr| TcpListener::bind((**address, 0)).is_ok();
    ADDRESSES.iter().copied().map(IpAddr::V4).chain(ADDRESSES_6.iter().filter(is_up).copied().map(IpAddr::V6)).collect()
}

/// Ports for datagrams.
const UDP_PORTS: &[u16] = &[53, 443];

/// Name of the abstract socket of a run.
pub(super) fn abstract_name(scratch: &Path) -> String {
    scratch.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Who came, by door.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors(Arc<Mutex<Vec<String>>>);

impl Doors {
    /// Opens them all, and sees that they notice.
    pub(super) fn open(scratch: &Path) -> std::io::Result<Self> {
        let doors = Self::default();
        for address in addresses() {
            for port in TCP_PORTS {
                doors.tcp(SocketAddr::from((address, *port)))?;
            }
            for port in UDP_PORTS {
                doors.udp(SocketAddr::from((address, *port)))?;
            }
        }
        doors.named(scratch)?;
        doors.try_them()?;
        Ok(doors)
    }

    /// Who came since the last time.
    pub(super) fn came(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, door: &str) {
        let mut came = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !came.iter().any(|known| known == door) {
            came.push(door.to_owned());
        }
    }

    fn tcp(&self, at: SocketAddr) -> std::io::Result<()> {
        let (listener, doors) = (TcpListener::bind(at)?, self.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                doors.note(&format!("tcp {at}"));
                // As a metadata service would answer.
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{\"k\":\"v\"}";
                let _gone = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _silent = stream.read(&mut [0; 1024]);
                let _gone = stream.write_all(answer);
            }
        });
        Ok(())
    }

    fn udp(&self, at: SocketAddr) -> std::io::Result<()> {
        let (socket, doors) = (UdpSocket::bind(at)?, self.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while socket.recv_from(&mut buffer).is_ok() {
                doors.note(&format!("udp {at}"));
            }
        });
        Ok(())
    }

    fn named(&self, scratch: &Path) -> std::io::Result<()> {
        let name = std::os::unix::net::SocketAddr::from_abstract_name(abstract_name(scratch))?;
        let (listener, doors) = (UnixListener::bind_addr(&name)?, self.clone());
        std::thread::spawn(move || {
            for _stream in listener.incoming().flatten() {
                doors.note("abstract socket");
            }
        });
        Ok(())
    }

    /// A door that notices nobody would prove nothing.
    fn try_them(&self) -> std::io::Result<()> {
        let all = addresses();
        for address in &all {
            drop(TcpStream::connect((*address, 80))?);
            let any = if address.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            UdpSocket::bind((any, 0))?.send_to(b"x", (*address, 53))?;
        }
        for _ in 0..100 {
            let noticed = self.0.lock().unwrap_or_else(PoisonError::into_inner).len();
            if noticed >= all.len().saturating_mul(2) {
                self.came();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(std::io::Error::other("the doors of the outer network do not notice who comes"))
    }
}

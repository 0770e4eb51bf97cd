//! D1 and the fifth point: nothing that belongs to a person crosses a socket outside a sandbox in plain text.
//!
//! Everything on loopback is captured while a video goes all the way, in a network namespace of the test's own, so that every packet in
//! the capture is this system's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xtask::curl::Ask;

use crate::{READY, Stage};

/// In the file's name, in its metadata, and so in its bytes.
const CANARY: &str = "Nightingale7Q4ZX91";
/// What the test itself says in plain text, so that it is seen to be able to find something.
const CONTROL: &str = "Woodpecker3K8VB22";
/// Set in the copy of this test that runs inside the namespace.
const INSIDE: &str = "PALISADE_TEST_WIRE";

const LOOPBACK_UP: &str = "import fcntl, socket, struct\n\
    fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x49))";

#[test]
fn nothing_of_a_person_crosses_a_socket_in_plain_text() {
    if std::env::var_os(INSIDE).is_some() {
        xtask::tree::run(Command::new("/usr/bin/python3").args(["-c", LOOPBACK_UP])).unwrap();
        return captured_and_searched();
    }
    let as_root = xtask::tree::output(Command::new("id").arg("-u")).unwrap().trim() == "0";
    let mut unshare = Command::new("unshare");
    if !as_root {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.arg("--net").arg(std::env::current_exe().unwrap());
    unshare.args(["--exact", "wire::nothing_of_a_person_crosses_a_socket_in_plain_text", "--nocapture"]).env(INSIDE, "1");
    assert!(unshare.status().unwrap().success(), "inside the namespace it failed");
}

fn captured_and_searched() {
    let scratch = xtask::demo::Scratch::new().unwrap();
    let pcap = scratch.0.join("lo.pcap");
    let tcpdump = Capture::start(&pcap);
    let control_port = say_in_plain_text();
    let setting = xtask::running::Setting::reference(&scratch.0.join("system")).unwrap();
    let stage = Stage::set_with(scratch, setting);

    // A video all the way.
    let file = stage.scratch.0.join(format!("{CANARY}.mp4"));
    let comment = format!("comment={CANARY}");
    let more = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-metadata", &comment];
    xtask::media::make(&file, 2, "640x360", &more).unwrap();
    assert!(contains(&std::fs::read(&file).unwrap(), CANARY.as_bytes()), "the canary is not in the uploaded bytes");
    let uploaded = stage.ada.upload(&file, "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let list = stage.ada.api("GET", "/api/videos", None, 200).unwrap().to_string();
    assert!(list.contains(CANARY), "the name came through: {list}");
    let watch = stage.ada.api("GET", &format!("/api/videos/{}/watch", uploaded.id), None, 200).unwrap();
    let rendition = stage.ada.curl.ask(watch["renditions"][0]["url"].as_str().unwrap(), &Ask::default()).unwrap().body;
    assert!(rendition.len() > 10_000);
    assert_eq!(stage.ada.curl.page("/").unwrap().status, 200);
    assert_eq!(stage.ada.curl.page("/console").unwrap().status, 200);
    std::thread::sleep(Duration::from_secs(2));

    let public: u16 = stage.running.address.rsplit(':').next().unwrap().parse().unwrap();
    let ports: BTreeSet<u16> = crate::boundary::inner_ports(&stage).into_iter().chain([public]).collect();
    let cookies = cookies(&stage.scratch.0.join("ada.cookies"));
    stage.running.stop().unwrap();
    tcpdump.stop();

    // The capture is whole and can be searched: the test's own plain text is in it, and each door of the system was used.
    let capture = Wire::parse(&std::fs::read(&pcap).unwrap());
    println!("{} packets, {} streams, {} bytes; ports {ports:?}", capture.packets, capture.streams.len(), capture.bytes());
    assert!(capture.of_port(control_port).any(|stream| contains(stream, CONTROL.as_bytes())), "nothing would be found");
    assert!(ports.len() >= 10, "edge, five roles and four guards: {ports:?}");
    for port in &ports {
        let used = capture.of_port(*port).map(<[u8]>::len).sum::<usize>();
        assert!(used > 1000, "nobody used port {port}: {used} bytes");
    }

    let mut needles: Vec<(&str, Vec<u8>)> = vec![
        ("the canary", CANARY.into()),
        ("the canary in UTF-16, little end first", CANARY.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("the canary in UTF-16, big end first", CANARY.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("a piece of the rendition", rendition[rendition.len() / 2..][..24].to_vec()),
        ("a token", b"eyJhbGciOi".to_vec()),
        ("a token", b"eyJ0eXAiOi".to_vec()),
        ("a token", b"eyJraWQiOi".to_vec()),
        ("plain HTTP", b"HTTP/1.1 ".to_vec()),
        ("plain HTTP/2", b"PRI * HTTP/2.0".to_vec()),
    ];
    needles.extend(["quiet hills", "quiet%20hills", "quiet+hills"].map(|password| ("the password", password.into())));
    needles.extend(cookies.into_iter().map(|cookie| ("a cookie", cookie.into_bytes())));
    let headers = ["palisade-user", "palisade-job", "ce-id", "txn-token", "traceparent"];
    for ((from, to), stream) in capture.streams.iter().filter(|((from, to), _)| *from != control_port && *to != control_port) {
        for (what, needle) in &needles {
            assert!(!contains(stream, needle), "{what} in plain text from port {from} to {to}");
        }
        let lower = stream.to_ascii_lowercase();
        for header in headers {
            assert!(!contains(&lower, header.as_bytes()), "{header} in plain text from port {from} to {to}");
        }
        // RFC 8446, section 5.1: a handshake record, or an alert.
        assert!(matches!(stream.get(..2), Some([0x16 | 0x15, 0x03])), "no TLS from port {from} to {to}: {:02x?}", stream.get(..16));
    }
}

/// The values of all cookies in a jar, in Netscape's form.
fn cookies(jar: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(jar).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("#HttpOnly_") || !line.starts_with('#'));
    let values: Vec<String> =
        lines.filter_map(|line| line.split('\t').nth(6)).filter(|value| value.len() >= 16).map(str::to_owned).collect();
    assert!(!values.is_empty(), "no session cookie in the jar: {text}");
    values
}

/// One exchange over loopback without TLS; gives its port.
fn say_in_plain_text() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut caller = std::net::TcpStream::connect(address).unwrap();
    let (mut called, _) = listener.accept().unwrap();
    // In two segments: it is the stream that is searched.
    for half in [&CONTROL[..7], &CONTROL[7..]] {
        caller.write_all(half.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(caller);
    called.read_to_end(&mut Vec::new()).unwrap();
    address.port()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// A running tcpdump.
struct Capture(Child);

impl Capture {
    fn start(file: &Path) -> Self {
        let mut command = Command::new("tcpdump");
        command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        command.args(["-i", "lo", "-U", "-s", "0", "-B", "65536", "--immediate-mode", "-w"]).arg(file);
        if xtask::tree::output(Command::new("id").arg("-u")).unwrap().trim() == "0" {
            // Keeps the file ours.
            command.args(["-Z", "root"]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..100 {
            // It listens once the file's header is written.
            if std::fs::metadata(file).is_ok_and(|file| file.len() >= 24) {
                return Self(child);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("tcpdump does not capture: {:?}", child.wait_with_output());
    }

    fn stop(self) {
        std::thread::sleep(Duration::from_millis(500));
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        let said = String::from_utf8(self.0.wait_with_output().unwrap().stderr).unwrap();
        assert!(said.contains("\n0 packets dropped by kernel"), "the capture has holes: {said}");
    }
}

/// What was on the wire: the bytes of every direction of every connection, by the ports of sender and receiver.
#[derive(Default)]
struct Wire {
    packets: usize,
    streams: BTreeMap<(u16, u16), Vec<u8>>,
}

/// One direction of a connection: pieces by their sequence number (RFC 9293, section 3.4) from the first one seen, wrapping.
struct Direction<'a> {
    first: u32,
    pieces: Vec<(u32, &'a [u8])>,
}

impl Wire {
    /// Reads a capture file (pcap with microseconds, Ethernet headers; TCP over IPv4 or IPv6).
    fn parse(pcap: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(20) & 0xffff), (0xa1b2_c3d4, 1), "another kind of capture");
        let mut pieces: BTreeMap<(u16, u16), Direction<'_>> = BTreeMap::new();
        let (mut at, mut packets) = (24, 0);
        while at + 16 <= pcap.len() {
            let (kept, whole) = (word(at + 8) as usize, word(at + 12) as usize);
            assert_eq!(kept, whole, "a packet was cut");
            let frame = &pcap[at + 16..at + 16 + kept];
            at += 16 + kept;
            packets += 1;
            let Some(segment) = tcp_segment(frame) else { continue };
            let number = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            let sequence = u32::from_be_bytes(segment[4..8].try_into().unwrap());
            let data = &segment[usize::from(segment[12] >> 4) * 4..];
            let begun = segment[13] & 0x02 != 0;
            let stream = pieces.entry((number(0), number(2))).or_insert(Direction { first: sequence, pieces: Vec::new() });
            assert!(!begun || stream.pieces.is_empty(), "a port was used twice between the same two; the streams would mix");
            if !data.is_empty() {
                stream.pieces.push((sequence.wrapping_sub(stream.first), data));
            }
        }
        let streams = pieces.into_iter().map(|(ports, Direction { mut pieces, .. })| {
            pieces.sort_by_key(|(sequence, _)| *sequence);
            let mut next = 0;
            let mut stream = Vec::new();
            for (sequence, data) in pieces {
                let known = usize::try_from(u32::saturating_sub(next, sequence)).unwrap();
                if let Some(new) = data.get(known..) {
                    stream.extend_from_slice(new);
                    next = sequence.max(next).wrapping_add(u32::try_from(new.len()).unwrap());
                }
            }
            (ports, stream)
        });
        Self { packets, streams: streams.filter(|(_, stream)| !stream.is_empty()).collect() }
    }

    fn of_port(&self, port: u16) -> impl Iterator<Item = &[u8]> {
        self.streams.iter().filter(move |((from, to), _)| *from == port || *to == port).map(|(_, stream)| stream.as_slice())
    }

    fn bytes(&self) -> usize {
        self.streams.values().map(Vec::len).sum()
    }
}

/// The TCP segment in an Ethernet frame; anything else on loopback is looked at as well, and must be of the network's own making.
fn tcp_segment(frame: &[u8]) -> Option<&[u8]> {
    let (kind, packet) = (u16::from_be_bytes([frame[12], frame[13]]), &frame[14..]);
    let (protocol, length) = match kind {
        // RFC 791, section 3.1
        0x0800 => (packet[9], usize::from(packet[0] & 0x0f) * 4),
        // RFC 8200, section 3
        0x86dd => (packet[6], 40),
        _ => panic!("frames of type {kind:04x} on loopback"),
    };
    // Loopback does not pad.
    match protocol {
        6 => Some(&packet[length..]),
        1 | 58 => None,
        other => panic!("protocol {other} on loopback: {packet:02x?}"),
    }
}

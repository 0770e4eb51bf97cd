//! Opens mTLS connections, sends one request on each, and keeps them until its standard input ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Told, hop};

/// `hold to=PORT connections=N ca=… cert=… key=… id=… [token=FILE]`; prints how many were answered with 200.
pub async fn run(told: &Told) {
    let connector = hop::connector(told.text("ca"), told.text("cert"), told.text("key"), told.text("id"));
    let token = told.0.get("token").map(|file| std::fs::read_to_string(file).unwrap());
    let token = token.map(|token| format!("{}: {token}\r\n", contract::txn_token::HEADER)).unwrap_or_default();
    let request = format!("GET / HTTP/1.1\r\nHost: app\r\n{token}\r\n");
    let (mut held, mut good) = (Vec::new(), 0_u32);
    for _ in 0..told.text("connections").parse::<u32>().unwrap() {
        let stream = TcpStream::connect(("127.0.0.1", told.port("to"))).await.unwrap();
        let mut stream = connector.connect(hop::NAME.try_into().unwrap(), stream).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if answer(&mut stream).await.starts_with(b"HTTP/1.1 200") {
            good += 1;
        }
        held.push(stream);
    }
    println!("{good}");
    let mut end = Vec::new();
    tokio::io::stdin().read_to_end(&mut end).await.unwrap();
}

/// One answer, whole: head and as many bytes as it says.
async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |text| text.trim().parse().unwrap());
            if read.len() >= end + 4 + length {
                return read;
            }
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the connection ended before its answer");
    }
}

//! Sockets in and out.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

fn serving(ground: &Ground) -> Profile {
    let mut profile = ground.profile(&["serve"]);
    profile.port = Some(8080);
    profile.environment.insert("PORT".to_owned(), "8080".to_owned());
    profile
}

fn hello(stream: &mut TcpStream, word: &str) -> String {
    stream.write_all(word.as_bytes()).unwrap();
    let mut buffer = vec![0; word.len()];
    stream.read_exact(&mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

#[test]
fn a_flow_leads_to_its_listener() {
    // I3
    let ground = Ground::new();
    let mut profile = ground.profile(&["connect", "127.0.0.1:7002"]);
    profile.flows = vec![Flow { name: "queue".to_owned(), port: 7001 }, Flow { name: "bucket".to_owned(), port: 7002 }];
    let mut running = spawn(profile).unwrap();
    let listeners = running.take_listeners();
    assert_eq!(listeners.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["queue", "bucket"]);
    let (mut stream, _) = listeners[1].1.accept().unwrap();
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"hello from inside\n");
    stream.write_all(b"hello from outside\n").unwrap();
    drop(stream);
    assert_eq!(finish(running).1, ["hello from outside"]);
}

#[test]
fn inbound_connections_come_from_inside() {
    let ground = Ground::new();
    // The first one waits until the service listens.
    let running = spawn(serving(&ground)).unwrap();
    let mut one = running.connect_blocking().unwrap();
    assert_eq!(hello(&mut one, "first"), "first");
    assert_eq!(running.processes().len(), 3, "two inits and the service");
    drop(one);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let running = &running;
            scope.spawn(move || {
                for turn in 0..5 {
                    let word = format!("{number}.{turn}");
                    assert_eq!(hello(&mut running.connect_blocking().unwrap(), &word), word);
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::from_std(running.connect().await.unwrap()).unwrap();
        stream.write_all(b"async").await.unwrap();
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"async");
    });
}

#[test]
fn nobody_listens_is_an_error_and_so_is_the_end() {
    let ground = Ground::new();
    let mut profile = serving(&ground);
    profile.arguments = vec!["attack".to_owned(), "sleep".to_owned()];
    profile.start_patience_ms = 100;
    let running = spawn(profile).unwrap();
    let error = running.connect_blocking().unwrap_err();
    assert!(matches!(&error, SandboxError::NotConnected(why) if why.contains("8080")), "{error}");
    running.kill();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(running.wait()).cause, ExitCause::Killed);
    assert!(matches!(running.connect_blocking().unwrap_err(), SandboxError::Ended));

    let no_port = spawn(ground.profile(&["sleep"])).unwrap();
    assert!(matches!(no_port.connect_blocking().unwrap_err(), SandboxError::NotConnected(_)));
}

#[test]
fn exit_codes_signals_and_lines_are_passed_on() {
    let ground = Ground::new();
    let (exit, _) = finish(spawn(ground.profile(&["exit", "7"])).unwrap());
    assert_eq!((exit.code, exit.signal, exit.cause), (Some(7), None, ExitCause::Service));
    assert_eq!(output(ground.profile(&["echo", "one", "two"])), "one two");
}

#[test]
fn services_in_rust_and_python_answer_and_end_when_asked() {
    for level in [Level::Full, Level::Confined] {
        let ground = Ground::new();
        let port = own_listener().1.port();
        let mut profile = ground.profile(&[]);
        profile.required_level = level;
        profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
        profile.port = Some(port);
        profile.environment.insert("PORT".to_owned(), port.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

        let mut python = profile.clone();
        python.program = Artefact::measure("/usr/bin/python3").unwrap();
        python.arguments = ["-m", "http.server", &port.to_string()].map(str::to_owned).to_vec();
        std::fs::write(ground.state().join("page"), "hello from a page").unwrap();
        std::fs::set_permissions(ground.state().join("page"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let running = spawn(python).unwrap();
        let mut stream = running.connect_blocking().unwrap();
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("hello from a page"), "{text}");
        runtime.block_on(running.terminate(std::time::Duration::from_secs(5)));

        profile.arguments = vec!["as-service".to_owned()];
        profile.tools = vec![Artefact::measure("/usr/bin/true").unwrap()];
        let running = spawn(profile).unwrap();
        let mut stream = running.connect_blocking().unwrap();
        stream.write_all(b"async").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "async exit status: 0");
        assert_eq!(std::fs::read_to_string(ground.state().join("written")).unwrap(), "async");
        let exit = runtime.block_on(running.terminate(std::time::Duration::from_secs(5)));
        assert!(exit.success(), "{exit:?}");
    }
}

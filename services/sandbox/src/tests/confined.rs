//! The level for hosts without user namespaces.

use std::io::{Read, Write};

use super::*;

fn confined(mut profile: Profile) -> Profile {
    profile.required_level = Level::Confined;
    profile.dangerous_simulate.no_user_namespaces = true;
    profile
}

fn free_port() -> u16 {
    own_listener().1.port()
}

#[test]
fn without_namespaces_files_and_destinations_are_still_an_allow_list() {
    // I1, I2, I3, I4, I11
    let ground = Ground::new();
    std::fs::write(ground.path("undeclared"), "no").unwrap();
    let (_other, other) = own_listener();
    let port = free_port();
    let flow = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let own = i32::try_from(std::process::id()).unwrap();
    let plan = Plan {
        read: vec![
            ground.path("undeclared"),
            ground.state(),
            "/etc/shadow".into(),
            format!("/proc/{own}/environ").into(),
            "/proc/self/maps".into(),
            "/root".into(),
        ],
        write: vec![ground.path("undeclared"), ground.state().join("new"), "/tmp/new-by-attacker".into()],
        connect: vec![other, flow, std::net::SocketAddr::from(([127, 0, 0, 2], port)), std::net::SocketAddr::from(([1, 1, 1, 1], port))],
        listen: vec!["127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap()],
        signal: vec![own],
        ..still()
    };
    let mut profile = confined(ground.probing(&plan));
    profile.flows = vec![Flow { name: "queue".to_owned(), port }];
    let running = spawn(profile).unwrap();
    let report = running.applied().clone();
    assert_eq!(report.level, Some(Level::Confined));
    assert!(report.holds(LayerName::SeccompNotify) && !report.holds(LayerName::NetworkNamespace), "{report}");
    let (exit, lines) = finish(running);
    let reached: Reached = serde_json::from_str(&lines.concat()).unwrap_or_else(|cause| panic!("{cause}: {exit:?} {lines:?}"));
    assert_eq!(reached.read, [ground.state()]);
    assert_eq!(reached.written, [ground.state().join("new")]);
    assert_eq!(reached.connected, [flow]);
    assert!(
        reached.listening.is_empty() && reached.signalled.is_empty() && reached.spied.is_empty() && reached.executed.is_empty(),
        "{reached:?}"
    );
    super::unreachable::assert_doors_closed(&reached);
}

#[test]
fn without_namespaces_traffic_flows_both_ways() {
    // I3
    let ground = Ground::new();
    let port = free_port();
    let mut profile = confined(ground.profile(&["connect", &format!("127.0.0.1:{port}")]));
    profile.flows = vec![Flow { name: "queue".to_owned(), port }];
    let mut running = spawn(profile).unwrap();
    let (mut stream, _) = running.take_listeners()[0].1.accept().unwrap();
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"hello from inside\n");
    stream.write_all(b"hello from outside\n").unwrap();
    drop(stream);
    assert_eq!(finish(running).1, ["hello from outside"]);

    let port = free_port();
    let mut profile = confined(ground.profile(&["serve"]));
    profile.port = Some(port);
    profile.environment.insert("PORT".to_owned(), port.to_string());
    let running = spawn(profile).unwrap();
    let mut stream = running.connect_blocking().unwrap();
    stream.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
}

#[test]
fn without_namespaces_orphans_end_with_their_service() {
    // I8
    let ground = Ground::new();
    let count = ground.state().join("count");
    assert_eq!(output(confined(ground.profile(&["orphan", count.to_str().unwrap()]))), "left");
    assert!(super::contained::await_counting(&count, false));
}

#[test]
fn without_namespaces_a_swapped_program_is_refused() {
    // C6
    let ground = Ground::new();
    let mut profile = confined(ground.profile(&["echo"]));
    profile.program.sha256 = "0".repeat(64);
    assert!(matches!(spawn(profile), Err(SandboxError::ArtefactMismatch(_))));
}

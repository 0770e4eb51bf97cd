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
    super::unreachable::assert_doors_closed(&reached, Level::Confined);
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
fn without_namespaces_nothing_outlives_the_handle_or_the_guard() {
    // I8
    let ground = Ground::new();
    let (count, tmp) = (ground.state().join("count"), ground.state().join("tmp"));
    let mut profile = confined(ground.profile(&[]));
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    profile.environment.insert("TMPDIR".to_owned(), "/tmp".to_owned());
    let code = format!(
        "import os, time, tempfile\nopen({tmp:?}, 'w').write(tempfile.gettempdir())\nif os.fork(): time.sleep(60)\nos.setsid()\n\
         for i in range(3000):\n open({count:?}, 'w').write(str(i))\n time.sleep(0.01)"
    );
    profile.arguments = vec!["-c".to_owned(), code];
    let tmp_is_gone = || {
        let folder = PathBuf::from(std::fs::read_to_string(&tmp).unwrap());
        assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("sandbox-"), "{folder:?}");
        (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !folder.exists()
        })
    };
    let running = spawn(profile.clone()).unwrap();
    assert!(super::contained::await_counting(&count, true));
    drop(running);
    assert!(super::contained::await_counting(&count, false));
    assert!(tmp_is_gone());

    let mut guard = super::contained::guard_of(&profile);
    assert!(super::contained::await_counting(&count, true));
    guard.kill().unwrap();
    guard.wait().unwrap();
    assert!(super::contained::await_counting(&count, false));
    assert!(tmp_is_gone());
}

#[test]
fn without_namespaces_a_swapped_program_is_refused() {
    // C6
    let ground = Ground::new();
    let mut profile = confined(ground.profile(&["echo"]));
    profile.program.sha256 = "0".repeat(64);
    assert!(matches!(spawn(profile), Err(SandboxError::ArtefactMismatch(_))));
}

#[test]
fn the_best_level_is_taken_and_not_the_required_one() {
    let ground = Ground::new();
    let mut profile = ground.profile(&["sleep"]);
    profile.required_level = Level::Confined;
    assert_eq!(spawn(profile).unwrap().applied().level, Some(Level::Full));
}

#[test]
fn without_namespaces_each_service_has_ports_of_its_own() {
    // I1, I3
    let ground = Ground::new();
    let serving = || {
        let mut profile = confined(ground.profile(&["serve"]));
        profile.port = Some(0);
        profile.environment.insert("PORT".to_owned(), "{port}".to_owned());
        spawn(profile).unwrap()
    };
    // Each would have 8080 in a network of its own.
    for running in [serving(), serving(), serving()] {
        let mut stream = running.connect_blocking().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
    }

    for level in [Level::Full, Level::Confined] {
        let mut profile = ground.profile(&[]);
        profile.required_level = level;
        profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
        profile.program = Artefact::measure("/usr/bin/python3").unwrap();
        profile.flows = ["queue", "store"].map(|name| Flow { name: name.to_owned(), port: 0 }).to_vec();
        for name in ["queue", "store"] {
            profile.environment.insert(name.to_uppercase(), format!("http://127.0.0.1:{{flow:{name}}}/"));
        }
        let code = "import os, urllib.parse as u, socket\nfor n in ('STORE', 'QUEUE'):\n p = u.urlparse(os.environ[n])\n \
                    socket.create_connection((p.hostname, p.port)).sendall(n.encode())";
        profile.arguments = vec!["-c".to_owned(), code.to_owned()];
        let mut running = spawn(profile).unwrap();
        for (name, listener) in running.take_listeners().into_iter().rev() {
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text.to_lowercase(), name, "{level:?}");
        }
        assert!(finish(running).0.success());
    }
}

//! No unconfined start, no other program.

use super::*;

fn refusal(profile: Profile) -> SandboxError {
    match spawn(profile) {
        Ok(running) => panic!("it started: {}", running.applied()),
        Err(error) => error,
    }
}

#[test]
fn a_missing_layer_is_a_refusal_that_names_it() {
    // I5
    let ground = Ground::new();
    let marked = |simulate: Simulate, level: Level| {
        let mut profile = ground.profile(&["file-bomb", ground.state().join("ran").to_str().unwrap()]);
        profile.required_level = level;
        profile.dangerous_simulate = simulate;
        profile
    };
    let no_landlock = Simulate { landlock_abi: Some(0), ..Simulate::default() };
    let no_seccomp = Simulate { no_seccomp: true, ..Simulate::default() };
    let no_userns = Simulate { no_user_namespaces: true, ..Simulate::default() };
    let old = Simulate { no_user_namespaces: true, landlock_abi: Some(5), ..Simulate::default() };
    let table = [
        (no_landlock.clone(), Level::Full, LayerName::LandlockFiles),
        (no_landlock, Level::Confined, LayerName::LandlockFiles),
        (no_seccomp.clone(), Level::Full, LayerName::Seccomp),
        (no_seccomp, Level::Confined, LayerName::Seccomp),
        (no_userns, Level::Full, LayerName::UserNamespace),
        (old, Level::Confined, LayerName::LandlockScopes),
    ];
    for (simulate, level, expected) in table {
        let error = refusal(marked(simulate, level));
        let SandboxError::MissingLayer { layer, .. } = &error else { panic!("{error}") };
        assert_eq!(*layer, expected, "{error}");
        assert!(!ground.state().join("ran").exists(), "it ran: {error}");
    }
}

#[test]
fn a_wall_is_left_out_nowhere_but_in_a_throw_away_copy() {
    // I5, L13: neither here, where there is more of a network than loopback (or root asks), nor below `full`, nor for another backend.
    let ground = Ground::new();
    let ran = ground.state().join("ran");
    let tmp = DangerousWithout::MountNamespace(ground.state());
    let walls = [DangerousWithout::Seccomp, DangerousWithout::Landlock, DangerousWithout::NetworkNamespace, DangerousWithout::Limits, tmp];
    for wall in walls {
        for (level, backend) in [(Level::Full, Backend::Own), (Level::Confined, Backend::Own), (Level::Full, Backend::Bwrap)] {
            let mut profile = ground.profile(&["file-bomb", ran.to_str().unwrap()]);
            (profile.required_level, profile.backend) = (level, backend);
            profile.dangerous_without = Some(wall.clone());
            let error = refusal(profile);
            assert!(matches!(&error, SandboxError::Profile(why) if why.starts_with(wall.word())), "{error}");
            assert!(!ran.exists(), "it ran: {error}");
        }
    }
}

/// What a kernel must come to: a level, or the layer that is missed.
fn expected(simulate: &Simulate, required: Level) -> Result<Level, LayerName> {
    match (simulate.landlock_abi, simulate.no_seccomp, simulate.no_user_namespaces, required) {
        (Some(0), ..) => Err(LayerName::LandlockFiles),
        (_, true, ..) => Err(LayerName::Seccomp),
        (_, _, false, _) => Ok(Level::Full),
        (_, _, true, Level::Full) => Err(LayerName::UserNamespace),
        (Some(..6), _, true, Level::Confined) => Err(LayerName::LandlockScopes),
        (_, _, true, Level::Confined) if simulate.seccomp_listener_taken => Err(LayerName::SeccompNotify),
        (_, _, true, Level::Confined) => Ok(Level::Confined),
    }
}

#[test]
fn each_simulated_kernel_is_enough_or_is_refused() {
    // I4, I5: Landlock ABI 0 to 7, with and without user namespaces, seccomp, and the right to ask.
    let ground = Ground::new();
    let (mut started, mut refused) = (0, 0);
    let kernels = (0..=7).flat_map(|abi| (0..8).map(move |bits| (abi, bits)));
    for (abi, bits) in kernels {
        let simulate = Simulate {
            landlock_abi: Some(abi),
            no_user_namespaces: bits & 1 != 0,
            no_seccomp: bits & 2 != 0,
            seccomp_listener_taken: bits & 4 != 0,
        };
        for required in [Level::Full, Level::Confined] {
            let mut profile = ground.profile(&["echo", "it ran"]);
            (profile.required_level, profile.dangerous_simulate) = (required, simulate.clone());
            match (spawn(profile), expected(&simulate, required)) {
                (Ok(running), Ok(level)) => {
                    let report = running.applied().clone();
                    assert_eq!(report.level, Some(level), "{simulate:?}");
                    assert!(level >= required && report.holds(LayerName::Seccomp) && report.holds(LayerName::LandlockFiles), "{report}");
                    // What one layer cannot do there, another does.
                    let ports = report.holds(LayerName::LandlockTcp) || report.holds(LayerName::NetworkNamespace);
                    let signals = report.holds(LayerName::LandlockScopes) || report.holds(LayerName::PidNamespace);
                    let destinations = report.holds(LayerName::SeccompNotify) || report.holds(LayerName::NetworkNamespace);
                    assert!(ports && signals && destinations, "{simulate:?}: {report}");
                    started += 1;
                }
                (Err(SandboxError::MissingLayer { layer, .. }), Err(expected)) => {
                    assert_eq!(layer, expected, "{simulate:?} {required:?}");
                    refused += 1;
                }
                (got, expected) => panic!("{simulate:?} {required:?}: {:?}, expected {expected:?}", got.map(|it| it.applied().clone())),
            }
        }
    }
    println!("{started} simulated kernels start a service, {refused} are refused");
    assert_eq!(started + refused, 128);
}

#[test]
fn a_swapped_program_is_refused() {
    // C6, I15
    let ground = Ground::new();
    let program = ground.path("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut profile = ground.profile(&["echo", "hello"]);
    profile.program = Artefact::measure(&program).unwrap();
    assert_eq!(output(profile.clone()), "hello");

    let mut bytes = std::fs::read(&program).unwrap();
    bytes.push(0);
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, bytes).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = refusal(profile.clone());
    let SandboxError::ArtefactMismatch(mismatch) = error else { panic!("{error}") };
    assert_eq!(mismatch.path, program);
    assert_eq!(mismatch.expected, profile.program.sha256);
    assert_eq!(mismatch.found, Artefact::measure(&program).unwrap().sha256);
}

#[test]
fn a_changed_script_or_tool_is_refused() {
    // C6, I15
    let ground = Ground::new();
    std::fs::write(ground.path("script.py"), "print('hello')").unwrap();
    let script = Artefact::measure(ground.path("script.py")).unwrap();
    std::fs::write(ground.path("script.py"), "print('hallo')").unwrap();
    for as_tool in [true, false] {
        let mut profile = ground.profile(&["echo"]);
        if as_tool {
            profile.tools.push(script.clone())
        } else {
            profile.scripts.push(script.clone())
        }
        assert!(matches!(refusal(profile), SandboxError::ArtefactMismatch(mismatch) if mismatch.path == script.path));
    }
}

#[test]
fn a_profile_that_contradicts_itself_is_refused() {
    let ground = Ground::new();
    let good = ground.profile(&["echo"]);
    let bad: Vec<fn(&mut Profile)> = vec![
        |it| it.read.push("relative".into()),
        |it| it.read.push("/usr/../etc".into()),
        |it| it.read.push("/".into()),
        |it| it.read.push("/proc/1".into()),
        |it| it.read.push(it.state.clone().unwrap().join("inside")),
        |it| it.run_as_id = 0,
        |it| it.flows = vec![Flow { name: "a".into(), port: 1 }, Flow { name: "b".into(), port: 1 }],
        |it| it.port = Some(1).inspect(|port| it.flows = vec![Flow { name: "a".into(), port: *port }]),
        |it| it.arguments.push("nul\0".into()),
        |it| drop(it.environment.insert("a=b".into(), String::new())),
    ];
    for (index, spoil) in bad.iter().enumerate() {
        let mut profile = good.clone();
        spoil(&mut profile);
        assert!(matches!(refusal(profile), SandboxError::Profile(_)), "{index}");
    }
    let mut gone = good;
    gone.read.push("/nowhere/at/all".into());
    assert!(refusal(gone).to_string().contains("/nowhere/at/all"));
}

#[test]
fn the_probe_says_what_a_start_then_gets() {
    // I5
    let can = probe();
    assert_eq!(can.level, Some(Level::Full), "{can}");
    let ground = Ground::new();
    let running = spawn(ground.profile(&["sleep"])).unwrap();
    assert_eq!(running.applied().level, can.level);
    for layer in &running.applied().layers {
        if layer.applied {
            assert!(can.holds(layer.name), "{}: {}", layer.name, layer.detail);
        }
    }
    assert!(can.to_string().contains("user namespace"));
    println!("{}", running.applied());
}

//! What runs is looked at as long as it runs.

use std::time::Duration;

use super::*;

/// A service that sleeps, with a script that can be changed under it.
fn sleeping(ground: &Ground, level: Level) -> (Running, PathBuf) {
    let script = ground.path("script.py");
    std::fs::write(&script, "print('as it was locked')").unwrap();
    let mut profile = ground.profile(&["sleep"]);
    profile.required_level = level;
    profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
    profile.scripts = vec![Artefact::measure(&script).unwrap()];
    (spawn(profile).unwrap(), script)
}

fn ended(running: &Running, within: Duration) -> Option<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(within, running.wait()).await.ok() })
}

#[test]
fn a_file_that_is_changed_under_a_running_service_ends_it() {
    // I15
    for level in [Level::Full, Level::Confined] {
        let ground = Ground::new();
        let (running, script) = sleeping(&ground, level);
        // In place, of the same length, with the old times: what is left to see is what nobody can set.
        let before = std::fs::metadata(&script).unwrap().modified().unwrap();
        std::fs::write(&script, "print('as it was l0cked')").unwrap();
        std::fs::File::options().write(true).open(&script).unwrap().set_modified(before).unwrap();
        let exit = ended(&running, Duration::from_secs(20)).unwrap();
        let ExitCause::Drifted(mismatch) = &exit.cause else { panic!("{level:?}: {exit:?}") };
        assert_eq!((&mismatch.path, &mismatch.found), (&script, &Artefact::measure(&script).unwrap().sha256));
        assert!(running.connect_blocking().is_err());
    }
}

#[test]
fn a_file_that_is_replaced_by_another_ends_a_service_that_could_open_it_by_its_path() {
    // I15: with a root of its own, a service has the file that was measured, whatever becomes of the path.
    for (level, ends) in [(Level::Confined, true), (Level::Full, false)] {
        let ground = Ground::new();
        let (running, script) = sleeping(&ground, level);
        std::fs::write(ground.path("other"), "print('another')").unwrap();
        std::fs::rename(ground.path("other"), &script).unwrap();
        let within = if ends { Duration::from_secs(20) } else { Duration::from_secs(3) };
        let exit = ended(&running, within);
        assert_eq!(matches!(exit, Some(Exit { cause: ExitCause::Drifted(_), .. })), ends, "{level:?}: {exit:?}");
    }
}

#[test]
fn a_file_whose_content_is_the_same_ends_nothing() {
    // I15
    let ground = Ground::new();
    let (running, script) = sleeping(&ground, Level::Full);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::hard_link(&script, ground.path("another-name")).unwrap();
    std::fs::write(&script, "print('as it was locked')").unwrap();
    assert_eq!(ended(&running, Duration::from_secs(3)), None);
}

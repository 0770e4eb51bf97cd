//! N8, L14: the reference system and its twin, the same application as one process.

use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;
use xtask::functional::{self, Site};
use xtask::running::Setting;
use xtask::twin::side::Which;
use xtask::twin::{broken_into, monolith};

fn assert_all_hold(whose: &str, site: &dyn Site, scratch: &Scratch) {
    let checked = functional::run(site, &scratch.0).unwrap();
    let broken: Vec<_> = checked.iter().filter(|check| check.problem.is_some()).collect();
    assert!(broken.is_empty(), "{whose}: {broken:#?}");
    assert!(checked.len() >= 13, "only {} checks ran", checked.len());
}

// N8
#[test]
fn the_reference_system_passes_the_functional_suite() {
    let scratch = Scratch::new().unwrap();
    let running = Setting::reference(&scratch.0.join("system")).unwrap().start().unwrap();
    assert_all_hold("the reference system", &running, &scratch);
}

// N8
#[test]
fn the_twin_passes_the_same_functional_suite() {
    let scratch = Scratch::new().unwrap();
    let twin = monolith::Setting::reference(&scratch.0.join("twin")).unwrap().start().unwrap();
    assert_all_hold("the twin", &twin, &scratch);
    // A suite that nothing can fail would prove nothing.
    assert_eq!(twin.log(), "", "it complained");
}

// L14: one program in FFmpeg's place, on both sides; what it does not reach was there, and on the other side it was reached.
#[test]
fn the_same_break_in_reaches_everything_in_the_twin_and_one_job_in_the_reference_system() {
    let (scratch, built) = (Scratch::new().unwrap(), Artefacts::beside_us().unwrap());
    let palisade = broken_into::measure(Which::Palisade, &built, &scratch.0).unwrap();
    let twin = broken_into::measure(Which::Twin, &built, &scratch.0).unwrap();
    println!("{palisade:#?}\n{twin:#?}");
    assert!(palisade.own_input && twin.own_input, "it did not even see its own input");
    assert_eq!((palisade.read.as_slice(), palisade.changed.as_slice(), palisade.doors.as_slice()), (&[][..], &[][..], &[][..]));
    let read: Vec<&str> = twin.read.iter().map(|(name, _)| name.as_str()).collect();
    let all: Vec<&str> = twin.assets.iter().map(String::as_str).collect();
    assert!(all.len() == 6 && all.iter().all(|asset| read.contains(asset)), "the twin kept something from it: {read:?} of {all:?}");
    assert!(twin.changed.contains(&"everybody's videos".to_owned()) && twin.doors.len() == 2, "{twin:?}");
}

//! N5, N6: an api that does whatever it is asked.

use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;
use xtask::deputy;

// N5, N6, G9: the same story as `cargo xtask deputy` tells.
#[test]
fn a_confused_deputy_fails_closed_and_a_taken_over_api_reads_nobodys_videos() {
    let scratch = Scratch::new().unwrap();
    let steps = deputy::play(&Artefacts::beside_us().unwrap(), &scratch.0).unwrap();
    for step in &steps {
        println!("{step:?}");
        assert!(step.holds(), "{step:?}");
        assert!(step.allowed || step.status == 403, "refused, and not merely broken: {step:?}");
    }
    assert_eq!(steps.iter().filter(|step| step.allowed).count(), 3);
    assert!(steps.len() >= 12);
}

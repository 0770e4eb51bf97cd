//! Secrets in the environment, the arguments, and files that can be read.

use manifest::Fresh;

use super::{Alone, Notes, Row, Run};
use crate::attacker::play::{PERSONS, canary_backwards};
use crate::attacker::script::Script;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "environment",
    title: "Looks for keys, tokens and canaries in its environment, its arguments and what it may read.",
    attack: "T1552.001",
    stride: Stride::I,
    controls: &[Control::GuardOut, Control::MountNamespace],
    run: Run::Alone(run, &[]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let variables = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n");
    let arguments = std::env::args().collect::<Vec<_>>().join("\n");
    let mut places = vec![("its environment", variables.into_bytes()), ("its arguments", arguments.into_bytes())];
    for (place, path) in [("/proc/self/mountinfo", "/proc/self/mountinfo"), ("/etc/passwd", "/etc/passwd"), ("/tmp", "/tmp/core")] {
        places.push((place, std::fs::read(path).unwrap_or_default()));
    }
    for (place, text) in places {
        match found(alone.script, &text) {
            Some(what) => notes.reached(Cell::secret(format!("secret.{what}")), format!("{what} in {place}")),
            None => notes.stopped(Some(Control::GuardOut), format!("nothing in {place}")),
        }
        of_others(alone.script, alone.service, alone.person, &text, place, notes);
    }
}

/// Whether bytes of a sandbox that is new for each job have the content of another person's objects: then it was not new. Elsewhere
/// everybody's work comes by, and may have left something.
pub(super) fn of_others(script: &Script, service: &str, person: &str, bytes: &[u8], place: &str, notes: &mut Notes) {
    let fresh = script.services.get(service).is_some_and(|part| part.fresh == Fresh::Job);
    if !fresh {
        return;
    }
    let cell = || Cell::read(format!("files.{service} of earlier jobs"), Extent::Everybody);
    for other in PERSONS.iter().filter(|other| **other != person) {
        if holds(bytes, canary_backwards(other).as_bytes()) {
            notes.reached(cell(), format!("what is {other}'s is in {place}"));
        }
    }
}

/// What keys and sessions look like, backwards, so that the program does not find its own text.
const SHAPES: &[(&str, &[u8])] = &[
    ("private-key", b"-----YEK ETAVIRP"),
    ("session", b"=edasilap-tsoH__"),
    ("private-key", b"\x01\x02\x3d\xce\x48\x86\x2a\x07\x06\x13\x30\x00\x01\x02"),
];

/// Letters of an opaque credential, at least, whatever its kind.
const OPAQUE_CHARS: usize = 77;

/// Whether there is an API key or a reference token, with its checksum: nothing else has that form.
fn opaque(bytes: &[u8]) -> bool {
    bytes
        .windows(OPAQUE_CHARS)
        .any(|window| window.starts_with(b"pal") && std::str::from_utf8(window).is_ok_and(|text| contract::opaque::kind_of(text).is_some()))
}

/// The kind of secret that is in these bytes.
pub(super) fn found(script: &Script, bytes: &[u8]) -> Option<&'static str> {
    let canaries = script.targets.canaries_backwards.iter().map(|text| ("canary", text.as_bytes()));
    let shapes = SHAPES.iter().copied().chain(canaries).find(|(_, backwards)| holds(bytes, backwards));
    shapes.map(|(what, _)| what).or_else(|| opaque(bytes).then_some("api-key"))
}

/// Whether `bytes` have the text that is `backwards`; that text itself is never made.
fn holds(bytes: &[u8], backwards: &[u8]) -> bool {
    let Some(first) = backwards.last() else { return false };
    let fits = |at: usize| bytes.get(at..at.saturating_add(backwards.len())).is_some_and(|window| window.iter().eq(backwards.iter().rev()));
    bytes.iter().enumerate().any(|(at, byte)| byte == first && fits(at))
}

#[cfg(test)]
mod tests {
    use contract::opaque::{Kind, random};

    use super::*;

    #[test]
    fn a_text_is_found_by_what_it_is_backwards() {
        assert!(holds(b"--BEGIN EC PRIVATE KEY-----\n", b"-----YEK ETAVIRP"));
        assert!(!holds(b"-----YEK ETAVIRP", b"-----YEK ETAVIRP"));
        assert!(!holds(b"PRIVATE KEY----", b"-----YEK ETAVIRP") && !holds(b"", b"x") && !holds(b"x", b""));
    }

    // A8, L7: what `login` makes is what is looked for, in whatever it stands.
    #[test]
    fn a_key_that_login_makes_is_found_and_an_example_is_not() {
        for kind in [Kind::Key, Kind::Token] {
            let made = random(kind, &trust::SystemEntropy);
            let text = format!("X-API-Key: {}\n", made.expose());
            assert!(opaque(text.as_bytes()), "{kind:?}");
            let mistyped = text.replace("\n", "").split_at(text.len() - 4).0.to_owned() + "zzz";
            assert!(!opaque(mistyped.as_bytes()), "{kind:?}");
        }
        assert!(!opaque(b"palk_0123") && !opaque(b""));
    }
}

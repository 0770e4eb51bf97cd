//! Handshakes: somebody in the network of the system, without an SVID, at every listener that asks for one.
//!
//! What a listener says beyond a TLS alert was said to somebody who is nobody: that counts, whatever it is. From within a sandbox there is
//! no such listener; `loopback` looks for them there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::nearby::{End, Knocked, Nearby, Shown, Speaks};
use crate::names;
use crate::report::LISTENERS;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "handshakes",
    title: "Knocks at every inner listener without a certificate, with forged ones in others' names, with a genuine one whose key it has \
            not, and without TLS.",
    attack: "T1036",
    stride: Stride::S,
    controls: &[Control::Mtls],
    run: Run::Outside(run, &[Who::Stranger]),
};

/// A domain that is nobody's.
const ELSEWHERE: &str = "spiffe://elsewhere.example/service/stranger";
/// Listeners whose names are borrowed, at most: a system of a hundred services is not asked ten thousand times.
const NAMES_MAX: usize = 24;

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    at_each(visitor.nearby, notes);
}

fn at_each(nearby: &dyn Nearby, notes: &mut Notes) {
    let listeners = nearby.listeners();
    if listeners.is_empty() {
        return notes.untried("no inner listener was found in this network");
    }
    let mut known: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for at in &listeners {
        for speaks in [Speaks::PlainHttp1, Speaks::PlainHttp2, Speaks::Http2, Speaks::Http1, Speaks::Tcp, Speaks::OldTls] {
            let knocked = nearby.knock(*at, &Shown::Nothing, speaks);
            if let Some(who) = &knocked.who {
                known.insert(*at, who.clone());
            }
            // Whoever answers without TLS asks nobody for anything.
            let asks_nobody = knocked.end == End::Answered && matches!(speaks, Speaks::PlainHttp1 | Speaks::PlainHttp2);
            note(notes, known.get(at), &Shown::Nothing, speaks, knocked);
            if asks_nobody {
                break;
            }
        }
    }
    // Who is who, it was told by the listeners themselves.
    let names: Vec<(SocketAddr, String)> = known.iter().take(NAMES_MAX).map(|(at, who)| (*at, who.clone())).collect();
    for (at, who) in &known {
        let own = names.iter().map(|(of, name)| (*of, name.clone())).filter(|(of, _)| of != at);
        let others: Vec<(SocketAddr, String)> = own.collect();
        let mut shown = vec![Shown::SelfSigned(ELSEWHERE.to_owned()), Shown::OwnAuthority(ELSEWHERE.to_owned())];
        shown.extend(others.first().map(|(_, name)| Shown::SelfSigned(name.clone())));
        for (of, name) in others {
            shown.extend([Shown::OwnAuthority(name.clone()), Shown::InAuthoritysName(name), Shown::Genuine(of)]);
        }
        for shown in shown {
            let is_genuine = matches!(shown, Shown::Genuine(_));
            notes.shows(is_genuine.then_some(("a member's certificate", "without its key, at every inner listener")));
            let knocked = nearby.knock(*at, &shown, Speaks::Http2);
            note(notes, Some(who), &shown, Speaks::Http2, knocked);
        }
    }
}

fn note(notes: &mut Notes, who: Option<&String>, shown: &Shown, speaks: Speaks, knocked: Knocked) {
    let tried = format!("{}, {}", shown.words(), speaks.words());
    match knocked.end {
        End::Answered => {
            let who = who.and_then(|id| id.strip_prefix("spiffe://")?.split_once('/'));
            let answer = who.map_or(names::PLAIN_ANSWER.to_owned(), |(_, who)| format!("answer of {who}"));
            notes.reached(Cell::done(LISTENERS, answer, Extent::Public), format!("{tried}: an answer"));
        }
        End::Refused(how) => notes.stopped(Some(Control::Mtls), format!("{tried}: {how}")),
        End::Untried(why) => notes.untried(why),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::RefCell;

    use super::*;
    use crate::{Act, Mark, Outcome};

    /// Two listeners, the second of which takes whoever says that it is `a`.
    #[derive(Default)]
    struct Careless(RefCell<Vec<(SocketAddr, Shown, Speaks)>>);

    fn places() -> [SocketAddr; 2] {
        ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]
    }

    impl Nearby for Careless {
        fn listeners(&self) -> Vec<SocketAddr> {
            places().to_vec()
        }
        fn knock(&self, at: SocketAddr, shown: &Shown, speaks: Speaks) -> Knocked {
            self.0.borrow_mut().push((at, shown.clone(), speaks));
            let [first, second] = places();
            let name = if at == first { "spiffe://x.example/service/a" } else { "spiffe://x.example/role/b" };
            let fooled = at == second && *shown == Shown::OwnAuthority("spiffe://x.example/service/a".to_owned());
            let in_tls = !matches!(speaks, Speaks::OldTls | Speaks::PlainHttp1 | Speaks::PlainHttp2);
            let end = if fooled { End::Answered } else { End::Refused("an alert") };
            Knocked { who: in_tls.then(|| name.to_owned()), end }
        }
    }

    // D1, L10: each listener is tried with everything, in the names that the others have; what answers is reached, and by whom.
    #[test]
    fn a_listener_that_believes_a_forged_name_is_found() {
        let (nearby, mut notes) = (Careless::default(), Notes::new(ROW.id, &Mark::new(Act::Calm, "none", "ada", 0)));
        at_each(&nearby, &mut notes);
        let tried = notes.gathered();
        let reached: Vec<_> = tried.iter().filter(|one| one.outcome == Outcome::Reached).flat_map(|one| &one.cells).collect();
        assert_eq!(reached, [&Cell::done(LISTENERS, "answer of role/b", Extent::Public)]);
        assert!(tried.iter().any(|one| one.outcome == Outcome::Stopped { by: Some(Control::Mtls) }));
        let [first, second] = places();
        let asked = nearby.0.into_inner();
        let of = |at: SocketAddr| asked.iter().filter(|(to, ..)| *to == at).count();
        assert_eq!((of(first), of(second)), (12, 12), "six without a certificate, six with one");
        assert!(asked.contains(&(first, Shown::Genuine(second), Speaks::Http2)));
    }
}

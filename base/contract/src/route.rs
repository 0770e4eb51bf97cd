//! Routes: method, path template, action, and who may.
//!
//! A template's segment is literal, `{name}` (one segment), or, last, `{*name}` (one or more). Literals win over names, names over
//! rests, so the order of a table does not matter (A3).

use std::borrow::Cow;

/// One row of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Upper-case method.
    pub method: &'static str,
    /// Path template.
    pub path: &'static str,
    /// What it does, as audit records name it: `lease.extend`.
    pub action: &'static str,
    /// Who may call it at all; finer questions are the policy's.
    pub who: Who,
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Only these roles, by SVID.
    Roles(&'static [&'static str]),
    /// Any workload of the trust domain whose call the room then asks the policy about.
    Policy,
    /// Where people come in: the edge, and the decision point of somebody else's door, by SVID.
    Doors,
    /// The edge on behalf of a signed-in person with this role.
    Person(&'static str),
    /// A local process without an identity yet (UNIX socket).
    Joining,
    /// The operator: the user that runs Palisade, over its UNIX socket.
    Operator,
    /// The supervisor alone.
    Supervisor,
}

/// The values of a template's names, decoded from percent-encoding.
pub type Values<'t, 'p> = Vec<(&'t str, Cow<'p, str>)>;

/// What a path and method lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'r, 'p> {
    /// This route, with the values of its names, decoded from percent-encoding.
    Route(&'r Route, Values<'static, 'p>),
    /// The path is known with other methods.
    MethodUnlisted,
    /// Nothing has this path.
    Unknown,
}

/// Looks `method` and `path` (no query) up in a table.
#[must_use]
pub fn find<'r, 'p>(routes: &'r [Route], method: &str, path: &'p str) -> Found<'r, 'p> {
    let mut best: Option<(Rank, &Route, Values<'static, 'p>)> = None;
    let mut path_known = false;
    for route in routes {
        let Some((rank, values)) = matches(route.path, path) else { continue };
        path_known = true;
        if route.method == method && best.as_ref().is_none_or(|(other, ..)| rank < *other) {
            best = Some((rank, route, values));
        }
    }
    match best {
        Some((_, route, values)) => Found::Route(route, values),
        None if path_known => Found::MethodUnlisted,
        None => Found::Unknown,
    }
}

/// How literally a template fits a path: segment by segment 0 for a literal one, 1 for a name, 2 for a rest. Less is more literal.
///
/// The first 64 stand in one number, so that most templates' ranks cost no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    first: u128,
    /// Of those behind them.
    rest: Vec<u8>,
    count: u32,
}

impl Rank {
    /// The next segment's.
    pub fn push(&mut self, segment: u8) {
        match 126_u32.checked_sub(self.count.saturating_mul(2)) {
            Some(left) => self.first |= u128::from(segment & 3) << left,
            None => self.rest.push(segment),
        }
        self.count = self.count.saturating_add(1);
    }
}

/// Whether `path` fits `template`; its rank orders templates from the most literal to the least.
#[must_use]
pub fn matches<'t, 'p>(template: &'t str, path: &'p str) -> Option<(Rank, Values<'t, 'p>)> {
    let (mut rank, mut values) = (Rank::default(), Vec::new());
    let mut rest = path.strip_prefix('/')?;
    let mut segments = template.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        if let Some(name) = segment.strip_prefix("{*").and_then(|s| s.strip_suffix('}')) {
            if rest.is_empty() {
                return None;
            }
            rank.push(2);
            values.push((name, decoded(rest)?));
            return Some((rank, values));
        }
        let (head, tail) = match rest.split_once('/') {
            Some((head, tail)) => (head, Some(tail)),
            None => (rest, None),
        };
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(_) if head.is_empty() => return None,
            Some(name) => {
                rank.push(1);
                values.push((name, decoded(head)?));
            }
            None if segment == head => rank.push(0),
            None => return None,
        }
        match (tail, segments.peek()) {
            (Some(tail), Some(_)) => rest = tail,
            (None, None) => return Some((rank, values)),
            _ => return None,
        }
    }
    None
}

fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use super::*;

    const fn get(path: &'static str) -> Route {
        Route { method: "GET", path, action: path, who: Who::Policy }
    }

    // A3: overlapping templates, in any order.
    #[test]
    fn literals_win_over_names_and_names_over_rests() {
        let mut table = [get("/a/{*rest}"), get("/a/{x}"), get("/a/b"), get("/a/{x}/c"), get("/")];
        for _ in 0..table.len() {
            table.rotate_left(1);
            for (path, expect) in [("/a/b", "/a/b"), ("/a/z", "/a/{x}"), ("/a/z/c", "/a/{x}/c"), ("/a/z/d", "/a/{*rest}"), ("/", "/")] {
                let Found::Route(route, _) = find(&table, "GET", path) else { panic!("{path} not found") };
                assert_eq!(route.path, expect, "{path}");
            }
            assert_eq!(find(&table, "GET", "/a"), Found::Unknown);
            assert_eq!(find(&table, "GET", "/a/"), Found::Unknown);
            assert_eq!(find(&table, "PUT", "/a/b"), Found::MethodUnlisted);
        }
    }

    #[test]
    fn values_are_decoded_once() {
        let table = [get("/o/{bucket}/{*key}")];
        let Found::Route(_, values) = find(&table, "GET", "/o/b/x%2520y/z") else { panic!("not found") };
        assert_eq!(values, vec![("bucket", Cow::from("b")), ("key", Cow::from("x%20y/z"))]);
    }
}

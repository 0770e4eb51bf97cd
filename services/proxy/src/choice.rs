//! Choosing a route: once by the path as it stands, once as a server would that decodes it first. Both must lead to the same row.
//!
//! A server may decode a path before it looks for a route (most do) or after. Where a literal segment or an encoded slash makes these
//! two differ, the policy would be asked about one route and the service would answer as another: such a path is refused.
//!
//! Guarantees: A3 the most literal route wins, whatever the order; A4 the route that was decided on is the route that is served.
//! Not here:   which characters a path may have (`canonical::path`).

use contract::route::{self, Rank, Values};

use crate::canonical::{Ambiguous, values};

/// What a method and a path lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'t, 'p, R> {
    /// This row, with the values of its template's names, decoded.
    Row(R, Values<'t, 'p>),
    /// Rows have the path, with these methods.
    MethodUnlisted(Vec<&'t str>),
    /// No row has the path.
    Unknown,
}

/// Finds the row for `method` and `path` (canonical, no query) among `rows` of method, path template and whatever stands for the row.
///
/// # Errors
/// `Ambiguous` when the path leads elsewhere once it is decoded, or a value has a slash or semicolon that only a rest may have.
pub fn choose<'t, 'p, R, I>(rows: I, method: &str, path: &'p str) -> Result<Choice<'t, 'p, R>, Ambiguous>
where
    I: Iterator<Item = (&'t str, &'t str, R)> + Clone,
{
    let mut best: Option<(Rank, &'t str, R, Values<'t, 'p>)> = None;
    let mut others = Vec::new();
    for (its_method, template, row) in rows.clone() {
        let Some((rank, named)) = route::matches(template, path) else { continue };
        if its_method != method {
            others.push(its_method);
        } else if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
            best = Some((rank, template, row, named));
        }
    }
    let Some((_, template, row, named)) = best else {
        return Ok(if others.is_empty() { Choice::Unknown } else { Choice::MethodUnlisted(others) });
    };
    if path.contains('%') {
        let decoded =
            percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| Ambiguous("the path is not UTF-8 once decoded"))?;
        let fitting = rows.filter(|(its_method, ..)| *its_method == method).filter_map(|(_, t, _)| Some((rank(t, &decoded)?, t)));
        if fitting.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, t)| t) != Some(template) {
            return Err(Ambiguous("the path leads elsewhere once it is decoded"));
        }
    }
    values(template, &named)?;
    Ok(Choice::Row(row, named))
}

/// How literally `template` fits a path that is decoded already, as `route::matches` ranks.
fn rank(template: &str, path: &str) -> Option<Rank> {
    let (mut rank, mut segments) = (Rank::default(), path.strip_prefix('/')?.split('/'));
    for part in template.strip_prefix('/')?.split('/') {
        let segment = segments.next()?;
        match part {
            _ if part.starts_with("{*") => {
                rank.push(2);
                return Some(rank).filter(|_| !segment.is_empty());
            }
            _ if part.starts_with('{') && !segment.is_empty() => rank.push(1),
            _ if part == segment => rank.push(0),
            _ => return None,
        }
    }
    segments.next().is_none().then_some(rank)
}

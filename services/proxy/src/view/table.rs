//! A service's routes, `METHOD /path/{template}`, as a view lists them.
//!
//! The matching is that of the contracts (`contract::route`): literals win over names, names over rests.

use std::sync::Arc;

use crate::canonical::{self, Ambiguous, Choice};

/// Routes of a service.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Row>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Upper-case method.
    pub method: String,
    /// Path template.
    pub path: String,
    /// Both, as the manifest writes them and as the policy names the route.
    pub text: Arc<str>,
}

/// A line that is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a route: write METHOD /path")]
pub struct TableError(String);

/// What a request matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched<'t> {
    /// This route.
    Row(&'t Row),
    /// The path is there, with other methods.
    MethodUnlisted,
    /// Nothing has this path.
    Unknown,
}

impl Table {
    /// Reads routes.
    ///
    /// # Errors
    /// For a line without an upper-case method and a path that begins with `/`.
    pub fn parse(rows: &[String]) -> Result<Self, TableError> {
        let row = |text: &String| {
            let (method, path) = text.split_once(' ').ok_or_else(|| TableError(text.clone()))?;
            let fits = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) && path.starts_with('/');
            fits.then(|| Row { method: method.to_owned(), path: path.to_owned(), text: text.as_str().into() })
                .ok_or_else(|| TableError(text.clone()))
        };
        Ok(Self { rows: rows.iter().map(row).collect::<Result<_, _>>()? })
    }

    /// Whether it has no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Finds the route of `method` and `path`.
    ///
    /// # Errors
    /// `Ambiguous`, as `canonical::path` and `canonical::choose`.
    pub fn find(&self, method: &str, path: &str) -> Result<Matched<'_>, Ambiguous> {
        let path = canonical::path(path)?;
        let rows = self.rows.iter().map(|row| (row.method.as_str(), row.path.as_str(), row));
        Ok(match canonical::choose(rows, method, path)? {
            Choice::Row(row, _) => Matched::Row(row),
            Choice::MethodUnlisted(_) => Matched::MethodUnlisted,
            Choice::Unknown => Matched::Unknown,
        })
    }
}

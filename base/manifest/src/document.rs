//! A TOML document with places: where each key stands, so that every problem can be shown there.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;

/// A parsed document and the problems found so far.
pub(crate) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    table: Option<Spanned<DeValue<'a>>>,
    pub(crate) problems: Vec<Problem>,
}

/// Reads the UTF-8 file at `path`, at most `most` bytes of it.
pub(crate) fn read(path: &Path, most: usize) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let mut text = String::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).map_err(|e| format!("cannot be read: {e}"))?;
    if text.len() > most {
        return Err(format!("is larger than {most} bytes"));
    }
    Ok(text)
}

impl<'a> Document<'a> {
    /// Parses the text; syntax errors become problems.
    pub(crate) fn parse(file: &'a str, text: &'a str) -> Self {
        let mut document = Self { file, text, table: None, problems: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            document.problem_at(&[], error.span().unwrap_or(0..0), error.message().to_owned(), None);
        }
        if errors.is_empty() {
            let span = table.span();
            document.table = Some(Spanned::new(span, DeValue::Table(table.into_inner())));
            document.check_texts();
        }
        document
    }

    /// The whole document, unless it could not be parsed.
    pub(crate) fn root(&self) -> Option<Spanned<DeValue<'a>>> {
        self.table.clone()
    }

    /// Adds a problem with the key at `path`.
    pub(crate) fn problem(&mut self, path: &[&str], message: impl Into<String>, help: Option<String>) {
        let span = self.locate(path);
        let path: Vec<_> = path.iter().map(|s| (*s).to_owned()).collect();
        self.problem_at(&path, span, message.into(), help);
    }

    /// Adds a problem with those bytes.
    pub(crate) fn problem_at(&mut self, path: &[String], span: Range<usize>, message: String, help: Option<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.problems.push(Problem { file: self.file.to_owned(), line, column, path: shown(path), message, help, span: Some(span) });
    }

    /// The span of the value at `path`; of its key, if the value is a table; of the deepest part that is there, otherwise.
    fn locate(&self, path: &[&str]) -> Range<usize> {
        let Some(mut value) = self.table.as_ref() else { return 0..0 };
        let mut span = 0..0;
        for step in path {
            let next = match value.get_ref() {
                DeValue::Table(table) => table.iter().find(|(key, _)| key.get_ref() == step).map(|(key, value)| (key.span(), value)),
                DeValue::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)).map(|item| (item.span(), item)),
                _ => None,
            };
            let Some((key, inner)) = next else { return span };
            span = if inner.get_ref().is_table() { key } else { inner.span() };
            value = inner;
        }
        span
    }

    /// Texts with characters that a reader, a solver or a terminal would stumble over are refused wherever they stand.
    fn check_texts(&mut self) {
        let mut found = Vec::new();
        if let Some(root) = &self.table {
            texts(root, &mut Vec::new(), &mut found);
        }
        for (path, span, message) in found {
            self.problem_at(&path, span, message, None);
        }
    }
}

/// Longest text in a manifest, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

fn texts(value: &Spanned<DeValue<'_>>, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Range<usize>, String)>) {
    let mut check = |text: &str, span: Range<usize>, path: &[String]| {
        if let Some(bad) = text.chars().find(|c| c.is_control() || *c > '\u{2FFFF}' || is_invisible(*c)) {
            found.push((path.to_vec(), span, format!("the character U+{:04X} may not stand in a manifest", u32::from(bad))));
        } else if text.len() > TEXT_BYTES_MAX {
            found.push((path.to_vec(), span, format!("a text of a manifest has at most {TEXT_BYTES_MAX} bytes")));
        }
    };
    match value.get_ref() {
        DeValue::String(text) => check(text, value.span(), path),
        DeValue::Table(table) => {
            for (key, _) in table.iter() {
                check(key.get_ref(), key.span(), path);
            }
            for (key, inner) in table.iter() {
                path.push(key.get_ref().to_string());
                texts(inner, path, found);
                path.pop();
            }
        }
        DeValue::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                path.push(i.to_string());
                texts(inner, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Zero-width characters and those that turn the direction of writing (Unicode, UAX 9).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

fn shown(path: &[String]) -> String {
    let mut out = String::new();
    for step in path {
        if step.bytes().all(|b| b.is_ascii_digit()) && !step.is_empty() {
            out.push_str(&format!("[{step}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(step);
        }
    }
    out
}

//! Problems: what is wrong, where, and what was probably meant.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// One thing that is wrong with a manifest or a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 if it has no place.
    pub line: usize,
    /// Column in characters, from 1; 0 if it has no place.
    pub column: usize,
    /// The key, as in `service.api.calls[2]`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Bytes of the source that it is about.
    pub(crate) span: Option<std::ops::Range<usize>>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        } else {
            write!(f, "{}: ", self.file)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new(Some("here".to_owned()), span.start, span.len()))))
    }
}

/// A manifest that is not valid: every problem found, in the file's order.
#[derive(Debug)]
pub struct ManifestError {
    /// The problems; never empty.
    pub problems: Vec<Problem>,
    source: NamedSource<String>,
}

impl ManifestError {
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| (p.span.as_ref().map_or(0, |s| s.start), p.message.clone()));
        problems.dedup();
        Self { problems, source: NamedSource::new(file, text.to_owned()) }
    }
    pub(crate) fn unplaced(file: &str, text: &str, message: &str) -> Self {
        let problem =
            Problem { file: file.to_owned(), line: 0, column: 0, path: String::new(), message: message.to_owned(), help: None, span: None };
        Self::new(file, text, vec![problem])
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

impl Diagnostic for ManifestError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}

/// What was probably meant by `name`, among `known`.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|k| (strsim::osa_distance(name, k), k)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// Help for an unknown name: the nearest one, else all of them.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("did you mean '{near}'?");
    }
    let mut all: Vec<_> = known.into_iter().take(17).collect();
    let more = if all.len() > 16 { ", …" } else { "" };
    all.truncate(16);
    match all.is_empty() {
        true => "none is declared".to_owned(),
        false => format!("known: {}{more}", all.join(", ")),
    }
}

//! What all pages share: the frame around them, the query, messages.

use askama::Template;
use contract::console::AuditState;

use crate::phrase;

/// A page's content, rendered and escaped.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Which entry of the navigation it belongs to.
    pub(crate) tab: &'static str,
    /// Whether the script fetches it anew every two seconds.
    pub(crate) live: bool,
    pub(crate) content: String,
}

impl Page {
    pub(crate) fn of(title: impl Into<String>, tab: &'static str, live: bool, template: &impl Template) -> Self {
        // Rendering into a String fails only if a value's Display does; none of ours does.
        Self { title: title.into(), tab, live, content: template.render().unwrap_or_default() }
    }
}

#[derive(Template)]
#[template(path = "shell.html")]
struct Shell<'a> {
    page: &'a Page,
    user: &'a str,
    broken: Option<&'a str>,
    records: String,
    path: &'a str,
}

/// The whole document.
pub(crate) fn shell(page: &Page, user: &str, audit: &AuditState, path: &str) -> String {
    let shell = Shell { page, user, broken: audit.broken.as_deref(), records: phrase::number(audit.records), path };
    shell.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    title: &'a str,
    text: &'a str,
}

/// A page that says one thing.
pub(crate) fn message(title: &str, text: &str) -> Page {
    Page::of(title, "", false, &Message { title, text })
}

/// A query string's values.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        const PAIRS_MAX: usize = 16;
        const TEXT_CHARS_MAX: usize = 256;
        let short = |text: std::borrow::Cow<'_, str>| text.trim().chars().take(TEXT_CHARS_MAX).collect::<String>();
        Self(url::form_urlencoded::parse(query.as_bytes()).take(PAIRS_MAX).map(|(k, v)| (k.into_owned(), short(v))).collect())
    }
    pub(crate) fn text(&self, name: &str) -> String {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }
    pub(crate) fn is(&self, name: &str) -> bool {
        self.text(name) == "1"
    }
}

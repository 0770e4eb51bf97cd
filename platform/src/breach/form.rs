//! Forms of pages, filled in and sent as a browser does.

/// A form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    /// Where it goes.
    pub(super) action: String,
    /// Its fields, with the values that the page gave them.
    pub(super) fields: Vec<(String, String)>,
}

impl Form {
    /// The first form of a page.
    pub(super) fn of(page: &str) -> Option<Self> {
        let form = page.split_once("<form")?.1.split_once("</form>")?.0;
        let action = attribute(form.split('>').next()?, "action").unwrap_or_default();
        let inputs = form.split("<input").skip(1).filter_map(|rest| rest.split('>').next());
        let fields = inputs.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default())));
        Some(Self { action, fields: fields.collect() })
    }

    /// As a body, with these values in its fields.
    pub(super) fn filled(&self, values: &[(&str, &str)]) -> String {
        let field = |(name, value): &(String, String)| {
            let value = values.iter().find(|(wanted, _)| wanted == name).map_or(value.as_str(), |(_, value)| value);
            format!("{}={}", escaped(name), escaped(value))
        };
        self.fields.iter().map(field).collect::<Vec<_>>().join("&")
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
    let entities =
        [("&quot;", "\""), ("&#34;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&#38;", "&"), ("&amp;", "&")];
    Some(entities.iter().fold(value.to_owned(), |text, (entity, meant)| text.replace(entity, meant)))
}

fn escaped(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn forms_are_filled_in_as_a_browser_does() {
        let page = r#"<form method="post" action="/oidc/sign-in?x=1&amp;y=2"><input type="hidden" name="csrf" value="a&quot;b"><input name="name"></form>"#;
        let form = Form::of(page).unwrap();
        assert_eq!(form.action, "/oidc/sign-in?x=1&y=2");
        assert_eq!(form.filled(&[("name", "a b")]), "csrf=a%22b&name=a%20b");
        assert!(Form::of("<p>no form</p>").is_none());
    }
}

//! A person: opens the one-time link, signs in through OpenID Connect, uploads, watches.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::curl::{Answer, Ask, Curl};

/// A person with a browser.
#[derive(Debug, Clone)]
pub struct Person {
    /// Their browser.
    pub curl: Curl,
    name: String,
    password: String,
}

/// An uploaded video.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// Its id.
    pub id: String,
    /// The trace of the upload, from the browser to the last rendition; empty where the system has none.
    pub trace: String,
}

impl Person {
    /// A person who will choose this name and a password.
    #[must_use]
    pub fn new(curl: Curl, name: &str) -> Self {
        Self { curl, name: name.to_owned(), password: "long walks over quiet hills".to_owned() }
    }

    /// Opens the one-time link and chooses name and password.
    ///
    /// # Errors
    /// When the page is not there or refuses.
    pub fn enrol(&self, link: &str) -> Outcome {
        let page = self.curl.page(link)?;
        let fields = [("name", self.name.as_str()), ("password", &self.password), ("repeat", &self.password)];
        let answer = self.submit(&page, &fields)?;
        if answer.status >= 400 {
            return Err(format!("enrolment was refused with {}: {}", answer.status, answer.text()).into());
        }
        Ok(())
    }

    /// Signs in with whatever form comes, as a browser does; where it is Palisade's, by authorization code with PKCE.
    ///
    /// # Errors
    /// When it does not end on the page.
    pub fn sign_in(&self) -> Outcome {
        let page = self.curl.page("/auth/login?return=/")?;
        let asks = |page: &Answer| page.text().contains("name=\"password\"");
        let answer = if asks(&page) { self.submit(&page, &[("name", &self.name), ("password", &self.password)])? } else { page };
        if answer.status != 200 || answer.url.contains("/oidc/") || asks(&answer) {
            return Err(format!("signing in ended at {} with {}: {}", answer.url, answer.status, answer.text()).into());
        }
        Ok(())
    }

    /// Fills in the first form of a page and sends it.
    ///
    /// # Errors
    /// When there is no form, or no answer.
    pub fn submit(&self, page: &Answer, values: &[(&str, &str)]) -> Outcome<Answer> {
        let text = page.text();
        let form = Form::parse(&text).ok_or_else(|| format!("{} ({}) has no form: {text}", page.url, page.status))?;
        let mut fields = form.fields.clone();
        for (name, value) in values {
            if let Some(field) = fields.iter_mut().find(|(n, _)| n == name) {
                (*value).clone_into(&mut field.1);
            }
        }
        let body = fields.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect::<Vec<_>>().join("&");
        let action = if form.action.is_empty() { page.url.clone() } else { absolute(&page.url, &form.action) };
        let origin = self.curl.address().to_owned();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", origin.as_str())];
        self.curl.ask(&action, &Ask { method: "POST", headers: &headers, data: Some(body.as_bytes()), follow: true, ..Ask::default() })
    }

    /// Asks the API.
    ///
    /// # Errors
    /// When the answer has another status.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>, expected: u16) -> Outcome<Value> {
        let origin = self.curl.address().to_owned();
        let headers = [("content-type", "application/json"), ("origin", origin.as_str()), ("accept", "application/json")];
        let data = body.map(ToString::to_string);
        let ask = Ask { method, headers: &headers, data: data.as_ref().map(String::as_bytes), ..Ask::default() };
        let answer = self.curl.ask(path, &ask)?;
        if answer.status == expected && answer.body.is_empty() {
            return Ok(Value::Null);
        }
        answer.json(expected)
    }

    /// Uploads a file by presigned PUT.
    ///
    /// # Errors
    /// When a step is refused.
    pub fn upload(&self, file: &Path, media_type: &str) -> Outcome<Uploaded> {
        let size = std::fs::metadata(file)?.len();
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let created = self.api("POST", "/api/videos", Some(&json!({ "name": name, "size": size, "type": media_type })), 201)?;
        let id = created["id"].as_str().ok_or("no id")?.to_owned();
        let url = created["upload"]["url"].as_str().ok_or("no upload URL")?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in created["upload"]["headers"].as_object().into_iter().flatten() {
            headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let answer = self.curl.ask(url, &Ask { method: "PUT", headers: &headers, file: Some(file), ..Ask::default() })?;
        if answer.status != 200 {
            return Err(format!("the upload was answered with {}: {}", answer.status, answer.text()).into());
        }
        let trace = answer.headers.get("palisade-trace").cloned().unwrap_or_default();
        Ok(Uploaded { id, trace })
    }

    /// Waits until the API answers; each question may take its time, but none may find nobody.
    ///
    /// # Errors
    /// When it does not answer well within `limit`.
    pub fn wait_for_api(&self, limit: Duration) -> Outcome {
        let start = Instant::now();
        loop {
            match self.api("GET", "/api/videos", None, 200) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > limit => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Waits until a video is in one of these states.
    ///
    /// # Errors
    /// When it is not within `limit`, or in another final state.
    pub fn wait_for(&self, id: &str, states: &[&str], limit: Duration) -> Outcome<Value> {
        let start = Instant::now();
        let mut last = Value::Null;
        while start.elapsed() < limit {
            // The API may be in the middle of a restart: then ask again.
            if let Ok(video) = self.api("GET", &format!("/api/videos/{id}"), None, 200) {
                let state = video["state"].as_str().unwrap_or_default().to_owned();
                if states.contains(&state.as_str()) {
                    return Ok(video);
                }
                if ["ready", "rejected", "failed"].contains(&state.as_str()) {
                    return Err(format!("the video is {state}: {}", video["reason"]).into());
                }
                last = video;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(format!("the video was not {states:?} within {limit:?}; last seen: {last}").into())
    }
}

/// A form of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Form {
    fn parse(page: &str) -> Option<Self> {
        let start = page.find("<form")?;
        let form = page.get(start..)?;
        let form = form.get(..form.find("</form>")?)?;
        let action = attribute(form.get(..form.find('>')?)?, "action").unwrap_or_default();
        let mut fields = Vec::new();
        let mut rest = form;
        while let Some(at) = rest.find("<input") {
            rest = rest.get(at..)?;
            let end = rest.find('>')?;
            let tag = rest.get(..end)?;
            if let Some(name) = attribute(tag, "name") {
                fields.push((name, attribute(tag, "value").unwrap_or_default()));
            }
            rest = rest.get(end..)?;
        }
        Some(Self { action, fields })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = tag.get(start..)?;
    let value = value.get(..value.find('"')?)?;
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#34;", "\"")
            .replace("&#x27;", "'")
            .replace("&#39;", "'")
            .replace("&#38;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

fn absolute(base: &str, action: &str) -> String {
    if action.starts_with("https://") {
        return action.to_owned();
    }
    let origin_end = base.get(8..).and_then(|rest| rest.find('/')).map_or(base.len(), |at| at + 8);
    if action.starts_with('/') {
        return format!("{}{action}", base.get(..origin_end).unwrap_or(base));
    }
    let path = base.split('?').next().unwrap_or(base);
    let folder = path.rfind('/').map_or(path, |at| path.get(..=at).unwrap_or(path));
    format!("{folder}{action}")
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn forms_are_read_as_a_browser_reads_them() {
        let page = r#"<body><form method="post" action="/oidc/sign-in?x=1&amp;y=2"><input type="hidden" name="csrf" value="a&quot;b"><input name="name"></form>"#;
        let form = Form::parse(page).unwrap();
        assert_eq!(form.action, "/oidc/sign-in?x=1&y=2");
        assert_eq!(form.fields, vec![("csrf".into(), "a\"b".into()), ("name".into(), String::new())]);
        assert_eq!(absolute("https://h:1/a/b?c", "/d"), "https://h:1/d");
        assert_eq!(absolute("https://h:1/a/b?c", "d"), "https://h:1/a/d");
        assert_eq!(escape("a b&c"), "a%20b%26c");
    }
}

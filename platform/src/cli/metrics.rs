//! `palisade metrics`: what every process counts, as Prometheus reads it.

use std::path::Path;
use std::process::ExitCode;

use contract::transport::ANSWER_BYTES_MAX;
use contract::{Call, body};
use http::{Request, header};

use super::{Failure, Format, block_on, people, say};
use crate::system::Layout;

/// `palisade metrics`. As JSON: the same text in `metrics`.
pub(super) fn metrics(dir: &Path, openmetrics: bool, format: Format) -> Result<ExitCode, Failure> {
    let accept = if openmetrics { "application/openmetrics-text; version=1.0.0" } else { "text/plain; version=0.0.4" };
    let answer = block_on(async {
        let client = people::operator(&Layout { dir: dir.to_path_buf() }, "evidence")?;
        let request = Request::get("/metrics").header(header::ACCEPT, accept).body(body::empty()).map_err(Failure::failed)?;
        let answer = client.send(&Call::default(), request).await.map_err(Failure::failed)?;
        if !answer.status().is_success() {
            return Err(Failure::failed(format_args!("evidence answered {}; its log says why", answer.status())));
        }
        body::collect(answer.into_body(), ANSWER_BYTES_MAX).await.map_err(Failure::failed)
    })??;
    let text = String::from_utf8(answer.to_vec()).map_err(|_| Failure::failed("evidence answered something that is no text"))?;
    match format {
        Format::Json => say(serde_json::json!({ "metrics": text })),
        Format::Text => say(text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

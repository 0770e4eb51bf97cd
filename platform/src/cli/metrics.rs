//! `palisade metrics`: what every process counts, as Prometheus reads it.

use std::path::Path;
use std::process::ExitCode;

use contract::Call;
use http::Method;

use super::{Failure, Format, block_on, people, say};
use crate::system::Layout;

/// `palisade metrics`. As JSON: the same text in `metrics`.
pub(super) fn metrics(dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let answer = block_on(async {
        let client = people::operator(&Layout { dir: dir.to_path_buf() }, "evidence")?;
        client.bytes::<()>(&Call::default(), Method::GET, "/metrics", None).await.map_err(Failure::failed)
    })??;
    let text = String::from_utf8(answer.to_vec()).map_err(|_| Failure::failed("evidence answered something that is no text"))?;
    match format {
        Format::Json => say(serde_json::json!({ "metrics": text })),
        Format::Text => say(text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

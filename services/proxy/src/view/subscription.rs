//! How views come: a stream from `control`, one per line; after each break a pull, then the stream again. `control` is told which view
//! is held, so that it sends only what changed; a change that does not fit is asked for again, whole.
//!
//! Guarantees: E16 push and pull, delta.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use contract::Transport;
use contract::body;
use contract::control::{HELD, SignedView, ViewLine};
use contract::delta::{DeltaError, digest_of};
use contract::transport::{Call, Client};
use http::Request;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use trust::{Entropy, Fault};

use super::ViewHolder;
use crate::limits;
use crate::pause::Backoff;

/// Keeps `holder` supplied until `stop`. `control` may be away: the view in force goes on until its age ends it.
pub async fn subscribe(holder: Arc<ViewHolder>, control: Arc<dyn Transport>, entropy: Arc<dyn Entropy>, stop: CancellationToken) {
    let client = Client::new(control);
    let mut backoff = Backoff::new(limits::VIEW_RETRY_MS, limits::VIEW_RETRY_MS_MAX, entropy);
    let mut away = false;
    let mut held = None;
    loop {
        let (supplied, ended) = tokio::select! {
            () = stop.cancelled() => return,
            supplied = supply(&holder, &client, &mut held) => supplied,
        };
        if supplied {
            backoff.reset();
        } else if !away {
            holder.report_away(&ended);
        }
        away = !supplied;
        tokio::select! {
            () = stop.cancelled() => return,
            () = backoff.pause() => {}
        }
    }
}

/// One pull and one stream until it breaks: whether a view came, and how it ended.
async fn supply(holder: &ViewHolder, client: &Client, held: &mut Option<SignedView>) -> (bool, Fault) {
    let pulled = match client.get::<ViewLine>(&Call::default(), &asking("/view", held.as_ref())).await {
        Ok(line) => take(holder, line, held),
        Err(fault) => return (false, fault),
    };
    let pulled = match pulled {
        Ok(pulled) => pulled,
        // Told nothing about what is held, `control` sends the whole.
        Err(unfit) => return (false, unfit),
    };
    let mut streamed = false;
    let ended = match stream(holder, client, held, &mut streamed).await {
        Ok(()) => Fault::unavailable("the view stream ended"),
        Err(fault) => fault,
    };
    (pulled || streamed, ended)
}

fn asking(path: &str, held: Option<&SignedView>) -> String {
    held.map_or_else(|| path.to_owned(), |held| format!("{path}?{HELD}{}", digest_of(held)))
}

async fn stream(holder: &ViewHolder, client: &Client, held: &mut Option<SignedView>, came: &mut bool) -> Result<(), Fault> {
    let request = Request::get(asking("/view/stream", held.as_ref())).body(body::empty()).map_err(Fault::internal)?;
    let response = client.send(&Call::default(), request).await?;
    if !response.status().is_success() {
        return Err(Fault::unavailable(format!("control answered {} to the view stream", response.status())));
    }
    let mut frames = response.into_body();
    let mut line = BytesMut::new();
    let idle = Duration::from_millis(limits::VIEW_STREAM_IDLE_MS);
    while let Some(frame) = tokio::time::timeout(idle, frames.frame()).await.map_err(|_| Fault::timed_out("the view stream fell silent"))? {
        let frame = frame.map_err(|error| Fault::unavailable("the view stream broke").because(error))?;
        let Ok(data) = frame.into_data() else { continue };
        line.extend_from_slice(&data);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let one = line.split_to(end.saturating_add(1));
            let text = one.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let sent = serde_json::from_slice(text)
                .map_err(|error| Fault::unavailable("control sent something else than a view").because(error))?;
            *came |= take(holder, sent, held)?;
        }
        if line.len() > limits::VIEW_LINE_BYTES_MAX {
            return Err(Fault::too_large("a line of the view stream is too long"));
        }
    }
    Ok(())
}

/// Whether what was sent is a view that was taken. What is held is what came last, taken or not: the next change is made on it.
fn take(holder: &ViewHolder, line: ViewLine, held: &mut Option<SignedView>) -> Result<bool, Fault> {
    let signed = match line {
        ViewLine::Whole(signed) => signed,
        ViewLine::Delta { delta } => match held.take().ok_or(DeltaError::OtherBase).and_then(|held| delta.onto(&held)) {
            Ok(signed) => signed,
            // Held is nothing now, so the next pull is for the whole.
            Err(unfit) => return Err(Fault::unavailable("a change of the view cannot be used").because(unfit)),
        },
    };
    let taken = match holder.accept(&signed) {
        Ok(()) => true,
        // An older view than ours is what a pull may bring just after a push: nothing to report.
        Err(super::ViewRefused::RolledBack { .. }) => false,
        Err(refused) => {
            holder.report("from control", refused.to_string());
            // What came may be a change that somebody edited: nothing is built on it.
            *held = None;
            return Ok(false);
        }
    };
    *held = Some(signed);
    Ok(taken)
}

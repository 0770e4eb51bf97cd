//! How views come: a stream from `control`, one per line; after each break a pull, then the stream again.
//!
//! Guarantees: E16 push and pull.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use contract::Transport;
use contract::body;
use contract::control::SignedView;
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
    loop {
        let (supplied, ended) = tokio::select! {
            () = stop.cancelled() => return,
            supplied = supply(&holder, &client) => supplied,
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
async fn supply(holder: &ViewHolder, client: &Client) -> (bool, Fault) {
    let pulled = match client.get::<SignedView>(&Call::default(), "/view").await {
        Ok(signed) => take(holder, &signed),
        Err(fault) => return (false, fault),
    };
    let mut streamed = false;
    let ended = match stream(holder, client, &mut streamed).await {
        Ok(()) => Fault::unavailable("the view stream ended"),
        Err(fault) => fault,
    };
    (pulled || streamed, ended)
}

async fn stream(holder: &ViewHolder, client: &Client, came: &mut bool) -> Result<(), Fault> {
    let request = Request::get("/view/stream").body(body::empty()).map_err(Fault::internal)?;
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
            let signed = serde_json::from_slice(text)
                .map_err(|error| Fault::unavailable("control sent something else than a view").because(error))?;
            *came |= take(holder, &signed);
        }
        if line.len() > limits::VIEW_LINE_BYTES_MAX {
            return Err(Fault::too_large("a line of the view stream is too long"));
        }
    }
    Ok(())
}

fn take(holder: &ViewHolder, signed: &SignedView) -> bool {
    match holder.accept(signed) {
        Ok(()) => true,
        // An older view than ours is what a pull may bring just after a push: nothing to report.
        Err(super::ViewRefused::RolledBack { .. }) => false,
        Err(refused) => {
            holder.report("from control", refused.to_string());
            false
        }
    }
}

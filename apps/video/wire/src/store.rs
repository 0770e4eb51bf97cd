//! The object store: S3 path style, with two requests of its own (a grant to hand out, a verdict to record).
//!
//! Spec:       Amazon S3 API: GetObject with Range, PutObject, DeleteObject.
//! Guarantees: objects stream both ways; a range read gives exactly the bytes asked for or a fault; a read that is tied
//!             to a version (`etag`) never mixes two versions.
//! Not here:   signatures: the endpoint on loopback needs none.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{Call, Client, Payload, peer_of, succeeded},
    context::{Context, text},
    fault::Fault,
};

/// What stays as it is in a key: RFC 3986 unreserved characters and the slash.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// The largest answer that is read whole.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an object may take to arrive or to be sent whole.
const TRANSFER_LIMIT: Duration = Duration::from_secs(900);

/// A grant for someone without credentials to make one request to the store.
#[derive(Debug, Deserialize)]
pub struct Grant {
    /// The address to use.
    pub url: String,
    /// The method to use.
    pub method: String,
    /// Headers that must go with it, exactly.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// When it ends, RFC 3339.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// What the holder of a grant may do.
pub enum Granted<'a> {
    /// Read the object.
    Get,
    /// Write an object of exactly this size and media type.
    Put {
        /// Size in bytes.
        content_length: u64,
        /// The media type.
        content_type: &'a str,
    },
}

/// An object that is being read.
pub struct Opened {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its content, still to come.
    pub body: Incoming,
}

/// The store at `AWS_ENDPOINT_URL`.
#[derive(Clone)]
pub struct Store {
    client: Client,
    base: String,
}

impl Store {
    /// A store at this address.
    #[must_use]
    pub fn new(client: Client, base: String) -> Self {
        Self { client, base }
    }

    fn url(&self, bucket: &str, key: &str) -> String {
        format!("{}/{bucket}/{}", self.base, utf8_percent_encode(key, KEY))
    }

    /// Asks for a grant that lives `expires_s` seconds.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached, refuses, or answers something else than a grant.
    pub async fn presign(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        granted: Granted<'_>,
        expires_s: u32,
    ) -> Result<Grant, Fault> {
        let wish = match granted {
            Granted::Get => json!({ "method": "GET", "expires_s": expires_s }),
            Granted::Put { content_length, content_type } => json!({
                "method": "PUT", "expires_s": expires_s,
                "content_length": content_length, "content_type": content_type,
            }),
        };
        let url = format!("{}?presign", self.url(bucket, key));
        let peer = peer_of(&url);
        let answer = self.client.fetch(context, Call::new(Method::POST, url).json(&wish), ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(answer.body()).map_err(|error| Fault::Garbled { peer, problem: error.to_string() })
    }

    /// Asks for grants to send an object of this size and media type in parts, and for what is there of it. The answer is for whoever
    /// sends: which parts there are, and an address for each of the next ones.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached, refuses, or answers something else than JSON.
    pub async fn presign_parts(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        (content_length, content_type): (u64, &str),
        expires_s: u32,
    ) -> Result<serde_json::Value, Fault> {
        let wish = json!({ "expires_s": expires_s, "content_length": content_length, "content_type": content_type });
        let url = format!("{}?presign-parts", self.url(bucket, key));
        let peer = peer_of(&url);
        let answer = self.client.fetch(context, Call::new(Method::POST, url).json(&wish), ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(answer.body()).map_err(|error| Fault::Garbled { peer, problem: error.to_string() })
    }

    /// Records what the check of an object found: `Ok` with its true media type, or `Err` with the reason.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached or refuses.
    pub async fn verdict(&self, context: &Context, (bucket, key): (&str, &str), verdict: Result<&str, &str>) -> Result<(), Fault> {
        let body = match verdict {
            Ok(media_type) => json!({ "verdict": "clean", "reason": "", "media_type": media_type }),
            Err(reason) => json!({ "verdict": "rejected", "reason": reason }),
        };
        let call = Call::new(Method::POST, format!("{}?verdict", self.url(bucket, key))).json(&body);
        self.client.fetch(context, call, ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Reads `len` bytes from `offset`; `etag` ties the read to one version.
    ///
    /// # Errors
    /// [`Fault::Garbled`] when other bytes came than asked for, or of another version; else as [`Client::fetch`].
    pub async fn range(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        etag: Option<&str>,
        (offset, len): (u64, usize),
    ) -> Result<Bytes, Fault> {
        let url = self.url(bucket, key);
        let peer = peer_of(&url);
        let garbled = |problem: String| Fault::Garbled { peer: peer.clone(), problem };
        let last = offset.saturating_add(len as u64).saturating_sub(1);
        let range = HeaderValue::from_str(&format!("bytes={offset}-{last}")).map_err(|e| garbled(e.to_string()))?;
        let mut call = Call::new(Method::GET, url).header(header::RANGE, range);
        call.limit = Duration::from_secs(30);
        let answer = self.client.fetch(context, call, len.max(1)).await?;
        if answer.status() != http::StatusCode::PARTIAL_CONTENT && offset != 0 {
            return Err(garbled(String::from("a part was asked for and the whole came")));
        }
        if let (Some(expected), Some(found)) = (etag, text(answer.headers(), "etag"))
            && bare(expected) != bare(&found)
        {
            return Err(garbled(String::from("the object changed while it was read")));
        }
        let body = answer.into_body();
        if body.len() == len { Ok(body) } else { Err(garbled(format!("{len} bytes wanted, {} came", body.len()))) }
    }

    /// Opens an object for reading from its beginning.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached, refuses, or does not say how large the object is.
    pub async fn open(&self, context: &Context, (bucket, key): (&str, &str)) -> Result<Opened, Fault> {
        let url = self.url(bucket, key);
        let peer = peer_of(&url);
        let answer = succeeded(&peer, self.client.send(context, Call::new(Method::GET, url)).await?).await?;
        let bytes = text(answer.headers(), "content-length").and_then(|value| value.parse().ok());
        let bytes = bytes.ok_or_else(|| Fault::Garbled { peer, problem: String::from("no Content-Length") })?;
        Ok(Opened { bytes, body: answer.into_body() })
    }

    /// Writes a file of `bytes` bytes as an object.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached or refuses.
    pub async fn put(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        media_type: &'static str,
        (file, bytes): (tokio::fs::File, u64),
    ) -> Result<(), Fault> {
        let mut call = Call::new(Method::PUT, self.url(bucket, key))
            .header(header::CONTENT_TYPE, HeaderValue::from_static(media_type))
            .header(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        call.payload = Payload::File(file, bytes);
        call.limit = TRANSFER_LIMIT;
        self.client.fetch(context, call, ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Deletes an object; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be reached or refuses.
    pub async fn delete(&self, context: &Context, (bucket, key): (&str, &str)) -> Result<(), Fault> {
        let call = Call::new(Method::DELETE, self.url(bucket, key));
        match self.client.fetch(context, call, ANSWER_BYTES_MAX).await {
            Err(fault) if fault.is_gone() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// An entity tag without its quotes: events carry it bare, headers quoted.
fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

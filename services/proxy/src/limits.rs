//! Limits and time-outs of everything that listens or calls. Units are in the names.
//!
//! Those that another crate must agree on are in `trust::limits`; these are the proxy's own.
//!
//! Guarantees: A13 in part, A18 (windows bound what is buffered of a stream).

/// A TLS handshake must be done after this.
pub const HANDSHAKE_MS: u64 = 10_000;
/// A load balancer's PROXY header must be there after this.
pub const PROXY_HEADER_MS: u64 = 5_000;
/// And may have so many bytes behind its fixed part, type-length-values included.
pub const PROXY_HEADER_BYTES_MAX: usize = 2_048;
/// The head of a request must be there this long after the connection is ready for it (also: idle HTTP/1.1 connections end).
pub const HEAD_READ_MS: u64 = 30_000;
/// A request's body must make progress at least this often.
pub const BODY_IDLE_MS: u64 = 60_000;
/// HTTP/1.1: the rest of a request that was answered before its end is read for this long.
pub const LINGER_MS: u64 = 2_000;
/// HTTP/1.1: and at most so much of it.
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// A tunnel (WebSocket) without a byte in either direction for this long ends.
pub const TUNNEL_IDLE_MS: u64 = 300_000;
/// A tunnel ends after this long in any case.
pub const TUNNEL_MS_MAX: u64 = 4 * 3_600_000;
/// A raw flow without a byte in either direction for this long ends: connections of a pool wait.
pub const FLOW_IDLE_MS: u64 = 3_600_000;
/// A raw flow ends after this long in any case.
pub const FLOW_MS_MAX: u64 = 24 * 3_600_000;
/// After one side of a WebSocket has ended, the other has this long.
pub const TUNNEL_HALF_MS: u64 = 10_000;
/// What ends a tunnel from outside has this long to say so.
pub const TUNNEL_GRACE_MS: u64 = 2_000;
/// How often it is looked at whether a tunnel may go on.
pub const TUNNEL_LOOK_MS: u64 = 1_000;
/// Bytes of one direction of a tunnel under way.
pub const TUNNEL_PIECE_BYTES: usize = 16 * 1024;
/// An event stream (server-sent events) may pause for this long.
pub const EVENT_IDLE_MS: u64 = 900_000;
/// A gRPC call may be without a message of its caller for this long.
pub const STREAM_IDLE_MS: u64 = 900_000;
/// HTTP/2: streams that were reset before they were accepted, at the same time on one connection.
pub const RESETS_PENDING_MAX: usize = 20;
/// HTTP/2: streams that we reset for errors of the peer, before the connection is ended.
pub const RESETS_FOR_ERRORS_MAX: usize = 64;
/// HTTP/2: largest frame that is taken, in bytes (the least that RFC 9113 allows).
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// HTTP/2: so many frames without a request or content may come at once (see `serve::flood`).
pub const FLOOD_CREDIT_MAX: u64 = 1_000;
/// HTTP/2: and so many a second, over time.
pub const FLOOD_CREDIT_PER_S: u64 = 100;
/// HTTP/2: a reset costs as much as so many of them.
pub const FLOOD_RESET_COST: u64 = 5;
/// HTTP/2: so many bytes of content bring one more.
pub const FLOOD_BYTES_PER_CREDIT: u64 = 1_024;
/// A peer that takes nothing of what we write for this long is gone.
pub const WRITE_STALL_MS: u64 = 60_000;
/// HTTP/2: a ping is sent when nothing came for this long.
pub const PING_EVERY_MS: u64 = 20_000;
/// HTTP/2: the answer to a ping must come within this.
pub const PING_ANSWER_MS: u64 = 20_000;
/// A TCP or UNIX connection must be made within this.
pub const CONNECT_MS: u64 = 5_000;
/// A name must be resolved within this.
pub const RESOLVE_MS: u64 = 5_000;
/// Addresses of one name; one with more is not connected to.
pub const OUTSIDE_ADDRESSES_MAX: usize = 32;
/// Of these so many are tried, one after the other.
pub const OUTSIDE_TRIES_MAX: usize = 4;
/// Connections to one destination outside being made at the same time.
pub const OUTSIDE_MAKING_MAX: usize = 4;
/// A connection to a destination outside takes new requests for this long; then its name is resolved and its files are read again.
pub const OUTSIDE_CONNECTION_MS_MAX: u64 = 300_000;
/// HTTP/1.1: an idle one is used again within this.
pub const OUTSIDE_IDLE_MS: u64 = 10_000;
/// HTTP/1.1: idle ones kept to one destination.
pub const OUTSIDE_IDLE_MAX: usize = 32;
/// HTTP/1.1: fields in the head of an answer from outside.
pub const OUTSIDE_HEADERS_MAX: usize = 100;
/// Pauses before the second and third attempt to connect; nothing was sent before, so trying again is safe.
pub const CONNECT_RETRY_PAUSES_MS: &[u64] = &[100, 500];
/// The head of an answer must come within this after the last byte of the request went out.
pub const ANSWER_HEAD_MS: u64 = 60_000;
/// The same for deliveries and long work: the consumer answers when the work is done.
pub const DELIVERY_HEAD_MS: u64 = 3_600_000;
/// A whole call of a service whose manifest says nothing.
pub const CALL_MS_MAX: u64 = 900_000;
/// After `stop` a connection may finish what is in flight for this long.
pub const DRAIN_MS: u64 = 20_000;
/// Connections at the same time on one listener.
pub const CONNECTIONS_MAX: usize = 4096;
/// TLS handshakes under way on one listener; past it the oldest gives way.
pub const HANDSHAKES_MAX: usize = 512;
/// TLS handshakes under way from one address (a user, on a UNIX socket); past it the oldest of that address gives way.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 256;
/// Requests at the same time in one room.
pub const ROOM_REQUESTS_MAX: usize = 1024;
/// Requests at the same time to a service whose manifest says nothing.
pub const SERVICE_REQUESTS_MAX: usize = 256;
/// Decision point: connections of its enforcement point.
pub const PEP_CONNECTIONS_MAX: usize = 128;
/// Decision point: questions under way.
pub const PEP_CHECKS_MAX: usize = 512;
/// Decision point: a question is answered within this, by a refusal if nothing else is known.
pub const PEP_CHECK_MS: u64 = 5_000;
/// Decision point: largest question. A request's head has `trust::limits::HEADER_BYTES_MAX`, and its body stays with the asker.
pub const PEP_QUESTION_BYTES_MAX: usize = 64 * 1024;
/// Decision point: largest set of questions.
pub const PEP_QUESTIONS_BYTES_MAX: usize = 256 * 1024;
/// Decision point: questions in one set.
pub const PEP_QUESTIONS_MAX: usize = 64;
/// Decision point: names of secrets in one request.
pub const PEP_SECRETS_MAX: usize = 8;
/// Decision point: names of services in one request.
pub const PEP_ENDPOINTS_MAX: usize = 256;
/// Decision point: messages of one stream of secrets that come sooner than a second after the one before.
pub const PEP_STREAM_HASTE_MAX: u32 = 64;
/// Decision point: a stream of secrets may be silent for this long: longer than an SVID lives.
pub const PEP_STREAM_IDLE_MS: u64 = 2 * 3_600_000;
/// HTTP/2: streams at the same time on one connection.
pub const STREAMS_MAX: u32 = 64;
/// HTTP/2: a client opens another connection to a peer when the present ones carry this many streams.
pub const STREAMS_BUSY: usize = 48;
/// Requests of one process under way to one replica of a peer; one more fails at once. As many as its connections carry together.
pub const REQUESTS_PER_REPLICA_MAX: usize = CONNECTIONS_PER_PEER_MAX * STREAMS_MAX as usize;
/// A connection to one of several replicas must be made within this, else the next one is tried; nothing was sent.
pub const REPLICA_CONNECT_MS: u64 = 1_000;
/// A replica that failed is left out for this long, doubled each time.
pub const REPLICA_OUT_MS: u64 = 500;
/// And at most for this long.
pub const REPLICA_OUT_MS_MAX: u64 = 30_000;
/// Answers 502 to 504 in a row after which a replica is left out.
pub const REPLICA_BAD_ANSWERS_MAX: u32 = 5;
/// Retries to one peer, in percent of the requests to it.
pub const RETRIES_PERCENT: u64 = 20;
/// Retries to one peer that are always allowed, a second.
pub const RETRIES_A_SECOND: u64 = 3;
/// Of these, as many are saved up while there is nothing to do.
pub const RETRIES_IDLE_MAX: u64 = 30;
/// Retries saved up in all.
pub const RETRIES_MAX: u64 = 100;
/// HTTP/2: connections from one process to one peer.
pub const CONNECTIONS_PER_PEER_MAX: usize = 16;
/// HTTP/1.1 connections from one process to one replica of a peer, beside those of HTTP/2. Also: while more requests than this are under
/// way to it, new ones go over HTTP/2, where they share writes and wake-ups.
pub const PLAIN_CONNECTIONS_MAX: usize = 16;
/// Of these, so many are being made at the same time.
pub const PLAIN_MAKING_MAX: usize = 4;
/// Another is made when so many requests found none free.
pub const PLAIN_MISSED_MIN: usize = 8;
/// An idle one is used again within this; shorter than `HEAD_READ_MS`, after which the other side closes it.
pub const PLAIN_IDLE_MS: u64 = 20_000;
/// A request with a larger body, or one whose end is not known, goes over HTTP/2.
pub const PLAIN_BODY_BYTES_MAX: u64 = 16 * 1024;
/// HTTP/2: bytes of one stream under way.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2: bytes of one connection under way. As much as all its streams together, so that a stalled stream never stalls another.
pub const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// HTTP/2: bytes of one stream waiting to be written.
pub const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// HTTP/1.1: read buffer of a connection, also the longest head.
pub const HTTP1_BUFFER_BYTES: usize = 64 * 1024;
/// Longest request target.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Idle HTTP/1.1 connections kept to a service: as many as it may have requests at once, or a busy service would pay for a new
/// connection with most of them.
pub const SERVICE_IDLE_CONNECTIONS_MAX: usize = SERVICE_REQUESTS_MAX;
/// An idle connection to a service is used again within this; shorter than what servers commonly allow.
pub const SERVICE_IDLE_MS: u64 = 4_000;
/// First and longest pause before the view's stream is opened again.
pub const VIEW_RETRY_MS: u64 = 200;
/// Longest pause before the view's stream is opened again.
pub const VIEW_RETRY_MS_MAX: u64 = 5_000;
/// A view stream without a line for this long is opened anew.
pub const VIEW_STREAM_IDLE_MS: u64 = 120_000;
/// Longest line of a view stream.
pub const VIEW_LINE_BYTES_MAX: usize = contract::transport::ANSWER_BYTES_MAX;
/// First pause before another attempt to join or renew.
pub const RENEW_RETRY_MS: u64 = 250;
/// Longest pause before another attempt to join or renew.
pub const RENEW_RETRY_MS_MAX: u64 = 30_000;
/// How often the wall clock is looked at while waiting to renew.
pub const RENEW_LOOK_MS: u64 = 30_000;
/// Attempts to join: `identity` may be starting at the same time.
pub const JOIN_ATTEMPTS_MAX: u32 = 40;

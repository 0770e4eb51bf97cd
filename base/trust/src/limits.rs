//! Limits that more than one crate must agree on. Everything has a limit; units are in the names.

/// Life of an X.509-SVID: one hour at most, renewed at half of it.
pub const SVID_LIFE_S_MAX: u64 = 3600;
/// Maximum age of a guard's view; past it the guard denies.
pub const VIEW_AGE_S_MAX: u64 = 300;
/// Life of a transaction token that the edge mints.
pub const TXN_TOKEN_LIFE_S: u64 = 300;
/// Tolerated difference between two processes' clocks when a token's start is checked.
pub const CLOCK_SKEW_S_MAX: u64 = 5;
/// Length of an object key (as S3's).
pub const OBJECT_KEY_BYTES_MAX: usize = 1024;
/// All headers of one request.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Number of header fields of one request.
pub const HEADERS_MAX: usize = 100;
/// Body of a request to a room that takes JSON.
pub const JSON_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Payload of a queued message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Life of a presigned URL: at most one hour.
pub const GRANT_LIFE_S_MAX: u64 = 3600;

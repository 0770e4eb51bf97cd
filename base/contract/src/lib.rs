//! The contracts between Palisade's services: one file per service, with its routes, who may call each, its requests, its answers
//! and its client. A service is written against its own contract; its callers against the same file.
//!
//! The route tables are the truth for three readers: the server (`proxy::enforce` refuses what is not in them), the clients, and the
//! refusal-coverage test (every row is called as everybody who may not).

pub mod body;
pub mod console;
pub mod control;
pub mod delta;
pub mod dpop;
pub mod evidence;
pub mod guard;
pub mod identity;
pub mod login;
pub mod objects;
pub mod opaque;
pub mod queue;
pub mod room;
pub mod route;
pub mod signing;
pub mod transport;
pub mod txn_token;

pub use body::{Body, BoxError};
pub use room::{Caller, LocalPeer, Peer, Room, VerifiedAuthority};
pub use route::{Found, Route, Who, find};
pub use transport::{Call, Client, Transport};

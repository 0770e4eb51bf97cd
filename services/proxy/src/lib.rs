//! The proxy: the only crate that opens sockets or names rustls.
//!
//! From the bottom up: `limits`, `canonical`, `choice` and `headers` say what a request may look like; `bundle`, `svid` and `tls` who a peer is;
//! `view` what this process may decide; `serve` and `enforce` let requests into rooms, `client` carries them to peers; `mesh` is a
//! guard's data path and `edge` the public gateway, whose steps are those of DESIGN section 5 under the same names; `pdp` takes the same
//! steps for an enforcement point of somebody else's making.
//!
//! How a process is put together: `renewal::join` gives its `WorkloadIdentity` and `renewal::keep` renews it; `view::ViewHolder::open`
//! holds its view and `view::subscribe` supplies it; `client::MeshTransport` leads to each peer. A role puts its room behind
//! `enforce::Enforcement` and serves it with `serve::mesh` (and `operator`, `joining`, `supervisor`); a guard is a `mesh::Guard`.
//!
//! INVARIANT: nothing here decides by itself who may do what: contracts (`Who`), the view (`callers`) and the policy engine do.
//! Never here: policies, storage of a service, processes, `unsafe`.

pub mod access;
pub mod account;
pub mod bundle;
pub mod canonical;
mod choice;
pub mod client;
pub mod edge;
pub mod enforce;
pub mod events;
pub mod grpc;
pub mod headers;
pub mod knock;
pub mod limits;
pub mod listen;
pub mod mesh;
pub mod passage;
pub mod pause;
pub mod pdp;
pub mod renewal;
mod roots;
pub mod serve;
pub mod svid;
pub mod tls;
pub mod tunnel;
pub mod view;
pub mod websocket;

#[cfg(test)]
pub(crate) mod tests;

//! What goes on after an answer's head: a tunnel, run by the connection that carried the opening, so that the connection lasts as long
//! as it, counts as long as it, and drains with it.

use std::sync::{Arc, Mutex};

use contract::Body;
use futures::future::BoxFuture;
use http::Response;
use tokio_util::sync::CancellationToken;

type Begin = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Work that an answer brings along; whoever serves the connection takes it and runs it.
#[derive(Clone)]
pub struct Afterwards(Arc<Mutex<Option<Begin>>>);

impl Afterwards {
    /// Gives `answer` work to be begun with the connection's `stop`.
    pub fn attach<F>(answer: &mut Response<Body>, begin: impl FnOnce(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let begin: Begin = Box::new(move |stop| Box::pin(begin(stop)));
        answer.extensions_mut().insert(Self(Arc::new(Mutex::new(Some(begin)))));
    }

    /// Keeps `held` until the work of `answer` is done; gives it back when there is none.
    pub fn hold<T: Send + 'static>(answer: &mut Response<Body>, held: T) -> Option<T> {
        let Some(begin) = Self::take(answer) else { return Some(held) };
        Self::attach(answer, move |stop| async move {
            begin(stop).await;
            drop(held);
        });
        None
    }

    /// The work, which can be taken once.
    pub(super) fn take(answer: &mut Response<Body>) -> Option<Begin> {
        let Self(begin) = answer.extensions_mut().remove()?;
        begin.lock().ok()?.take()
    }
}

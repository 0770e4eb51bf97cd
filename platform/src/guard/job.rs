//! A sandbox for each job: nothing of one job, no memory, file, process or connection, is there for the next.
//!
//! One spare is kept ready, started and never used, where the service runs all the time anyway (`replicas_min` of at least one): a job
//! then waits for nothing, and an idle service costs what it always did, one sandbox. With `replicas_min = 0` there is no spare; a job
//! waits for the start. The end of a job is the end of its sandbox: asked first, killed after a grace; killed at once when the delivery
//! was given up, because then this handle is dropped.
//!
//! Guarantees: I8.
//! Not here:   which requests are jobs and when they end (`proxy::mesh::job`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sandbox::{Running, SandboxError};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::host::{Host, RESTART_PAUSE, RESTART_PAUSE_MAX, Started};

/// How long a service may take to end when its job is done.
const JOB_GRACE: Duration = Duration::from_secs(2);

/// The sandboxes of jobs.
#[derive(Default)]
pub(super) struct Jobs {
    // INVARIANT: nothing was ever connected to the service in it.
    spare: Mutex<Option<Started>>,
    taken: Notify,
    alive: std::sync::Mutex<Vec<Weak<Started>>>,
}

/// One job's sandbox; killed when dropped.
pub(super) struct Alone(Arc<Started>);

impl Host {
    /// A sandbox that was never used: the spare, or one that is started now.
    ///
    /// # Errors
    /// Those of the sandbox: nothing runs then.
    pub(super) async fn fresh(&self) -> Result<Alone, SandboxError> {
        self.used();
        let spare = self.jobs.spare.lock().await.take().filter(|spare| spare.running.exited().is_none());
        self.jobs.taken.notify_one();
        let started = match spare {
            Some(spare) => spare,
            None => self.start().await?,
        };
        let started = Arc::new(started);
        let mut alive = self.alive();
        alive.retain(|one| one.strong_count() > 0);
        alive.push(Arc::downgrade(&started));
        Ok(Alone(started))
    }

    /// The spare, started if there is none.
    ///
    /// # Errors
    /// As `fresh`.
    pub(super) async fn spare(&self) -> Result<Arc<Running>, SandboxError> {
        let mut spare = self.jobs.spare.lock().await;
        if let Some(now) = &*spare
            && now.running.exited().is_none()
        {
            return Ok(now.running.clone());
        }
        // Whatever is left of one that ended goes first.
        *spare = None;
        let started = self.start().await?;
        let running = started.running.clone();
        *spare = Some(started);
        Ok(running)
    }

    /// Keeps a spare until `stop`.
    pub(super) async fn keep_spare(&self, stop: &CancellationToken) {
        let service = &self.profile.name;
        let mut pause = RESTART_PAUSE;
        loop {
            if self.is_closed() {
                stop.cancelled().await;
                break;
            }
            let used_up = async {
                match self.spare().await {
                    Ok(running) => tokio::select! {
                        () = self.jobs.taken.notified() => return true,
                        exit = running.wait() => tracing::warn!(service, ?exit, "a sandbox ended before it had a job; another is started"),
                    },
                    Err(error) => tracing::error!(service, %error, "no sandbox can be started for the next job"),
                }
                false
            };
            let taken = tokio::select! {
                taken = used_up => taken,
                () = stop.cancelled() => break,
            };
            if taken {
                pause = RESTART_PAUSE;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
        *self.jobs.spare.lock().await = None;
    }

    /// Asks the services of all jobs under way to end, and kills what is left.
    pub(super) async fn end_jobs(&self, grace: Duration) {
        let under_way: Vec<Arc<Running>> = self.alive().iter().filter_map(|one| Some(one.upgrade()?.running.clone())).collect();
        futures::future::join_all(under_way.iter().map(|running| running.terminate(grace))).await;
    }

    /// The sandboxes of all jobs under way, and the spare.
    pub(super) async fn all_jobs(&self) -> Vec<Arc<Running>> {
        let spare = self.jobs.spare.lock().await.as_ref().map(|spare| spare.running.clone());
        let under_way = self.alive().iter().filter_map(|one| Some(one.upgrade()?.running.clone())).collect::<Vec<_>>();
        under_way.into_iter().chain(spare).collect()
    }

    fn alive(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Started>>> {
        self.jobs.alive.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl proxy::mesh::Job for Alone {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        self.0.running.connect().await.map_err(std::io::Error::other)
    }

    async fn end(self: Box<Self>) {
        if !self.0.closed.is_cancelled() {
            self.0.running.terminate(JOB_GRACE).await;
        }
    }
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone").field("pid", &self.0.running.pid()).finish()
    }
}

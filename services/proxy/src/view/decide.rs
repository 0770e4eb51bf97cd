//! A view's policies, loaded, and the three questions that the gateway and the guards ask of them.

use std::sync::Arc;

use contract::control::View;
use policy::{Action, PolicySlice, Resource};
use trust::{Authority, Decision};

/// A question of the edge or of a guard. (Rooms ask theirs of `policy::Engine` itself.)
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// May the internet come in at this public route (`METHOD /path/{template}`) of `service` on this authority?
    Enter {
        /// The service's name.
        service: &'a str,
        /// The route, as the manifest writes it.
        route: &'a str,
        /// The person's authority.
        authority: Option<&'a Authority>,
    },
    /// May `caller` call this route of `service` on this authority?
    Call {
        /// The calling workload's name, as its connection proved.
        caller: &'a str,
        /// The called service's name.
        service: &'a str,
        /// The route, as the manifest writes it.
        route: &'a str,
        /// The person's authority.
        authority: Option<&'a Authority>,
    },
    /// May `service` call this destination outside on this authority?
    Egress {
        /// The calling service's name.
        service: &'a str,
        /// The destination's name in the manifest.
        destination: &'a str,
        /// The flow's method and path, as the manifest writes them.
        route: &'a str,
        /// The person's authority.
        authority: Option<&'a Authority>,
    },
    /// May `service` take what is delivered from this queue on this authority?
    Consume {
        /// The consuming service's name.
        service: &'a str,
        /// The queue.
        queue: &'a str,
        /// The job's authority.
        authority: Option<&'a Authority>,
    },
}

/// The policy engine of one view.
#[derive(Debug, Clone)]
pub struct Engine(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Policy(Arc<policy::Engine>),
    #[cfg(test)]
    Stub(Arc<dyn Decide>),
}

/// Answers in place of the engine, for tests of what comes before and after a decision.
#[cfg(test)]
pub trait Decide: Send + Sync + std::fmt::Debug + 'static {
    /// The answer.
    fn decide(&self, question: &Question<'_>) -> Decision;
}

impl Engine {
    /// Loads a view's slice; the engine checks it against its schema, the manifest's facts and every flow's example.
    ///
    /// # Errors
    /// What the engine did not believe.
    pub fn load(view: &View) -> Result<Self, String> {
        let slice: PolicySlice = serde_json::from_value(view.policy.clone()).map_err(|error| error.to_string())?;
        if slice.subject != view.subject.workload.name() || slice.manifest != view.manifest {
            return Err("the slice is another workload's or another manifest's".to_owned());
        }
        policy::Engine::load(&slice, view.epoch).map(|engine| Self(Inner::Policy(Arc::new(engine)))).map_err(|error| error.to_string())
    }

    /// An engine that permits whatever is declared, in the place of a view's. In a throw-away copy of a system alone.
    ///
    /// # Errors
    /// As `load`.
    pub(super) fn dangerous_open_to_all(view: &View) -> Result<Self, String> {
        let slice: PolicySlice = serde_json::from_value(view.policy.clone()).map_err(|error| error.to_string())?;
        let engine = policy::Engine::dangerous_open_to_all(&slice, view.epoch).map_err(|error| error.to_string())?;
        Ok(Self(Inner::Policy(Arc::new(engine))))
    }

    /// The view's policies without what keeps a job to its input and its folder. In a throw-away copy of a system alone.
    ///
    /// # Errors
    /// As `load`.
    pub(super) fn dangerous_without_jobs(view: &View) -> Result<Self, String> {
        Self::dangerous_with(view, policy::Engine::dangerous_without_jobs)
    }

    /// The view's policies without the quarantine. In a throw-away copy of a system alone.
    ///
    /// # Errors
    /// As `load`.
    pub(super) fn dangerous_without_quarantine(view: &View) -> Result<Self, String> {
        Self::dangerous_with(view, policy::Engine::dangerous_without_quarantine)
    }

    fn dangerous_with(view: &View, made: fn(PolicySlice, u64) -> Result<policy::Engine, policy::LoadError>) -> Result<Self, String> {
        let slice: PolicySlice = serde_json::from_value(view.policy.clone()).map_err(|error| error.to_string())?;
        made(slice, view.epoch).map(|engine| Self(Inner::Policy(Arc::new(engine)))).map_err(|error| error.to_string())
    }

    /// The same policies under a later epoch.
    #[must_use]
    pub fn under(&self, epoch: u64) -> Self {
        match &self.0 {
            Inner::Policy(engine) if engine.epoch() != epoch => Self(Inner::Policy(Arc::new(engine.under(epoch)))),
            _ => self.clone(),
        }
    }

    /// The answer, with the policies that gave it and the view's epoch.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        #[cfg(test)]
        if let Inner::Stub(stub) = &self.0 {
            return stub.decide(question);
        }
        let (caller, action, resource, authority) = match *question {
            Question::Enter { service, route, authority } => ("internet", Action::Enter, route_of(service, route), authority),
            Question::Call { caller, service, route, authority } => (caller, Action::Call, route_of(service, route), authority),
            Question::Egress { service, destination, route, authority } => {
                let (method, path) = route.split_once(' ').unwrap_or((route, ""));
                (service, Action::Egress, Resource::outside(destination, method, path), authority)
            }
            Question::Consume { service, queue, authority } => (service, Action::Consume, Resource::Queue(queue.to_owned()), authority),
        };
        self.policy().decide(&policy::Question { caller, action, resource: &resource, authority }).decision
    }

    /// The engine itself, for rooms that ask about objects, queues and planes.
    #[must_use]
    pub fn policy(&self) -> &Arc<policy::Engine> {
        match &self.0 {
            Inner::Policy(engine) => engine,
            #[cfg(test)]
            Inner::Stub(_) => panic!("a stub has no engine"),
        }
    }

    /// A stub.
    #[cfg(test)]
    pub fn stub(stub: impl Decide) -> Self {
        Self(Inner::Stub(Arc::new(stub)))
    }
}

fn route_of(service: &str, route: &str) -> Resource {
    let (method, path) = route.split_once(' ').unwrap_or((route, ""));
    Resource::route(service, method, path)
}

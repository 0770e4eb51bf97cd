//! Random commands against a small reference model, with crashes between them. (H1, H6, G10)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use http::StatusCode;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Command {
    Publish { id: u8, subject: u8 },
    Lease,
    Ack(u8),
    Nack(u8),
    Extend(u8),
    Wait(u16),
    Crash,
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (0..12_u8, 0..4_u8).prop_map(|(id, subject)| Command::Publish { id, subject }),
        5 => Just(Command::Lease),
        3 => (0..8_u8).prop_map(Command::Ack),
        3 => (0..8_u8).prop_map(Command::Nack),
        1 => (0..8_u8).prop_map(Command::Extend),
        1 => (0..40_000_u16).prop_map(Command::Wait),
        1 => Just(Command::Crash),
    ]
}

#[derive(Debug, Clone)]
struct Expected {
    id: u8,
    subject: Option<String>,
    attempts: u32,
    lease: Option<(String, u64)>,
    dead: bool,
}

/// What a queue is, in as few words as possible.
#[derive(Debug, Default)]
struct Model {
    messages: Vec<Expected>,
    seen: BTreeMap<u8, Option<String>>,
    leases: Vec<String>,
}

impl Model {
    fn expire(&mut self, now: u64) {
        for message in &mut self.messages {
            if message.lease.as_ref().is_some_and(|(_, until)| *until <= now) {
                message.lease = None;
                message.dead = message.attempts >= 3;
            }
        }
    }

    fn ready(&self) -> Option<usize> {
        let open = |m: &Expected| !m.dead;
        (0..self.messages.len()).find(|&at| {
            let message = &self.messages[at];
            let earlier = self.messages[..at].iter().any(|m| open(m) && m.subject.is_some() && m.subject == message.subject);
            open(message) && message.lease.is_none() && !earlier
        })
    }

    fn holder(&self, lease: &str, now: u64) -> Option<usize> {
        self.messages.iter().position(|m| m.lease.as_ref().is_some_and(|(l, until)| l == lease && *until > now))
    }
}

async fn run(commands: Vec<Command>) {
    let world = World::new();
    let mut queue = world.open().await;
    let mut model = Model::default();
    for command in commands {
        let now = world.clock.unix_ms();
        match command {
            Command::Publish { id, subject } => {
                let subject = (subject > 0).then(|| format!("originals/{subject}/original"));
                let response = upload(&queue, &event(&id.to_string(), subject.as_deref())).await;
                match model.seen.get(&id) {
                    None => {
                        assert!(!parsed::<Published>(response).await.duplicate);
                        model.seen.insert(id, subject.clone());
                        model.messages.push(Expected { id, subject, attempts: 0, lease: None, dead: false });
                    }
                    Some(before) if *before == subject => assert!(parsed::<Published>(response).await.duplicate),
                    Some(_) => assert_eq!(response.status(), StatusCode::CONFLICT),
                }
            }
            Command::Lease => {
                model.expire(now);
                let leased = lease(&queue, "uploaded", "validator").await;
                match (model.ready(), leased) {
                    (None, None) => {}
                    (Some(at), Some(leased)) => {
                        let message = &mut model.messages[at];
                        message.attempts += 1;
                        assert_eq!((leased.event.id, leased.attempt), (message.id.to_string(), message.attempts));
                        message.lease = Some((leased.lease.clone(), now + 30_000));
                        model.leases.push(leased.lease);
                    }
                    (expected, got) => panic!("expected {expected:?}, got {got:?}"),
                }
            }
            Command::Ack(n) | Command::Nack(n) | Command::Extend(n) => {
                let Some(lease) = model.leases.iter().rev().nth(usize::from(n)).cloned() else { continue };
                let held = model.holder(&lease, now);
                let (verb, good) = match command {
                    Command::Ack(_) => ("ack", StatusCode::NO_CONTENT),
                    Command::Nack(_) => ("nack", StatusCode::NO_CONTENT),
                    _ => ("extend", StatusCode::OK),
                };
                let status = on_lease(&queue, &lease, verb, "validator").await;
                assert_eq!(status, if held.is_some() { good } else { StatusCode::FORBIDDEN }, "{verb}");
                match (held, verb) {
                    (Some(at), "ack") => drop(model.messages.remove(at)),
                    (Some(at), "nack") => {
                        model.messages[at].lease = None;
                        model.messages[at].dead = model.messages[at].attempts >= 3;
                    }
                    (Some(at), _) => model.messages[at].lease = Some((lease.clone(), now + 30_000)),
                    (None, _) => {}
                }
                assert_eq!(alive(&queue, &lease).await, model.holder(&lease, now).is_some());
            }
            Command::Wait(ms) => world.clock.advance(ms.into()),
            Command::Crash => queue = world.open().await,
        }
    }
    model.expire(world.clock.unix_ms());
    let _ = lease(&queue, "status", "api").await;
    let dead: Vec<String> = model.messages.iter().filter(|m| m.dead).map(|m| m.id.to_string()).collect();
    // Late leases are given back by the next look at the queue.
    let taken = lease(&queue, "uploaded", "validator").await;
    assert_eq!(taken.map(|l| l.event.id), model.ready().map(|at| model.messages[at].id.to_string()));
    let letters: Vec<String> = queue.dead_letters("uploaded").await.unwrap().into_iter().map(|d| d.event_id).collect();
    assert_eq!(letters, dead);
    let open = stats(&queue, "uploaded").await;
    assert_eq!(open.waiting + open.in_flight, u64::try_from(model.messages.iter().filter(|m| !m.dead).count()).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_the_model(commands in proptest::collection::vec(command(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(commands));
    }
}

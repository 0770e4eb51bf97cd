//! Leases, pushes, order, restarts, tampering.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use http::StatusCode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;
use crate::Dispatcher;

fn dispatch(queue: &Queue) -> (UnboundedReceiver<Arrived>, JoinHandle<()>) {
    let (seen, arrivals) = unbounded_channel();
    (arrivals, tokio::spawn(Dispatcher::new(queue.clone(), Arc::new(Desk { seen })).run()))
}

async fn next(arrivals: &mut UnboundedReceiver<Arrived>) -> Arrived {
    tokio::time::timeout(Duration::from_secs(10), arrivals.recv()).await.expect("a delivery").unwrap()
}

async fn nothing_more(arrivals: &mut UnboundedReceiver<Arrived>) {
    assert!(tokio::time::timeout(Duration::from_millis(150), arrivals.recv()).await.is_err(), "no delivery was due");
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

// H1: an acknowledged message is forgotten for good; H5: its lease died before that; the token is narrowed.
#[tokio::test]
async fn a_push_carries_a_token_for_this_job_alone_and_an_answer_ends_it() {
    let world = World::new();
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    let published = uploaded(&queue, "1", Some("originals/v1/original")).await;
    let (leased, _, answer) = next(&mut arrivals).await;
    assert_eq!((&leased.job, leased.attempt), (&published.job, 1));
    assert!(alive(&queue, &leased.lease).await);
    let said = world.verifier().verify(leased.token.as_ref().unwrap(), &*world.clock).unwrap();
    assert_eq!((said.user.as_str(), said.purpose.as_str(), said.scopes.len(), said.step_up), ("ada", "process", 0, false));
    let job = said.job.unwrap();
    assert_eq!((job.id, job.lease, job.queue.as_str(), job.consumer.as_str()), (leased.job, leased.lease.clone(), "uploaded", "validator"));
    assert_eq!((job.inputs, job.folder.as_str()), (vec!["originals/v1/original".parse().unwrap()], "v1"));
    answer.send(Ok(204)).unwrap();
    until("the lease has ended", async || !alive(&queue, &leased.lease).await).await;
    until("the message is forgotten", async || stats(&queue, "uploaded").await.in_flight == 0).await;
    let queue = world.open().await;
    assert_eq!(stats(&queue, "uploaded").await.waiting, 0);
}

// H1, H4, H5: where the manifest says so, a dead letter is told, with its subject and authority, narrowed to whoever hears of it.
#[tokio::test]
async fn a_dead_letter_is_told_to_whom_the_manifest_says() {
    let world = World::new();
    {
        let mut held = world.book.0.lock().unwrap();
        let mut rules = crate::Rulebook::clone(held.as_ref().unwrap());
        rules.queues.get_mut("uploaded").unwrap().dead_letters_to = Some("status".into());
        *held = Ok(Arc::new(rules));
    }
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    for (id, statuses) in [("hopeless", vec![422]), ("poison", vec![500, 500, 500])] {
        uploaded(&queue, id, Some("originals/v1/original")).await;
        for status in statuses {
            let (leased, _, answer) = next(&mut arrivals).await;
            assert_eq!(leased.event.id, id);
            answer.send(Ok(status)).unwrap();
        }
        let (told, _, answer) = next(&mut arrivals).await;
        assert_eq!((told.event.kind.as_str(), told.event.subject.as_deref()), ("queue.dead_letter", Some("originals/v1/original")));
        assert_eq!((told.event.source.as_str(), &told.publisher), ("/queues/uploaded", &role("queue")));
        let data: contract::queue::DeadLettered = serde_json::from_slice(&told.event.data).unwrap();
        assert_eq!((data.queue.as_str(), data.kind.as_str(), data.id.as_str()), ("uploaded", "test.event", id));
        assert!(!data.reason.is_empty());
        let said = world.verifier().verify(told.token.as_ref().unwrap(), &*world.clock).unwrap();
        let job = said.job.unwrap();
        assert_eq!((said.user.as_str(), job.consumer.as_str(), job.queue.as_str()), ("ada", "api", "status"));
        assert_eq!(job.inputs, vec!["originals/v1/original".parse().unwrap()]);
        answer.send(Ok(204)).unwrap();
    }
    nothing_more(&mut arrivals).await;
}

// H1: statuses decide; 400 and 422 are dead letters with the reason; others are tried again up to attempts_max.
#[tokio::test]
async fn answers_decide_what_becomes_of_a_message() {
    let world = World::new();
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    for status in [400, 422] {
        uploaded(&queue, &status.to_string(), None).await;
        next(&mut arrivals).await.2.send(Ok(status)).unwrap();
    }
    until("two dead letters", async || stats(&queue, "uploaded").await.dead == 2).await;
    uploaded(&queue, "poison", None).await;
    for attempt in 1..=3 {
        let (leased, _, answer) = next(&mut arrivals).await;
        assert_eq!((leased.event.id.as_str(), leased.attempt), ("poison", attempt));
        answer.send(if attempt == 2 { Ok(500) } else { Err(Fault::timed_out("no answer")) }).unwrap();
    }
    until("a third dead letter", async || stats(&queue, "uploaded").await.dead == 3).await;
    nothing_more(&mut arrivals).await;
    let dead = queue.dead_letters("uploaded").await.unwrap();
    let reasons: Vec<_> = dead.iter().map(|d| (d.event_id.as_str(), d.reason.as_str())).collect();
    assert_eq!(reasons[..2], [("400", "the consumer answered 400"), ("422", "the consumer answered 422")]);
    assert!(reasons[2].1.contains("3 deliveries failed"), "{}", reasons[2].1);
    assert_eq!(world.recorded("ActDone").iter().filter(|e| e["act"] == "queue.dead_letter").count(), 3);
}

// A consumer that is down, or says "not now", loses no message by it.
#[tokio::test]
async fn a_consumer_that_cannot_be_reached_makes_no_dead_letter() {
    let world = World::new();
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    uploaded(&queue, "1", None).await;
    for round in 0..12 {
        next(&mut arrivals).await.2.send(if round % 2 == 0 { Err(Fault::unavailable("refused")) } else { Ok(503) }).unwrap();
    }
    next(&mut arrivals).await.2.send(Ok(200)).unwrap();
    until("done", async || stats(&queue, "uploaded").await.in_flight == 0).await;
    assert_eq!(stats(&queue, "uploaded").await.dead, 0);
}

// H1: a consumer that breaks off in the middle may have been broken by the message: that counts as an attempt, unlike one that nobody
// could reach.
#[tokio::test]
async fn a_message_that_breaks_its_consumer_is_a_dead_letter_after_its_attempts() {
    let world = World::new();
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    uploaded(&queue, "poison", None).await;
    for answer in [Err(Fault::broken("it broke off")), Err(Fault::unavailable("nobody")), Ok(502), Err(Fault::broken("it broke off"))] {
        assert_eq!(stats(&queue, "uploaded").await.dead, 0);
        next(&mut arrivals).await.2.send(answer).unwrap();
    }
    until("a dead letter", async || stats(&queue, "uploaded").await.dead == 1).await;
    nothing_more(&mut arrivals).await;
    let reason = &queue.dead_letters("uploaded").await.unwrap()[0].reason;
    assert!(reason.starts_with("3 deliveries failed, 1 did not reach the consumer"), "{reason}");
}

// The dispatcher sleeps until something happens: a message that waits for its time, or a pull lease that runs out, wakes it, however long
// it would sleep.
#[tokio::test]
async fn what_becomes_due_wakes_the_dispatcher() {
    let world = World::new();
    let queue = world.open().await;
    assert_eq!(queue.log.next_due_ms(world.clock.unix_ms()).await.unwrap(), None, "nothing to wake for");
    uploaded(&queue, "1", None).await;
    let leased = lease(&queue, "uploaded", "validator").await.unwrap();
    let ends = world.clock.unix_ms() + 30_000;
    assert_eq!(queue.log.next_due_ms(world.clock.unix_ms()).await.unwrap(), Some(ends));
    assert_eq!(queue.log.next_due_ms(ends).await.unwrap(), None);
    world.edit("uploaded", |p| (p.backoff_ms, p.backoff_ms_max) = (8_000, 8_000));
    assert_eq!(on_lease(&queue, &leased.lease, "nack", "validator").await, StatusCode::NO_CONTENT);
    let due = queue.log.next_due_ms(world.clock.unix_ms()).await.unwrap().unwrap() - world.clock.unix_ms();
    assert!((4_000..=8_000).contains(&due), "{due}");
    let (mut arrivals, _run) = dispatch(&queue);
    nothing_more(&mut arrivals).await;
    world.clock.advance(8_001);
    queue.stir();
    assert_eq!(next(&mut arrivals).await.0.attempt, 2);
}

// G10, H1: per subject one at a time and in order; other subjects are not held up; at most in_flight_max at once.
#[tokio::test]
async fn messages_about_one_object_come_one_after_the_other() {
    let world = World::new();
    world.edit("uploaded", |p| p.in_flight_max = 2);
    let queue = world.open().await;
    for (id, subject) in
        [("a1", "originals/a/original"), ("a2", "originals/a/original"), ("b1", "originals/b/original"), ("c1", "originals/c/original")]
    {
        uploaded(&queue, id, Some(subject)).await;
    }
    let (mut arrivals, _run) = dispatch(&queue);
    let (first, second) = (next(&mut arrivals).await, next(&mut arrivals).await);
    assert_eq!((first.0.event.id.as_str(), second.0.event.id.as_str()), ("a1", "b1"));
    nothing_more(&mut arrivals).await;
    first.2.send(Ok(500)).unwrap();
    let retried = next(&mut arrivals).await;
    assert_eq!(retried.0.event.id, "a1", "a failed message keeps its place");
    retried.2.send(Ok(200)).unwrap();
    let third = next(&mut arrivals).await;
    assert_eq!(third.0.event.id, "a2");
    second.2.send(Ok(200)).unwrap();
    assert_eq!(next(&mut arrivals).await.0.event.id, "c1");
}

// H1, H5: kill -9 of the queue voids every push lease, redelivers at once, and counts nothing.
#[tokio::test]
async fn a_killed_queue_redelivers_at_once_and_makes_no_dead_letters() {
    let world = World::new();
    world.edit("uploaded", |p| (p.backoff_ms, p.backoff_ms_max) = (3_600_000, 3_600_000));
    let published = uploaded(&world.open().await, "1", Some("originals/v/original")).await;
    let mut old: Vec<String> = Vec::new();
    for _ in 0..8 {
        let queue = world.open().await;
        for lease in &old {
            assert!(!alive(&queue, lease).await, "a lease of a dead process lives");
        }
        let (mut arrivals, run) = dispatch(&queue);
        let (leased, _, _answer) = next(&mut arrivals).await;
        assert_eq!((&leased.job, leased.attempt), (&published.job, 1));
        old.push(leased.lease);
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
    }
    assert_eq!(stats(&world.open().await, "uploaded").await.dead, 0);
}

// H5: a delivery that takes too long loses its authority.
#[tokio::test]
async fn a_late_delivery_loses_its_lease() {
    let world = World::new();
    world.edit("uploaded", |p| p.lease_s = 1);
    let queue = world.open().await;
    let (mut arrivals, _run) = dispatch(&queue);
    uploaded(&queue, "1", None).await;
    let (leased, _, _held) = next(&mut arrivals).await;
    let (again, _, _also_held) = next(&mut arrivals).await;
    assert_eq!((again.job == leased.job, again.attempt), (true, 2));
    assert!(!alive(&queue, &leased.lease).await && alive(&queue, &again.lease).await);
}

// H1, H5: pull consumers: extension, expiry, and words that come too late.
#[tokio::test]
async fn a_pull_lease_lives_until_its_time_and_no_longer() {
    let world = World::new();
    let queue = world.open().await;
    uploaded(&queue, "1", None).await;
    let first = lease(&queue, "uploaded", "validator").await.unwrap();
    assert!(lease(&queue, "uploaded", "validator").await.is_none(), "one message, one lease");
    world.clock.advance(29_000);
    assert_eq!(on_lease(&queue, &first.lease, "extend", "validator").await, StatusCode::OK);
    world.clock.advance(29_000);
    assert!(alive(&queue, &first.lease).await);
    world.clock.advance(1_001);
    assert!(!alive(&queue, &first.lease).await);
    for verb in ["ack", "nack", "extend"] {
        assert_eq!(on_lease(&queue, &first.lease, verb, "validator").await, StatusCode::FORBIDDEN, "{verb}");
    }
    let second = lease(&queue, "uploaded", "validator").await.unwrap();
    assert_eq!((second.job == first.job, second.attempt), (true, 2));
    assert_eq!(on_lease(&queue, &first.lease, "ack", "validator").await, StatusCode::FORBIDDEN, "the old hand cannot end the new one's");
    assert_eq!(on_lease(&queue, &second.lease, "nack", "validator").await, StatusCode::NO_CONTENT);
    assert!(!alive(&queue, &second.lease).await);
    let third = lease(&queue, "uploaded", "validator").await.unwrap();
    assert_eq!(on_lease(&queue, &third.lease, "ack", "validator").await, StatusCode::NO_CONTENT);
    assert!(lease(&queue, "uploaded", "validator").await.is_none());
}

// H4: whatever of a stored message is changed is found, and nothing of it is delivered.
#[tokio::test]
async fn a_message_that_was_edited_on_the_disk_is_found() {
    let edits = [
        "UPDATE message SET data = X'00'",
        "UPDATE message SET authority = replace(authority, 'ada', 'eve')",
        "UPDATE message SET authority = NULL",
        "UPDATE message SET publisher = 'spiffe://video.example/service/api'",
        "UPDATE message SET subject = 'originals/w/original'",
        "UPDATE message SET queue = 'uploaded', kind = 'other'",
        "UPDATE message SET event_id = 'other'",
        "UPDATE message SET data = X'00', digest = 'sha256:6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'",
    ];
    for edit in edits {
        let world = World::new();
        uploaded(&world.open().await, "1", Some("originals/v/original")).await;
        tamper(world.folder.path(), edit).await;
        let queue = world.open().await;
        assert!(lease(&queue, "uploaded", "validator").await.is_none(), "{edit}");
        assert_eq!(world.recorded("TamperingFound").len(), 1, "{edit}");
        assert!(queue.dead_letters("uploaded").await.unwrap()[0].reason.starts_with("tampered"), "{edit}");
    }
    // Two whole authorities swapped between two genuine messages.
    let world = World::new();
    let queue = world.open().await;
    uploaded(&queue, "1", None).await;
    let api = Authority { user: "eve".into(), ..person() };
    let response = queue.call(caller(service("api"), Some(api)), publish_request("uploaded", &event("2", None))).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let swap = "CREATE TEMP TABLE before AS SELECT seq, authority FROM message;
        UPDATE message SET authority = (SELECT authority FROM before WHERE before.seq = 3 - message.seq)";
    tamper(world.folder.path(), swap).await;
    assert!(lease(&queue, "uploaded", "validator").await.is_none());
    assert_eq!(stats(&queue, "uploaded").await.dead, 2);
}

// H8: one trace from the publisher through the queue to the consumer.
#[tokio::test]
async fn a_delivery_continues_the_publishers_trace() {
    let world = World::new();
    let queue = world.open().await;
    let from = caller(service("api"), Some(person()));
    let trace = from.trace;
    assert_eq!(queue.call(from, publish_request("uploaded", &event("1", None))).await.status(), StatusCode::ACCEPTED);
    let (mut arrivals, _run) = dispatch(&queue);
    let (_, given, answer) = next(&mut arrivals).await;
    let given = given.unwrap();
    assert_eq!(given.trace_id, trace.trace_id);
    answer.send(Ok(200)).unwrap();
    until("the span is kept", async || !world.sink.spans.lock().unwrap().is_empty()).await;
    let span = world.sink.spans.lock().unwrap()[0].clone();
    assert_eq!((span.trace, span.parent, span.span), (trace.trace_hex(), trace.span_hex(), given.span_hex()));
}

#[tokio::test]
async fn pauses_double_up_to_the_cap_and_are_spread() {
    let mut p = profile("validator");
    (p.backoff_ms, p.backoff_ms_max) = (100, 1_000);
    for (deliveries, whole) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (60, 1_000), (u32::MAX, 1_000)] {
        let drawn: Vec<u64> = (0..200).map(|_| crate::backoff::pause_ms(&p, deliveries, &SystemEntropy)).collect();
        assert!(drawn.iter().all(|ms| (whole / 2..=whole).contains(ms)), "{deliveries}: {drawn:?}");
        assert!(drawn.iter().collect::<BTreeSet<_>>().len() > 10);
    }
    let world = World::new();
    world.edit("uploaded", |p| (p.backoff_ms, p.backoff_ms_max) = (1_000, 8_000));
    let queue = world.open().await;
    uploaded(&queue, "1", None).await;
    let first = lease(&queue, "uploaded", "validator").await.unwrap();
    assert_eq!(on_lease(&queue, &first.lease, "nack", "validator").await, StatusCode::NO_CONTENT);
    world.clock.advance(499);
    assert!(lease(&queue, "uploaded", "validator").await.is_none());
    world.clock.advance(502);
    assert!(lease(&queue, "uploaded", "validator").await.is_some());
}

/// Lets `future` be polled `polls` times, then drops it where it stands; gives its answer if it came to one.
async fn cut_off<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if let Some(answer) = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(answer) => Some(answer),
                std::task::Poll::Pending => None,
            })
        })
        .await
        {
            return Some(answer);
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    None
}

// H1, H6: publishing, leasing and acknowledging, each cut off after every step, then a fresh process and the same again: the message
// is there once, and once acknowledged it is gone.
#[tokio::test]
async fn cut_off_anywhere_nothing_is_lost_or_doubled() {
    let (mut whole, mut cut) = (0, 0);
    for polls in 1..40 {
        let world = World::new();
        let queue = world.open().await;
        let acknowledged = cut_off(upload(&queue, &event("1", None)), polls).await.is_some();
        drop(queue);
        let queue = world.open().await;
        let again = uploaded(&queue, "1", None).await;
        assert!(again.duplicate || !acknowledged, "an acknowledged message was lost after {polls} steps");
        assert_eq!(stats(&queue, "uploaded").await.waiting, 1, "{polls}");
        let _ = cut_off(lease(&queue, "uploaded", "validator"), polls).await;
        drop(queue);
        let queue = world.open().await;
        world.clock.advance(30_001);
        let leased = lease(&queue, "uploaded", "validator").await.expect("the message is still there");
        assert_eq!(leased.job, again.job);
        let acknowledged = cut_off(on_lease(&queue, &leased.lease, "ack", "validator"), polls).await;
        drop(queue);
        let queue = world.open().await;
        let figures = stats(&queue, "uploaded").await;
        match acknowledged {
            Some(status) => {
                assert_eq!((status, figures.waiting, figures.in_flight), (StatusCode::NO_CONTENT, 0, 0), "{polls}");
                whole += 1;
            }
            None => {
                assert!(figures.in_flight <= 1 && figures.waiting == 0 && figures.dead == 0, "{polls}: {figures:?}");
                cut += 1;
            }
        }
    }
    assert!(whole > 0 && cut > 0, "both happened: {whole} whole, {cut} cut off");
}

// A queue without a signing key, or without rules, holds its messages and counts nothing against them.
#[tokio::test]
async fn without_a_key_or_rules_messages_wait() {
    let world = World::new();
    let queue = world.open().await;
    uploaded(&queue, "1", Some("originals/v/original")).await;
    let key = world.mint.0.lock().unwrap().take();
    let (mut arrivals, _run) = dispatch(&queue);
    nothing_more(&mut arrivals).await;
    let rules = std::mem::replace(&mut *world.book.0.lock().unwrap(), Err(DenyReason::ViewStale));
    *world.mint.0.lock().unwrap() = key;
    tokio::time::sleep(Duration::from_millis(600)).await;
    nothing_more(&mut arrivals).await;
    *world.book.0.lock().unwrap() = rules;
    assert_eq!(next(&mut arrivals).await.0.attempt, 1);
}

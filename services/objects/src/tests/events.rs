//! Events of created objects. (G10)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use contract::objects::ObjectCreated;

use super::*;
use crate::Messenger;

async fn published(world: &World, count: usize) -> Vec<(Event, Authority)> {
    for _ in 0..1000 {
        let now = world.queue.published.lock().unwrap().clone();
        if now.len() >= count {
            return now;
        }
        world.clock.advance(1_000);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} events were expected, {} came", world.queue.published.lock().unwrap().len());
}

// G10: on the authority of whoever asked for the URL; at least once, however often queue or store fail.
#[tokio::test]
async fn a_created_object_is_told_whatever_fails() {
    let world = World::new();
    let objects = world.open().await;
    world.queue.failures.store(3, Ordering::SeqCst);
    let run = tokio::spawn(Messenger::new(objects.clone()).run());
    upload(&objects, "v1/original", 7).await;
    let told = published(&world, 1).await;
    let (event, authority) = &told[0];
    assert_eq!((event.kind.as_str(), event.subject.as_deref()), ("object.created", Some("originals/v1/original")));
    assert_eq!((authority.user.as_str(), authority.purpose.as_str()), ("ada", "upload"));
    let data: ObjectCreated = serde_json::from_slice(&event.data).unwrap();
    assert_eq!((data.size, data.content_type.as_str(), data.key.as_str()), (7, "video/mp4", "v1/original"));
    // Until it is noted as told, a messenger that ends leaves it to be told again.
    while !objects.shelf.ledger.due_notes(u64::MAX >> 1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    run.abort();
    let _ = run.await;
    // Stored while no messenger lives; told by the next process, and not a second time.
    upload(&objects, "v2/original", 8).await;
    let objects = world.open().await;
    let run = tokio::spawn(Messenger::new(objects).run());
    let told = published(&world, 2).await;
    assert_eq!(told[1].0.subject.as_deref(), Some("originals/v2/original"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.queue.published.lock().unwrap().len(), 2);
    run.abort();
}

// G10: in order for each object; an id is the same however often it is told, and another for other bytes.
#[tokio::test]
async fn events_of_one_object_come_in_order() {
    let world = World::new();
    world.edit("files", |b| b.created_queue = Some("uploaded".into()));
    let objects = world.open().await;
    let mut etags = Vec::new();
    for n in 0..6 {
        let stored = put(&objects, &filer(), "/files/a/b", "text/plain", format!("version {n}")).await;
        etags.push(stored.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned());
    }
    world.queue.failures.store(4, Ordering::SeqCst);
    let run = tokio::spawn(Messenger::new(objects).run());
    let told = published(&world, 6).await;
    let seen: Vec<String> = told.iter().map(|(e, _)| serde_json::from_slice::<ObjectCreated>(&e.data).unwrap().etag).collect();
    assert_eq!(seen, etags);
    assert_eq!(told.iter().map(|(e, _)| &e.id).collect::<BTreeSet<_>>().len(), 6);
    run.abort();
}

// H3, H4: an event whose authority was changed on the disk is found and not told.
#[tokio::test]
async fn an_edited_event_is_not_told() {
    let world = World::new();
    let objects = world.open().await;
    upload(&objects, "v1/original", 7).await;
    tamper(&world, "UPDATE outbox SET authority = replace(authority, 'ada', 'eve')").await;
    upload(&objects, "v2/original", 8).await;
    let run = tokio::spawn(Messenger::new(objects).run());
    let told = published(&world, 1).await;
    assert_eq!(told[0].0.subject.as_deref(), Some("originals/v2/original"));
    assert_eq!(world.recorded("TamperingFound"), 1);
    run.abort();
}

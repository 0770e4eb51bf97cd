//! Views: only `control`'s, only ours, only newer, only fresh.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::control::SignedView;
use contract::{Body, Transport, body};
use http::{Request, Response, StatusCode};
use http_body_util::channel::Channel;
use trust::{Clock, DenyReason, Fault};

use super::world::{World, sign_as};
use crate::passage::Passage;
use crate::view::{ViewHolder, ViewRefused, subscribe};

// E16
#[tokio::test]
async fn views_that_are_tampered_foreign_or_rolled_back_are_refused() {
    let world = World::new();
    let back = world.identity("back");
    let holder = ViewHolder::open(Arc::clone(&back), world.recorder.clone(), None);
    assert_eq!(holder.fresh().err(), Some(DenyReason::ViewStale));
    let view = world.back_view();
    let good = world.sign(&view);

    let parts: Vec<&str> = good.view.split('.').collect();
    let mut loosened = view.clone();
    loosened.callers.insert(world.service("stranger"));
    let others: Vec<String> = world.sign(&loosened).view.split('.').map(str::to_owned).collect();
    let spliced = SignedView { view: format!("{}.{}.{}", parts[0], others[1], parts[2]) };
    assert!(matches!(holder.accept(&spliced), Err(ViewRefused::NotControls)), "another payload under this signature");
    assert!(matches!(holder.accept(&sign_as(&world.edge, &view)), Err(ViewRefused::NotControls)), "another role's signature");
    let other = super::world::TestCa::new("pair.example");
    let forger = other.identity(&other.domain.role("control"), world.clock.clone());
    assert!(matches!(holder.accept(&sign_as(&forger, &view)), Err(ViewRefused::NotControls)), "another authority's control");
    let (key, _) = world.control.signing_key_and_chain();
    let bare = SignedView { view: key.sign(contract::control::VIEW_TYP, &[], &view).unwrap() };
    assert!(matches!(holder.accept(&bare), Err(ViewRefused::NotControls)), "no chain");
    let typed = SignedView { view: key.sign("jwt", &world.control.signing_key_and_chain().1, &view).unwrap() };
    assert!(matches!(holder.accept(&typed), Err(ViewRefused::NotControls)), "another type");
    let mut foreign = world.view(&world.service("front"));
    foreign.epoch = 9;
    assert!(matches!(holder.accept(&world.sign(&foreign)), Err(ViewRefused::Foreign(_))));
    let mut early = view.clone();
    early.issued_at_ms = world.clock.unix_ms() + 60_000;
    assert!(matches!(holder.accept(&world.sign(&early)), Err(ViewRefused::FromTheFuture)));
    let mut broken = view.clone();
    broken.policy = serde_json::json!({});
    assert!(matches!(holder.accept(&world.sign(&broken)), Err(ViewRefused::Unusable(_))));
    let mut borrowed = view.clone();
    borrowed.policy = foreign.policy.clone();
    assert!(matches!(holder.accept(&world.sign(&borrowed)), Err(ViewRefused::Unusable(_))), "another workload's policies");
    assert!(holder.last().is_none(), "none of these was taken");

    holder.accept(&good).unwrap();
    holder.accept(&good).unwrap();
    let mut older = view.clone();
    older.epoch = 6;
    assert!(matches!(holder.accept(&world.sign(&older)), Err(ViewRefused::RolledBack { epoch: 6, seen: 7 })));
    let mut replayed = view.clone();
    replayed.issued_at_ms -= 1;
    assert!(matches!(holder.accept(&world.sign(&replayed)), Err(ViewRefused::RolledBack { .. })));
    assert_eq!(holder.fresh().unwrap().view.epoch, 7);
}

// E16: what renews a view costs no loading, and decisions say under which epoch they were made.
#[tokio::test]
async fn a_view_with_the_slice_in_force_is_taken_without_loading_it_again() {
    let world = World::new();
    let mut view = world.back_view();
    let holder = world.holder(&world.identity("back"), &view);
    let first = Arc::clone(holder.fresh().unwrap().engine.policy());
    view.issued_at_ms += 1_000;
    holder.accept(&world.sign(&view)).unwrap();
    assert!(Arc::ptr_eq(&first, holder.fresh().unwrap().engine.policy()), "renewed: the same engine");
    view.epoch = 8;
    holder.accept(&world.sign(&view)).unwrap();
    let question = crate::view::Question::Consume { service: "back", queue: "nowhere", authority: None };
    let decision = holder.fresh().unwrap().engine.decide(&question);
    assert!(matches!(decision, trust::Decision::Deny { epoch: 8, .. }), "{decision:?}");
    // The same slice under another manifest, and another slice, are looked at anew.
    let mut moved = view.clone();
    moved.manifest = trust::Digest::of(b"another manifest");
    assert!(matches!(holder.accept(&world.sign(&moved)), Err(ViewRefused::Unusable(_))));
    let mut changed = view.clone();
    changed.policy["schema"] = serde_json::json!("entity Nothing;");
    assert!(matches!(holder.accept(&world.sign(&changed)), Err(ViewRefused::Unusable(_))));
    assert_eq!(holder.fresh().unwrap().view.epoch, 8);
}

// E17: also against a wall clock that is set back.
#[tokio::test]
async fn a_view_past_its_age_is_stale_whatever_the_wall_clock_says() {
    let world = World::new();
    let holder = world.holder(&world.identity("back"), &world.back_view());
    world.clock.advance(299);
    assert!(holder.fresh().is_ok());
    world.clock.advance(2);
    assert_eq!(holder.fresh().err(), Some(DenyReason::ViewStale));
    world.clock.set_wall_back(1000);
    assert_eq!(holder.fresh().err(), Some(DenyReason::ViewStale), "setting the wall clock back makes no view younger");
    world.clock.set_wall_back(-1000);
    let renewed = world.back_view();
    holder.accept(&world.sign(&renewed)).unwrap();
    assert!(holder.fresh().is_ok());
    // An old view that comes late is as old as it says.
    let late = World::new();
    let mut view = late.back_view();
    view.issued_at_ms -= 301_000;
    let holder = late.holder(&late.identity("back"), &view);
    assert_eq!(holder.fresh().err(), Some(DenyReason::ViewStale));
}

// Issue point 9: one byte of the kept view.
#[tokio::test]
async fn a_kept_view_is_used_after_a_restart_and_an_edited_one_is_found() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    let back = world.identity("back");
    let open = || ViewHolder::open(Arc::clone(&back), world.recorder.clone(), Some(path.clone()));
    open().accept(&world.sign(&world.back_view())).unwrap();
    assert_eq!(open().fresh().unwrap().view.epoch, 7);
    assert!(!world.sink.audit.lock().unwrap().iter().any(|record| record.event == "TamperingFound"));

    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    std::fs::write(&path, bytes).unwrap();
    assert!(open().last().is_none());
    assert!(world.saw("TamperingFound", "view").await);
}

// C12: revocations are never forgotten, also when an older view comes with a restart.
#[tokio::test]
async fn a_revocation_survives_a_view_without_it() {
    let world = World::new();
    let back = world.identity("back");
    let mut view = world.back_view();
    view.revoked = vec![contract::identity::Revocation { spiffe_id: world.service("front"), before_s: world.clock.unix_s() }];
    let holder = world.holder(&back, &view);
    view.revoked.clear();
    view.epoch += 1;
    holder.accept(&world.sign(&view)).unwrap();
    let front = world.identity("front");
    let svid = crate::bundle::PeerSvid { id: front.id().clone(), not_before_s: front.life_s().0, not_after_s: front.life_s().1 };
    assert_eq!(back.bundle().still_good(&svid), Err(DenyReason::SvidRevoked));
}

/// `control`: pulls answer the first view, the stream brings the second and then breaks.
#[derive(Debug)]
struct Control(SignedView, SignedView, std::sync::atomic::AtomicUsize);

#[async_trait]
impl Transport for Control {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let asked = self.2.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if asked == 0 {
            return Err(Fault::unavailable("control is away"));
        }
        if request.uri().path() == "/view" {
            return Ok(body::json(StatusCode::OK, &self.0));
        }
        let (mut sender, channel) = Channel::<bytes::Bytes, contract::BoxError>::new(4);
        let line = serde_json::to_string(&self.1).unwrap();
        tokio::spawn(async move {
            // In pieces, with empty lines that keep the connection alive between.
            let (first, second) = line.split_at(100);
            for piece in ["\n", first, second, "\n", "\n"] {
                let _sent = sender.send_data(bytes::Bytes::copy_from_slice(piece.as_bytes())).await;
            }
        });
        Ok(Response::new(Passage::new(channel).into_body()))
    }
}

// E16: push and pull, and control may be away at first.
#[tokio::test]
async fn views_come_by_pull_and_by_stream() {
    let world = World::new();
    let back = world.identity("back");
    let holder = ViewHolder::open(back, world.recorder.clone(), None);
    let first = world.back_view();
    let mut second = first.clone();
    second.epoch = 8;
    let control = Arc::new(Control(world.sign(&first), world.sign(&second), Default::default()));
    let mut changed = holder.changed();
    let subscription = tokio::spawn(subscribe(Arc::clone(&holder), control.clone(), trust::SystemEntropy::shared(), world.stop.clone()));
    while *changed.borrow_and_update() < 8 {
        tokio::time::timeout(Duration::from_secs(5), changed.changed()).await.unwrap().unwrap();
    }
    // The stream broke; the pull brings an older view, which is not taken and not an attack.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(holder.fresh().unwrap().view.epoch, 8);
    assert!(control.2.load(std::sync::atomic::Ordering::SeqCst) >= 5, "it asks again");
    assert!(!world.sink.audit.lock().unwrap().iter().any(|record| record.event == "TamperingFound"));
    world.stop.cancel();
    subscription.await.unwrap();
}

/// `control`: answers with these in turn, a stream with one line and its end; then it is away.
#[derive(Debug)]
struct Script {
    answers: std::sync::Mutex<std::collections::VecDeque<String>>,
    asked: std::sync::Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        self.asked.lock().unwrap().push(request.uri().to_string());
        let answer = self.answers.lock().unwrap().pop_front().ok_or_else(|| Fault::unavailable("control is away"))?;
        Ok(body::with_type(StatusCode::OK, "application/json", answer + "\n"))
    }
}

// E16: a change is put together and verified as the whole; one that was edited, or is on another view, puts nothing in force, and the
// whole is asked for.
#[tokio::test]
async fn a_change_is_verified_as_the_whole_view_and_never_instead_of_it() {
    use contract::delta::{Piece, ViewDelta, digest_of};
    let world = World::new();
    let signed = |epoch: u64| world.sign(&contract::control::View { epoch, ..world.back_view() });
    let [seventh, eighth, ninth, tenth] = [7, 8, 9, 10].map(signed);
    let good = ViewDelta::between(&seventh, &eighth).unwrap();
    let mut edited = ViewDelta::between(&eighth, &ninth).unwrap();
    let epoch_of = |piece: &&mut Piece| matches!(piece, Piece::New(text) if text.contains("\"epoch\":9"));
    let Some(Piece::New(text)) = edited.payload.iter_mut().find(epoch_of) else { panic!("no new epoch") };
    *text = text.replace("\"epoch\":9", "\"epoch\":99");
    let foreign = ViewDelta::between(&ninth, &tenth).unwrap();
    let change = |delta: &ViewDelta| serde_json::json!({ "delta": delta }).to_string();
    let whole = |signed: &SignedView| serde_json::to_string(signed).unwrap();
    let answers = [whole(&seventh), change(&good), change(&edited), change(&foreign), whole(&tenth)];
    let control = Arc::new(Script { answers: std::sync::Mutex::new(answers.into()), asked: std::sync::Mutex::default() });
    let holder = ViewHolder::open(world.identity("back"), world.recorder.clone(), None);
    let (entropy, until) = (trust::SystemEntropy::shared(), world.stop.clone());
    let subscribed = tokio::spawn(subscribe(Arc::clone(&holder), Arc::clone(&control) as _, entropy, until));
    let mut seen = holder.changed();
    let mut epochs = Vec::new();
    while epochs.last() != Some(&10) {
        tokio::time::timeout(Duration::from_secs(60), seen.changed()).await.unwrap().unwrap();
        epochs.push(*seen.borrow_and_update());
    }
    assert!(epochs.iter().all(|epoch| [7, 8, 10].contains(epoch)), "never 9, never 99: {epochs:?}");
    assert!(world.saw("TamperingFound", "view").await, "and the edited change was told");
    let asked = control.asked.lock().unwrap().clone();
    let held = |path: &str, view: &SignedView| format!("{path}?held={}", digest_of(view));
    let expected =
        ["/view".to_owned(), held("/view/stream", &seventh), held("/view", &eighth), "/view/stream".to_owned(), "/view".to_owned()];
    assert_eq!(asked[..5], expected);
    world.stop.cancel();
    subscribed.await.unwrap();
}

// C9, B20: tokens are signed with a key that verifiers have.
#[tokio::test]
async fn tokens_are_minted_with_the_newest_key_that_the_view_knows() {
    let world = World::new();
    let before = world.view(world.edge.id());
    let known = contract::txn_token::Verifier::new(world.ca.domain.clone(), &before.authority_keys);
    let old = world.edge.signing_key().kid().to_owned();
    world.ca.renew(&world.edge);
    assert_ne!(world.edge.signing_key().kid(), old);
    assert_eq!(world.edge.minter(&known).unwrap().key.kid(), old, "nobody knows the new key yet");
    let mut both = world.view(world.edge.id()).authority_keys;
    both.extend(before.authority_keys.clone());
    let after = contract::txn_token::Verifier::new(world.ca.domain.clone(), &both);
    assert_eq!(world.edge.minter(&after).unwrap().key.kid(), old, "another's view may be older than ours");
    world.clock.advance(299);
    assert_eq!(world.edge.minter(&after).unwrap().key.kid(), old);
    world.clock.advance(2);
    assert_eq!(world.edge.minter(&after).unwrap().key.kid(), world.edge.signing_key().kid(), "no view without it is in force");
    let alone = contract::txn_token::Verifier::new(world.ca.domain.clone(), &world.view(world.edge.id()).authority_keys);
    world.ca.renew(&world.edge);
    assert!(world.edge.minter(&alone).is_some(), "whatever is known is better than nothing");
    let nobody = contract::txn_token::Verifier::new(world.ca.domain.clone(), &[]);
    assert!(world.edge.minter(&nobody).is_none());
}

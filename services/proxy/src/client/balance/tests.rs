//! Choosing, leaving out, coming back, and the budget, at times that are given.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use http::StatusCode;

use super::*;

fn addresses(count: u16) -> Vec<String> {
    (1..=count).map(|port| format!("127.0.0.1:{port}")).collect()
}

fn at(balance: &Balance, count: u16, among: Among, now: Instant) -> Load {
    balance.choose(&balance.at(&addresses(count)), &[], among, now).unwrap().0
}

fn chosen(balance: &Balance, count: u16, among: Among) -> Load {
    at(balance, count, among, Instant::now())
}

fn port(load: &Load) -> u16 {
    load.endpoint().address.port()
}

// A15
#[test]
fn the_replica_with_the_fewest_requests_under_way_is_chosen() {
    let balance = Balance::new(100);
    let mut held: Vec<Load> = (0..9).map(|_| chosen(&balance, 3, Among::InTurn)).collect();
    for of in 1..=3 {
        assert_eq!(held.iter().filter(|load| port(load) == of).count(), 3, "replica {of}");
    }
    held.retain(|load| port(load) != 2);
    assert_eq!(port(&chosen(&balance, 3, Among::InTurn)), 2);
    assert_eq!(port(&chosen(&balance, 3, Among::First)), 2);
}

// N11: a replica that starts by need is not needed as long as the first is free.
#[test]
fn among_equals_the_first_or_each_in_turn() {
    let balance = Balance::new(100);
    assert!((0..6).all(|_| port(&chosen(&balance, 3, Among::First)) == 1));
    let turns: Vec<u16> = (0..6).map(|_| port(&chosen(&balance, 3, Among::InTurn))).collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
}

// A15, D9
#[test]
fn a_replica_that_failed_is_left_out_longer_each_time_and_one_request_finds_out_whether_it_is_back() {
    let balance = Balance::new(100);
    let mut now = Instant::now();
    let first = |now| at(&balance, 2, Among::First, now);
    let mut out_ms = limits::REPLICA_OUT_MS;
    for _ in 0..12 {
        let failing = first(now);
        assert_eq!(port(&failing), 1);
        failing.endpoint().failed(now);
        failing.endpoint().failed(now);
        drop(failing);
        assert_eq!(port(&first(now)), 2, "out");
        now += Duration::from_millis(out_ms - 1);
        assert_eq!(port(&first(now)), 2, "still out");
        now += Duration::from_millis(1);
        let asking = first(now);
        assert_eq!(port(&asking), 1, "one request asks");
        assert_eq!(port(&first(now)), 2, "one alone");
        drop(asking);
        out_ms = (out_ms * 2).min(limits::REPLICA_OUT_MS_MAX);
    }
    let asking = first(now);
    asking.endpoint().answered(StatusCode::OK, now);
    assert_eq!(port(&first(now)), 2, "the other has less to do");
    drop(asking);
    let (_one, _two) = (first(now), first(now));
    assert_eq!(port(&first(now)), 1, "and it takes its share again");
}

// A15: a replica that answers everything quickly with 503 would otherwise draw all requests.
#[test]
fn bad_answers_in_a_row_count_and_good_ones_between_them_end_the_row() {
    let balance = Balance::new(100);
    let endpoints = balance.at(&addresses(2));
    for _ in 0..3 {
        for _ in 1..limits::REPLICA_BAD_ANSWERS_MAX {
            endpoints[0].answered(StatusCode::SERVICE_UNAVAILABLE, Instant::now());
        }
        endpoints[0].answered(StatusCode::NOT_FOUND, Instant::now());
    }
    assert_eq!(port(&chosen(&balance, 2, Among::First)), 1);
    for _ in 0..limits::REPLICA_BAD_ANSWERS_MAX {
        endpoints[0].answered(StatusCode::BAD_GATEWAY, Instant::now());
    }
    assert_eq!(port(&chosen(&balance, 2, Among::First)), 2);
}

#[test]
fn when_all_are_out_all_are_in_and_what_was_tried_is_tried_last() {
    let balance = Balance::new(100);
    let endpoints = balance.at(&addresses(2));
    endpoints.iter().for_each(|one| one.failed(Instant::now()));
    let (first, others) = balance.choose(&endpoints, &[], Among::First, Instant::now()).unwrap();
    assert!(others);
    let (second, others) = balance.choose(&endpoints, &[first.endpoint().address], Among::First, Instant::now()).unwrap();
    assert_eq!((port(&first), port(&second), others), (1, 2, false));
    let both = [first.endpoint().address, second.endpoint().address];
    assert!(balance.choose(&endpoints, &both, Among::First, Instant::now()).is_ok());
    assert!(matches!(balance.choose(&[], &[], Among::First, Instant::now()), Err(CallFailed::Undeclared)));
}

// A15: the circuit breaker, one below its limit and past it.
#[test]
fn past_its_limit_of_requests_under_way_a_call_fails_at_once() {
    let balance = Balance::new(2);
    let mut held: Vec<Load> = (0..4).map(|_| chosen(&balance, 2, Among::First)).collect();
    let endpoints = balance.at(&addresses(2));
    assert!(matches!(balance.choose(&endpoints, &[], Among::First, Instant::now()), Err(CallFailed::Full(2))));
    held.pop();
    assert!(balance.choose(&endpoints, &[], Among::First, Instant::now()).is_ok());
}

// A15
#[test]
fn retries_are_a_fifth_of_the_requests_and_three_a_second() {
    let mut now = Instant::now();
    let mut budget = Budget::new(now);
    let taken = |budget: &mut Budget, now| (0..10_000).take_while(|_| budget.spend(now)).count() as u64;
    assert_eq!(taken(&mut budget, now), limits::RETRIES_IDLE_MAX);
    (0..50).for_each(|_| budget.earn());
    assert_eq!(taken(&mut budget, now), 10, "a fifth of 50");
    now += Duration::from_secs(2);
    assert_eq!(taken(&mut budget, now), 6, "three a second");
    now += Duration::from_secs(3600);
    assert_eq!(taken(&mut budget, now), limits::RETRIES_IDLE_MAX, "an idle hour saves no more than this");
    (0..1_000_000).for_each(|_| budget.earn());
    assert_eq!(taken(&mut budget, now), limits::RETRIES_MAX, "nor does a busy one");
}

#[test]
fn replicas_that_stay_in_the_view_keep_their_record_and_their_connections() {
    let balance = Balance::new(100);
    let before = balance.at(&addresses(3));
    let after = balance.at(&addresses(2));
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[1], &after[1]) && after.len() == 2);
    assert!(balance.at(&["nowhere".to_owned()]).is_empty());
}

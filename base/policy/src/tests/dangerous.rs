//! Engines with one part left out leave out that part and nothing else.

use super::*;

fn slice() -> PolicySlice {
    slice_for(&workload("objects"), bundle()).unwrap()
}

fn read(engine: &Engine, reference: &str, verdict: Verdict, owner: &str, inputs: &[&str]) -> bool {
    let authority = worker("ada", "transcoder", inputs, "a");
    let resource = object(reference, verdict, Some(owner));
    engine
        .decide(&Question { caller: "transcoder", action: Action::ObjectRead, resource: &resource, authority: Some(&authority) })
        .decision
        .is_allow()
}

// L13: each is the same engine but for one question.
#[test]
fn an_engine_without_jobs_or_quarantine_asks_everything_else() {
    let whole = Engine::load(&slice(), 1).unwrap();
    let (jobless, open) = (Engine::dangerous_without_jobs(slice(), 1).unwrap(), Engine::dangerous_without_quarantine(slice(), 1).unwrap());
    let input: &[&str] = &["originals/a/o"];
    for (reference, verdict, owner, expect) in [
        ("originals/a/o", Verdict::Clean, "ada", [true, true, true]),
        // Another object of the same person; one that nobody has looked at; one of another person.
        ("originals/b/o", Verdict::Clean, "ada", [false, true, false]),
        ("originals/a/o", Verdict::Untyped, "ada", [false, false, true]),
        ("originals/a/o", Verdict::Rejected, "ada", [false, false, true]),
        ("originals/b/o", Verdict::Clean, "bob", [false, false, false]),
        ("renditions/a/o", Verdict::Clean, "ada", [false, false, false]),
    ] {
        let found = [&whole, &jobless, &open].map(|engine| read(engine, reference, verdict, owner, input));
        assert_eq!(found, expect, "{reference} {verdict:?} {owner}: whole, without jobs, without quarantine");
    }
    // Whoever has no job has none to be kept to, and is still asked whose authority it is.
    let nobody = Question {
        caller: "transcoder",
        action: Action::ObjectRead,
        resource: &object("originals/a/o", Verdict::Clean, Some("ada")),
        authority: None,
    };
    assert!(!jobless.decide(&nobody).decision.is_allow());
}

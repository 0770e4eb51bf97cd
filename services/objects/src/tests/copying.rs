//! Copies launder nothing, and are as good as what was copied. (G2, G11)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;

async fn copy(objects: &Objects, who: &Caller, from: &str, to: &str) -> Response<Body> {
    send(objects, who, Method::PUT, to, &[("x-amz-copy-source", from)], "").await
}

fn as_person(user: &str, purpose: &str) -> Caller {
    caller(service("filer"), Some(person(user, purpose)))
}

// G2: the policy decides about both ends, by the authority of whoever copies.
#[tokio::test]
async fn a_copy_needs_read_of_the_source_and_write_of_the_target() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/ada/one", "video/mp4", "one").await;
    put(&objects, &as_person("eve", "manage"), "/files/eve/hers", "video/mp4", "eve's").await;
    for (who, from, to, expect) in [
        (filer(), "files/ada/one", "/albums/ada/copy", 200),
        (filer(), "/files/ada/one", "/files/ada/two", 200),
        (as_person("eve", "manage"), "files/ada/one", "/files/eve/stolen", 403),
        (filer(), "files/ada/one", "/files/eve/hers", 403),
        (filer(), "files/eve/hers", "/files/ada/stolen", 403),
        (as_person("ada", "view"), "files/ada/one", "/files/ada/three", 403),
        (caller(service("filer"), None), "files/ada/one", "/files/ada/three", 403),
        (caller(service("api"), Some(person("ada", "manage"))), "files/ada/one", "/files/ada/three", 403),
        // It may read the one, but there is no flow to write the other.
        (filer(), "files/ada/one", "/renditions/ada/three", 403),
        (filer(), "renditions/ada/one", "/files/ada/three", 403),
        (filer(), "nowhere/ada/one", "/files/ada/three", 404),
        (filer(), "files/ada/one", "/nowhere/ada/three", 404),
        (filer(), "files/ada/nothing", "/files/ada/three", 404),
        (filer(), "files/ada/../ada/one", "/files/ada/three", 400),
    ] {
        let said = copy(&objects, &who, from, to).await;
        assert_eq!(said.status().as_u16(), expect, "{from} to {to} by {:?}: {}", who.authority, text(said).await);
    }
    for gone in ["/files/eve/stolen", "/files/ada/stolen", "/files/ada/three"] {
        let owner = as_person(if gone.contains("/eve/") { "eve" } else { "ada" }, "manage");
        assert_eq!(get(&objects, &owner, gone).await.status(), StatusCode::NOT_FOUND, "{gone}");
    }
    assert_eq!(text(get(&objects, &as_person("eve", "manage"), "/files/eve/hers").await).await, "eve's");
    assert_eq!(text(get(&objects, &filer(), "/albums/ada/copy").await).await, "one");
    assert!(world.recorded("CallDecided") > 14, "both decisions of a copy are recorded");
}

// G11: whoever may see bytes before their verdict cannot make them readable by copying them.
#[tokio::test]
async fn nothing_without_a_clean_verdict_is_copied() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/inbox/v1/in", "video/mp4", "unseen").await;
    let checker = caller(service("checker"), Some(world.job("l1", "checker", "inbox/v1/in", "ada")));
    // By itself, the job may read the one and write the other…
    assert_eq!(text(get(&objects, &checker, "/inbox/v1/in").await).await, "unseen");
    assert_eq!(put(&objects, &checker, "/albums/v1/own", "video/mp4", "made").await.status(), StatusCode::OK);
    let said = copy(&objects, &checker, "inbox/v1/in", "/albums/v1/laundered").await;
    assert_eq!(said.status(), StatusCode::FORBIDDEN);
    assert!(text(said).await.contains("object_quarantined"));
    let begun =
        text(send(&objects, &checker, Method::POST, "/albums/v1/laundered?uploads", &[("content-type", "video/mp4")], "").await).await;
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
    let part = format!("/albums/v1/laundered?partNumber=1&uploadId={id}");
    assert_eq!(copy(&objects, &checker, "inbox/v1/in", &part).await.status(), StatusCode::FORBIDDEN);
    // …and the person, whose object it is, may neither read nor copy it.
    assert_eq!(copy(&objects, &filer(), "inbox/v1/in", "/albums/v1/laundered").await.status(), StatusCode::FORBIDDEN);
    let rejected = serde_json::json!({ "verdict": "rejected", "reason": "bad" }).to_string();
    let verdict = send(&objects, &checker, Method::POST, "/inbox/v1/in?verdict", &[("content-type", "application/json")], rejected).await;
    assert_eq!(verdict.status(), StatusCode::NO_CONTENT);
    for who in [&checker, &filer()] {
        assert_eq!(copy(&objects, who, "inbox/v1/in", "/albums/v1/laundered").await.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(get(&objects, &filer(), "/albums/v1/laundered").await.status(), StatusCode::NOT_FOUND);
}

// G11: into quarantine a copy comes like any upload; under its name no other bytes appear.
#[tokio::test]
async fn a_copy_into_quarantine_waits_for_its_own_verdict() {
    let world = World::new();
    world.edit("inbox", |b| b.created_queue = Some("inbox".into()));
    let objects = world.open().await;
    put(&objects, &filer(), "/files/v1/clean", "video/mp4", "clean").await;
    assert_eq!(copy(&objects, &filer(), "files/v1/clean", "/inbox/v1/in").await.status(), StatusCode::OK);
    let refused = get(&objects, &filer(), "/inbox/v1/in").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(text(refused).await.contains("object_quarantined"));
    assert_eq!(copy(&objects, &filer(), "files/v1/clean", "/inbox/v1/in").await.status(), StatusCode::CONFLICT, "written once");
    let told = tokio::spawn(crate::Messenger::new(objects.clone()).run());
    for _ in 0..500 {
        if !world.queue.published.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told.abort();
    assert_eq!(world.queue.published.lock().unwrap()[0].0.subject.as_deref(), Some("inbox/v1/in"), "the validator hears of it");
    let checker = caller(service("checker"), Some(world.job("l1", "checker", "inbox/v1/in", "ada")));
    assert_eq!(text(get(&objects, &checker, "/inbox/v1/in").await).await, "clean");
    let clean = serde_json::json!({ "verdict": "clean", "media_type": "video/mp4" }).to_string();
    send(&objects, &checker, Method::POST, "/inbox/v1/in?verdict", &[("content-type", "application/json")], clean).await;
    // Once it is clean, it may be copied on.
    assert_eq!(copy(&objects, &filer(), "inbox/v1/in", "/albums/v1/out").await.status(), StatusCode::OK);
    assert_eq!(text(get(&objects, &filer(), "/albums/v1/out").await).await, "clean");
}

// G6: a copy is as large and of such a type as its bucket takes.
#[tokio::test]
async fn a_copy_is_bounded_as_an_upload_is() {
    let world = World::new();
    world.edit("albums", |b| b.object_bytes_max = 5);
    let objects = world.open().await;
    for (key, media_type, content, expect) in
        [("fits", "video/mp4", "12345", 200), ("large", "video/mp4", "123456", 413), ("other", "text/html", "1", 400)]
    {
        put(&objects, &filer(), &format!("/files/a/{key}"), media_type, content).await;
        let said = copy(&objects, &filer(), &format!("files/a/{key}"), &format!("/albums/a/{key}")).await;
        assert_eq!(said.status().as_u16(), expect, "{key}");
    }
    let replaced = [("x-amz-copy-source", "files/a/fits"), ("x-amz-metadata-directive", "REPLACE"), ("content-type", "text/html")];
    let said = send(&objects, &filer(), Method::PUT, "/albums/a/page", &replaced, "").await;
    assert_eq!(said.status(), StatusCode::BAD_REQUEST, "a type that the bucket does not take");
}

// H5: a job copies within what it was given.
#[tokio::test]
async fn a_job_copies_only_what_it_names_and_only_while_it_lives() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/inbox/v1/in", "video/mp4", "bytes").await;
    put(&objects, &filer(), "/inbox/v2/in", "video/mp4", "others").await;
    for (lease, video) in [("l1", "v1"), ("l2", "v2")] {
        let checker = caller(service("checker"), Some(world.job(lease, "checker", &format!("inbox/{video}/in"), "ada")));
        get(&objects, &checker, &format!("/inbox/{video}/in")).await;
        let clean = serde_json::json!({ "verdict": "clean" }).to_string();
        let path = format!("/inbox/{video}/in?verdict");
        let said = send(&objects, &checker, Method::POST, &path, &[("content-type", "application/json")], clean).await;
        assert_eq!(said.status(), StatusCode::NO_CONTENT);
    }
    let checker = caller(service("checker"), Some(world.job("l3", "checker", "inbox/v1/in", "ada")));
    for (from, to, expect) in
        [("inbox/v1/in", "/albums/v1/out", 200), ("inbox/v2/in", "/albums/v1/other", 403), ("inbox/v1/in", "/albums/v2/out", 403)]
    {
        assert_eq!(copy(&objects, &checker, from, to).await.status().as_u16(), expect, "{from} to {to}");
    }
    world.end_lease("l3");
    assert_eq!(copy(&objects, &checker, "inbox/v1/in", "/albums/v1/late").await.status(), StatusCode::FORBIDDEN);
}

// A copy is an object of its own: it outlives what it was made from, a restart, and is as well guarded against changes.
#[tokio::test]
async fn a_copy_outlives_its_source() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(2 * MIB + 9);
    put(&objects, &filer(), "/files/a/one", "video/mp4", content.clone()).await;
    assert_eq!(copy(&objects, &filer(), "files/a/one", "/files/a/two").await.status(), StatusCode::OK);
    assert_eq!(send(&objects, &filer(), Method::DELETE, "/files/a/one", &[], "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(files_in(&world, "blobs"), 1);
    let objects = world.open().await;
    assert!(bytes(get(&objects, &filer(), "/files/a/two").await).await == content);
    let path = std::fs::read_dir(world.folder.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    let mut changed = std::fs::read(&path).unwrap();
    changed[MIB] ^= 1;
    std::fs::write(&path, changed).unwrap();
    copy(&objects, &filer(), "files/a/two", "/files/a/three").await;
    assert!(get(&objects, &filer(), "/files/a/three").await.into_body().collect().await.is_err(), "a wrong byte never leaves");
    assert_eq!(world.recorded("TamperingFound"), 1);
    std::fs::remove_file(path).unwrap();
    assert_eq!(copy(&objects, &filer(), "files/a/two", "/files/a/four").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(world.recorded("TamperingFound"), 2);
}

// Deleting what is being read ends the read; it is no tampering.
#[tokio::test]
async fn an_object_that_is_deleted_while_it_is_read_is_not_reported_as_damaged() {
    let world = World::new();
    let objects = world.open().await;
    let begun = text(send(&objects, &filer(), Method::POST, "/files/a/b?uploads", &[("content-type", "video/mp4")], "").await).await;
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let mut listed = String::new();
    for n in 1..=2 {
        let part = send(&objects, &filer(), Method::PUT, &format!("/files/a/b?partNumber={n}&uploadId={id}"), &[], pattern(5 * MIB)).await;
        listed.push_str(&format!("<Part><PartNumber>{n}</PartNumber><ETag>{}</ETag></Part>", part.headers()["etag"].to_str().unwrap()));
    }
    let xml = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    assert_eq!(send(&objects, &filer(), Method::POST, &format!("/files/a/b?uploadId={id}"), &[], xml).await.status(), StatusCode::OK);
    let reading = get(&objects, &filer(), "/files/a/b").await;
    assert_eq!(reading.status(), StatusCode::OK);
    send(&objects, &filer(), Method::DELETE, "/files/a/b", &[], "").await;
    assert!(reading.into_body().collect().await.is_err());
    assert_eq!(world.recorded("TamperingFound"), 0);
}

// A16, D12, E12: what a policy in shadow would refuse is read and written, with both answers in the record; without the word it is refused.
#[tokio::test]
async fn a_policy_in_shadow_is_recorded_at_objects_and_stops_nothing() {
    const FORBID: &str = r#"@id("no-reading") WORD forbid(principal == Workload::"filer", action == Action::"objectRead", resource)
        when { context has authority && context.authority.user == User::"ada" };"#;
    let manifest = manifest::Manifest::parse("palisade.toml", &format!("{VIDEO}{MORE}")).unwrap();
    for (word, status) in [("@shadow", StatusCode::OK), ("", StatusCode::FORBIDDEN)] {
        let by_hand = BTreeMap::from([("extra.cedar".to_owned(), FORBID.replace("WORD", word))]);
        let bundle = Bundle::build(&manifest, &by_hand).unwrap_or_else(|error| panic!("{error}"));
        let world = World::new();
        let rules = world.book.0.lock().unwrap().clone().unwrap();
        *world.book.0.lock().unwrap() =
            Ok(Arc::new(Rulebook { decide: Arc::new(Engine::whole(&bundle, 1).unwrap()), ..Rulebook::clone(&rules) }));
        let objects = world.open().await;
        put(&objects, &filer(), "/files/ada/one", "video/mp4", "one").await;
        put(&objects, &as_person("eve", "manage"), "/files/eve/one", "video/mp4", "one").await;
        assert_eq!(get(&objects, &filer(), "/files/ada/one").await.status(), status, "{word}");
        assert_eq!(get(&objects, &as_person("eve", "manage"), "/files/eve/one").await.status(), StatusCode::OK, "{word}");
        let audit = world.sink.audit.lock().unwrap();
        let reads = audit.iter().filter(|r| r.event == "CallDecided" && r.fields["action"] == "objectRead");
        let shadows: Vec<Option<bool>> = reads
            .map(|r| r.fields["decision"].as_object().unwrap().values().next().unwrap().get("shadow").and_then(|s| s["allow"].as_bool()))
            .collect();
        let expected = if word.is_empty() { [None, None] } else { [Some(false), Some(true)] };
        assert_eq!(shadows, expected, "{word}");
    }
}

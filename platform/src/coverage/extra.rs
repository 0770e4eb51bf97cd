//! What a row alone does not show: credentials that a row has of its own, jobs, and whether the points agree.

use contract::Route;
use contract::objects::ORIGINAL_URI_HEADER;
use http::Request;
use policy::{Action, ObjectFacts, Question, Resource};
use proxy::enforce::Proof;
use trust::{DenyReason, ObjectRef};

use super::asked::resigned;
use super::house::{House, authority, get, local, request};
use super::{refused, with_token};

fn route(house: &House, point: &str, action: &str) -> &'static Route {
    house.point(point).routes.iter().find(|route| route.action == action).unwrap()
}

/// Join tokens, presigned URLs and jobs' deliveries: shown by the right caller, and no good.
pub async fn credentials_of_their_own(house: &House) {
    let before = house.state().await.remove(0);
    let join = route(house, "identity", "identity.join");
    let asked = house.asked("identity", join).await.unwrap();
    let mut unknown: serde_json::Value = serde_json::from_slice(&bytes((asked.make)()).await).unwrap();
    unknown["token"] = "ff".repeat(32).into();
    let forged = request("POST", "/join", &[], &unknown.to_string());
    refused(house, house.point("identity"), join, "a token that nobody registered", &asked.proof, forged, DenyReason::JoinTokenInvalid)
        .await;
    let mut other = local();
    other.uid += 1;
    refused(house, house.point("identity"), join, "another user", &Proof::Local(other), (asked.make)(), DenyReason::AttestationFailed)
        .await;
    // That was its one use.
    refused(house, house.point("identity"), join, "a token that was used", &asked.proof, (asked.make)(), DenyReason::JoinTokenInvalid)
        .await;
    assert_eq!(house.state().await.remove(0), before, "nobody got an identity");

    let objects = house.point("objects");
    for (action, method, other) in
        [("objects.redeem.read", "GET", "HEAD"), ("objects.redeem.head", "HEAD", "GET"), ("objects.redeem.write", "PUT", "GET")]
    {
        let row = route(house, "objects", action);
        let path = format!("/{}/ann/{}", if method == "PUT" { "originals" } else { "files" }, house.fresh());
        if method != "PUT" {
            house.stored(&path).await;
        }
        let asked = house.redeeming(method, &path, 60).await;
        let changed = |change: &dyn Fn(String) -> String| {
            let mut request = (asked.make)();
            let original = request.headers()[ORIGINAL_URI_HEADER].to_str().unwrap().to_owned();
            request.headers_mut().insert(ORIGINAL_URI_HEADER, change(original).parse().unwrap());
            request
        };
        let invalid = DenyReason::GrantInvalid;
        let flipped = changed(&|uri| {
            let (rest, signature) = uri.split_once("X-Amz-Signature=").unwrap();
            let (first, others) = signature.split_at(1);
            format!("{rest}X-Amz-Signature={}{others}", if first == "0" { "1" } else { "0" })
        });
        refused(house, objects, row, "a changed signature", &asked.proof, flipped, invalid).await;
        refused(house, objects, row, "a longer life", &asked.proof, changed(&|uri| uri.replace("Expires=60", "Expires=600")), invalid)
            .await;
        refused(house, objects, row, "another object", &asked.proof, changed(&|uri| uri.replace("/ann/", "/bob/")), invalid).await;
        let mut bare = (asked.make)();
        bare.headers_mut().remove(ORIGINAL_URI_HEADER);
        refused(house, objects, row, "no signature", &asked.proof, bare, invalid).await;
        let mut turned = (asked.make)();
        *turned.method_mut() = other.parse().unwrap();
        refused(house, objects, row, "another method", &asked.proof, turned, invalid).await;
        let late = house.redeeming(method, &path, 1).await;
        house.pass(3);
        refused(house, objects, row, "a URL that ended", &late.proof, (late.make)(), DenyReason::GrantExpired).await;
        if method == "PUT" {
            assert!(objects.answer(&asked.proof, (asked.make)()).await.status().is_success());
            refused(house, objects, row, "a URL that was used", &asked.proof, (asked.make)(), invalid).await;
        }
    }

    // A wrong person: not over Ann's object, and not in Ann's list.
    let write = route(house, "objects", "objects.write");
    house.stored("/files/ann/kept").await;
    let (filer, bob) = (house.proof("filer"), house.token("bob", "manage", &[]));
    let over = [("txn-token", bob.as_str()), ("content-type", "video/mp4"), ("content-length", "5")];
    refused(house, objects, write, "another person", &filer, request("PUT", "/files/ann/kept", &over, "other"), DenyReason::PolicyDenied)
        .await;
    let ann = house.token("ann", "manage", &[]);
    assert_eq!(house.text("objects", &filer, with_token(get("/files/ann/kept"), &ann)).await, "bytes");
    let (hers, his) = (with_token(get("/files?list-type=2"), &ann), with_token(get("/files?list-type=2"), &bob));
    assert!(house.text("objects", &filer, hers).await.contains("ann/kept"));
    assert!(!house.text("objects", &filer, his).await.contains("ann/"));

    // A delivery is for the job's consumer, on the queue's word, of a queue that it consumes.
    let (guard, deliver) = (house.point("guard"), route(house, "guard", "guard.deliver"));
    let reached = house.reached.load(std::sync::atomic::Ordering::SeqCst);
    let theirs = house.delivery("transcoder", "uploaded");
    refused(house, guard, deliver, "another's job", &theirs.proof, (theirs.make)(), DenyReason::JobMismatch).await;
    let status = house.delivery("validator", "status");
    refused(house, guard, deliver, "another's queue", &status.proof, (status.make)(), DenyReason::PolicyDenied).await;
    let own = house.delivery("validator", "uploaded");
    let token = (own.make)().headers()["txn-token"].to_str().unwrap().to_owned();
    refused(house, guard, deliver, "a changed job", &own.proof, with_token((own.make)(), &resigned(&token)), DenyReason::TokenInvalid)
        .await;
    let person = with_token((own.make)(), &house.token("ann", "process", &[]));
    refused(house, guard, deliver, "authority without a job", &own.proof, person, DenyReason::AuthorityMissing).await;
    assert_eq!(house.reached.load(std::sync::atomic::Ordering::SeqCst), reached, "the service saw nothing of it");
}

/// H5: what a job may do, it may until its lease ends, and its own consumer alone.
pub async fn jobs_end_with_their_lease(house: &House) {
    let (objects, queue, validator) = (house.point("objects"), house.point("queue"), house.proof("validator"));
    // A real upload: granted to `api`, brought by the edge, announced by `objects`.
    let path = format!("/originals/v{}-job/original", house.fresh());
    let upload = house.redeeming("PUT", &path, 60).await;
    assert!(objects.answer(&upload.proof, (upload.make)()).await.status().is_success());
    let leased = house.lease_of(&path[1..]).await;
    let token = leased.token.clone().unwrap();
    let read = || with_token(get(&path), &token);
    assert_eq!(house.text("objects", &validator, read()).await, "bytes", "the job's own input");
    let status = |id: &str| {
        let event = [
            ("txn-token", token.as_str()),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "validator"),
            ("ce-type", "checked"),
            ("content-type", "application/json"),
        ];
        request("POST", "/queues/status", &event, "{}")
    };
    house.text("queue", &validator, status("while")).await;

    let rows = ["objects.read", "objects.head", "objects.post"];
    let of = |action: &str| {
        let row = route(house, "objects", action);
        let path = if action == "objects.post" { format!("{path}?verdict") } else { path.clone() };
        let content = if action == "objects.post" { r#"{"verdict":"clean"}"# } else { "" };
        (row, request(row.method, &path, &[("txn-token", &token)], content))
    };
    for action in rows {
        // The same token in the hands of another: not its job.
        let (row, asked) = of(action);
        refused(house, objects, row, "another consumer", &house.proof("transcoder"), asked, DenyReason::JobMismatch).await;
    }
    let (row, _) = of("objects.read");
    let other = format!("/originals/v{}-other/original", house.fresh());
    let upload = house.redeeming("PUT", &other, 60).await;
    assert!(objects.answer(&upload.proof, (upload.make)()).await.status().is_success());
    refused(house, objects, row, "another job's object", &validator, with_token(get(&other), &token), DenyReason::JobMismatch).await;

    house.text("queue", &validator, request("POST", &format!("/leases/{}/ack", leased.lease), &[], "")).await;
    for action in rows {
        let (row, asked) = of(action);
        refused(house, objects, row, "a job whose lease ended", &validator, asked, DenyReason::LeaseEnded).await;
    }
    let publish = route(house, "queue", "queue.publish");
    refused(house, queue, publish, "a job whose lease ended", &validator, status("after"), DenyReason::LeaseEnded).await;
    for action in ["extend", "ack", "nack"] {
        let row = route(house, "queue", &format!("queue.lease.{action}"));
        let asked = request("POST", &format!("/leases/{}/{action}", leased.lease), &[], "");
        refused(house, queue, row, "whose lease ended", &validator, asked, DenyReason::LeaseEnded).await;
    }
}

/// E4: what two points can both be asked, both answer alike, and as the whole policy does.
pub async fn points_agree(house: &House) {
    let whole = house.whole_policy();
    let object = |verdict| {
        Resource::Object(ObjectFacts {
            reference: ObjectRef::new("originals", "v/original").unwrap(),
            verdict,
            owner: Some("ann".into()),
            shared_with: Default::default(),
        })
    };
    let mut resources: Vec<(Action, Resource)> = Vec::new();
    for queue in ["uploaded", "validated", "status"] {
        resources.extend([Action::Publish, Action::Consume].map(|action| (action, Resource::Queue(queue.into()))));
    }
    for verdict in [manifest::Verdict::Untyped, manifest::Verdict::Clean, manifest::Verdict::Rejected] {
        resources.extend(
            [Action::ObjectRead, Action::ObjectVerdict, Action::ObjectPresignPut, Action::ObjectDelete].map(|a| (a, object(verdict))),
        );
    }
    resources.push((Action::Call, Resource::route("api", "GET", "/api/videos")));
    let job = trust::Job {
        id: "j".into(),
        lease: "l".into(),
        queue: "uploaded".into(),
        consumer: "validator".into(),
        inputs: vec![ObjectRef::new("originals", "v/original").unwrap()],
        folder: "v".into(),
    };
    let mut authorities = vec![None];
    for (user, purpose) in [("ann", "upload"), ("ann", "view"), ("ann", "manage"), ("bob", "manage"), ("ann", "process")] {
        authorities.push(Some(authority(user, purpose, &[])));
        authorities.push(Some(trust::Authority { job: Some(job.clone()), ..authority(user, purpose, &[]) }));
    }
    let (mut allowed, mut shared) = (0, 0);
    for (action, resource) in &resources {
        for authority in &authorities {
            for caller in ["web", "api", "validator", "transcoder", "filer", "objects", "edge", "internet"] {
                let question = Question { caller, action: *action, resource, authority: authority.as_ref() };
                let truth = whole.decide(&question).decision.is_allow();
                let mut agreeing = 0;
                for (point, engine) in house.engines() {
                    let said = engine.decide(&question).decision.is_allow();
                    // A point whose slice does not have the question answers no; none answers yes where the whole policy says no.
                    assert!(!said || truth, "{point} allows {question:?}");
                    agreeing += usize::from(said);
                }
                allowed += usize::from(truth);
                shared += usize::from(agreeing > 1);
            }
        }
    }
    assert!(allowed > 5 && shared > 0, "{allowed} allowed, {shared} by more than one point");
}

async fn bytes(request: Request<contract::Body>) -> Vec<u8> {
    contract::body::collect(request.into_body(), 1 << 16).await.unwrap().to_vec()
}

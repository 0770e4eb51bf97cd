//! For every row: somebody who may call it, and a request that is served, made as often as wanted. What everybody else sends is that
//! very request, so that nothing but who sends it can be the reason of a refusal.

use base64::Engine;
use contract::identity::{Join, RegisterToken, Renew, Revocation};
use contract::login::CLIENT_HEADER;
use contract::objects::{ORIGINAL_URI_HEADER, PUBLIC_ORIGIN_HEADER, Presigned};
use contract::queue::Leased;
use contract::{Body, Route, body};
use http::{Request, StatusCode, header};
use proxy::enforce::Proof;
use proxy::svid::PendingKey;
use trust::Digest;

use super::browser::{BACK, FORM, PASSWORD, VERIFIER, authorize, encoded, hidden};
use super::house::{House, ORIGIN, local, operator, request};

/// Who may, and what they send.
pub struct Asked {
    pub proof: Proof,
    pub make: Box<dyn Fn() -> Request<Body>>,
}

type Fields<'a> = &'a [(&'a str, &'a str)];

pub fn asked(proof: Proof, method: &str, path: &str, headers: Fields<'_>, content: &str) -> Asked {
    let (method, path, content) = (method.to_owned(), path.to_owned(), content.to_owned());
    let headers: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let make = move || {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        request(&method, &path, &headers, &content)
    };
    Asked { proof, make: Box::new(make) }
}

impl House {
    /// Prepares what the row needs, and gives the request. `None`: nobody wrote one for this row, which fails the test.
    pub async fn asked(&self, point: &str, route: &Route) -> Option<Asked> {
        match point {
            "identity" => self.asked_identity(route.action).await,
            "control" => self.asked_control(route.action),
            "login" => self.asked_login(route.action).await,
            "objects" => self.asked_objects(route).await,
            "queue" => self.asked_queue(route.action).await,
            "evidence" => self.asked_evidence(route.action).await,
            "guard" => Some(self.delivery("validator", "uploaded")),
            _ => None,
        }
    }

    async fn asked_identity(&self, action: &str) -> Option<Asked> {
        let csr = || PendingKey::generate().unwrap().csr().to_owned();
        let token = format!("{:064x}", self.fresh());
        let program = Digest::of_reader(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        let register = RegisterToken {
            token_digest: Digest::of(token.as_bytes()),
            spiffe_id: self.domain.service("spare"),
            uid: local().uid,
            binary: program,
            artefacts: Vec::new(),
        };
        let register = serde_json::to_string(&register).unwrap();
        Some(match action {
            "identity.token.register" => asked(Proof::Supervisor, "POST", "/tokens", &[], &register),
            "identity.join" => {
                self.text("identity", &Proof::Supervisor, request("POST", "/tokens", &[], &register)).await;
                let join = Join { token, csr: csr(), artefacts: Vec::new() };
                asked(Proof::Local(local()), "POST", "/join", &[], &serde_json::to_string(&join).unwrap())
            }
            "identity.renew" => asked(self.proof("api"), "POST", "/renew", &[], &serde_json::to_string(&Renew { csr: csr() }).unwrap()),
            "identity.pep.issue" => asked(self.proof("door"), "POST", "/pep", &[], &serde_json::to_string(&Renew { csr: csr() }).unwrap()),
            "identity.bundle.read" => asked(self.proof("control"), "GET", "/bundle", &[], ""),
            "identity.revoke" => {
                let revocation = Revocation { spiffe_id: self.domain.service("transcoder"), before_s: 1 };
                asked(self.proof("control"), "POST", "/revoke", &[], &serde_json::to_string(&revocation).unwrap())
            }
            _ => return None,
        })
    }

    fn asked_control(&self, action: &str) -> Option<Asked> {
        let gone = serde_json::json!({ "spiffe_id": self.domain.service("gone") }).to_string();
        Some(match action {
            "control.view.read" => asked(self.proof("web"), "GET", "/view", &[], ""),
            "control.view.stream" => asked(self.proof("web"), "GET", "/view/stream", &[], ""),
            "control.system.read" => asked(self.proof("evidence"), "GET", "/system", &[], ""),
            "control.apply" => asked(operator(), "POST", "/apply", &[], &serde_json::to_string(&self.apply).unwrap()),
            "control.revoke" => asked(operator(), "POST", "/revoke", &[], &gone),
            "control.contain" | "control.release" => {
                asked(operator(), "POST", action.replace("control.", "/").as_str(), &[], r#"{"service":"gone"}"#)
            }
            "control.status.read" => asked(operator(), "GET", "/status", &[], ""),
            _ => return None,
        })
    }

    async fn asked_login(&self, action: &str) -> Option<Asked> {
        let edge = self.proof("edge");
        let cookies = || self.cookies().lock().unwrap().iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
        let marked = [(header::CONTENT_TYPE.as_str(), FORM), (CLIENT_HEADER, "edge")];
        Some(match action {
            "login.discovery" => asked(edge, "GET", "/.well-known/openid-configuration", &[], ""),
            "login.jwks" => asked(edge, "GET", "/jwks", &[], ""),
            "login.style" => asked(edge, "GET", "/style.css", &[], ""),
            "login.authorize" => asked(edge, "GET", &authorize(), &[], ""),
            "login.sign_in.page" => asked(edge, "GET", &self.sign_in_path().await, &[], ""),
            "login.sign_in" => {
                self.enrolled().await;
                let mut fields = self.page(&self.sign_in_path().await).await;
                fields.extend([("name".to_owned(), "Ann".to_owned()), ("password".to_owned(), PASSWORD.to_owned())]);
                self.form(edge, "/sign-in", &fields)
            }
            "login.sign_in.second" => {
                let (name, _, code) = self.with_second_factor().await;
                let mut fields = self.page(&self.sign_in_path().await).await;
                fields.extend([("name".to_owned(), name), ("password".to_owned(), PASSWORD.to_owned())]);
                let (status, _, text) = self.sent((self.form(edge.clone(), "/sign-in", &fields).make)()).await;
                assert_eq!(status, StatusCode::OK, "{text}");
                let mut fields = hidden(&text);
                fields.push(("recovery".to_owned(), code));
                self.form(edge, "/sign-in/second", &fields)
            }
            "login.factor.page" => asked(edge, "GET", "/factor", &[], ""),
            "login.factor" => self.form(edge, "/factor", &self.page(&self.sign_in_path().await).await),
            "login.factor.reset" => {
                let (_, user, _) = self.with_second_factor().await;
                asked(operator(), "DELETE", &format!("/users/{user}/factor"), &[], "")
            }
            "login.enrol.page" => asked(edge, "GET", &self.invited(&format!("P{}", self.fresh())).await, &[], ""),
            "login.enrol" => self.enrolment(&format!("P{}", self.fresh())).await,
            "login.token" => {
                let code = encoded(&[
                    ("grant_type", "authorization_code"),
                    ("code", &self.code().await),
                    ("redirect_uri", BACK),
                    ("code_verifier", VERIFIER),
                ]);
                asked(edge, "POST", "/token", &marked, &code)
            }
            "login.userinfo" => {
                let bearer = format!("Bearer {}", self.tokens().await["access_token"].as_str().unwrap());
                asked(edge, "GET", "/userinfo", &[(header::AUTHORIZATION.as_str(), &bearer)], "")
            }
            "login.token.revoke" => {
                let tokens = self.tokens().await;
                asked(edge, "POST", "/revoke", &marked, &encoded(&[("token", tokens["refresh_token"].as_str().unwrap())]))
            }
            "login.introspect" => {
                let tokens = self.tokens().await;
                asked(edge, "POST", "/introspect", &marked, &encoded(&[("token", tokens["access_token"].as_str().unwrap())]))
            }
            "login.key.create" => {
                let user = self.somebody().await;
                asked(operator(), "POST", "/keys", &[], &format!(r#"{{"user":"{user}","name":"ci","scopes":["videos"],"life_s":60}}"#))
            }
            "login.key.list" => asked(operator(), "GET", "/keys", &[], ""),
            "login.key.revoke" => {
                let new = format!(r#"{{"user":"{}","name":"ci","scopes":[],"life_s":60}}"#, self.somebody().await);
                let made = self.text("login", &operator(), request("POST", "/keys", &[], &new)).await;
                let made: serde_json::Value = serde_json::from_str(&made).unwrap();
                asked(operator(), "DELETE", &format!("/keys/{}", made["id"].as_str().unwrap()), &[], "")
            }
            "login.end_session" => {
                let id = self.tokens().await["id_token"].as_str().unwrap().to_owned();
                let path = format!("/end-session?{}", encoded(&[("id_token_hint", &id)]));
                asked(edge, "GET", &path, &[(header::COOKIE.as_str(), &cookies())], "")
            }
            "login.user.invite" => asked(operator(), "POST", "/users", &[], r#"{"name":"Bob"}"#),
            "login.user.list" => asked(operator(), "GET", "/users", &[], ""),
            "login.user.remove" => asked(operator(), "DELETE", &format!("/users/{}", self.somebody().await), &[], ""),
            _ => return None,
        })
    }

    /// The id of somebody who was invited.
    async fn somebody(&self) -> String {
        let invite = format!(r#"{{"name":"S{}"}}"#, self.fresh());
        let invited = self.text("login", &operator(), request("POST", "/users", &[], &invite)).await;
        let invited: serde_json::Value = serde_json::from_str(&invited).unwrap();
        invited["user"].as_str().unwrap().to_owned()
    }

    async fn asked_objects(&self, route: &Route) -> Option<Asked> {
        let action = route.action;
        let (filer, token) = (self.proof("filer"), self.token("ann", "manage", &[]));
        let key = format!("ann/{}", self.fresh());
        let path = format!("/files/{key}");
        if action != "objects.write" && action != "objects.redeem.write" {
            self.stored(&path).await;
        }
        let head = [("txn-token", token.as_str())];
        Some(match action {
            // Its two rows differ in a slash.
            "objects.list" => asked(filer, "GET", &format!("{}?list-type=2", route.path.replace("{bucket}", "files")), &head, ""),
            "objects.bucket.head" => asked(filer, "HEAD", &route.path.replace("{bucket}", "files"), &head, ""),
            "objects.delete.many" => {
                let body = format!("<Delete><Object><Key>{key}</Key></Object></Delete>");
                let length = body.len().to_string();
                let head = [head[0], ("content-length", length.as_str())];
                asked(filer, "POST", &format!("{}?delete", route.path.replace("{bucket}", "files")), &head, &body)
            }
            "objects.read" => asked(filer, "GET", &path, &head, ""),
            "objects.head" => asked(filer, "HEAD", &path, &head, ""),
            "objects.delete" => asked(filer, "DELETE", &path, &head, ""),
            "objects.write" => asked(filer, "PUT", &path, &[head[0], ("content-type", "video/mp4"), ("content-length", "5")], "bytes"),
            "objects.post" => asked(filer, "POST", &format!("{path}?presign"), &head, r#"{"method":"GET","expires_s":60}"#),
            "objects.redeem.read" => self.redeeming("GET", &path, 60).await,
            "objects.redeem.head" => self.redeeming("HEAD", &path, 60).await,
            "objects.redeem.write" => self.redeeming("PUT", &format!("/originals/{key}"), 60).await,
            _ => return None,
        })
    }

    /// A presigned URL as the edge brings it: an upload that `api` granted, or `filer`'s.
    pub async fn redeeming(&self, method: &str, path: &str, expires_s: u64) -> Asked {
        let (service, purpose) = if method == "PUT" { ("api", "upload") } else { ("filer", "manage") };
        let mut wish = serde_json::json!({ "method": method, "expires_s": expires_s });
        if method == "PUT" {
            wish["content_length"] = 5.into();
            wish["content_type"] = "video/mp4".into();
        }
        let token = self.token("ann", purpose, &[]);
        let ask = request("POST", &format!("{path}?presign"), &[("txn-token", &token)], &wish.to_string());
        let granted: Presigned = serde_json::from_str(&self.text("objects", &self.proof(service), ask).await).unwrap();
        let original = granted.url.strip_prefix(ORIGIN).unwrap();
        let mut headers = vec![(ORIGINAL_URI_HEADER, original), (PUBLIC_ORIGIN_HEADER, ORIGIN)];
        if method == "PUT" {
            headers.extend([("content-type", "video/mp4"), ("content-length", "5")]);
        }
        let content = if method == "PUT" { "bytes" } else { "" };
        asked(self.proof("edge"), method, &format!("/presigned{path}"), &headers, content)
    }

    /// An object of Ann's.
    pub async fn stored(&self, path: &str) {
        let token = self.token("ann", "manage", &[]);
        let headers = [("txn-token", token.as_str()), ("content-type", "video/mp4"), ("content-length", "5")];
        self.text("objects", &self.proof("filer"), request("PUT", path, &headers, "bytes")).await;
    }

    /// What `objects` publishes of an upload.
    pub fn published(&self, subject: &str) -> Asked {
        let (token, id) = (self.token("ann", "upload", &[]), self.fresh().to_string());
        let event = [
            ("txn-token", token.as_str()),
            ("ce-specversion", "1.0"),
            ("ce-id", &id),
            ("ce-source", "objects"),
            ("ce-type", "object.created"),
            ("ce-subject", subject),
            ("content-type", "application/json"),
        ];
        asked(self.proof("objects"), "POST", "/queues/uploaded", &event, "{}")
    }

    /// A message in the validator's hands.
    pub async fn leased(&self) -> Leased {
        self.let_go().await;
        let published = self.published(&format!("originals/v{}/original", self.fresh()));
        self.text("queue", &published.proof, (published.make)()).await;
        let lease = self.text("queue", &self.proof("validator"), request("POST", "/queues/uploaded/lease", &[], "")).await;
        let leased: Leased = serde_json::from_str(&lease).unwrap();
        self.held.lock().unwrap().push(leased.lease.clone());
        leased
    }

    /// Acknowledges what the validator holds, so that it may have more.
    pub async fn let_go(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for lease in held {
            let ack = request("POST", &format!("/leases/{lease}/ack"), &[], "");
            // It may have ended already.
            let _answer = self.point("queue").answer(&self.proof("validator"), ack).await;
        }
    }

    /// The message about this object, once `objects` has published it.
    pub async fn lease_of(&self, subject: &str) -> Leased {
        self.let_go().await;
        for _ in 0..500 {
            let take = request("POST", "/queues/uploaded/lease", &[], "");
            let answer = self.point("queue").answer(&self.proof("validator"), take).await;
            if answer.status() == StatusCode::OK {
                let leased: Leased = body::parse_json(answer.into_body()).await.unwrap();
                if leased.event.subject.as_deref() == Some(subject) {
                    return leased;
                }
                self.text("queue", &self.proof("validator"), request("POST", &format!("/leases/{}/ack", leased.lease), &[], "")).await;
            } else {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        panic!("nobody told of {subject}");
    }

    async fn asked_queue(&self, action: &str) -> Option<Asked> {
        let validator = self.proof("validator");
        Some(match action {
            "queue.publish" => self.published("originals/v/original"),
            "queue.lease" => {
                self.let_go().await;
                let published = self.published(&format!("originals/v{}/original", self.fresh()));
                self.text("queue", &published.proof, (published.make)()).await;
                asked(validator, "POST", "/queues/uploaded/lease", &[], "")
            }
            "queue.lease.extend" => asked(validator, "POST", &format!("/leases/{}/extend", self.leased().await.lease), &[], ""),
            "queue.lease.ack" => asked(validator, "POST", &format!("/leases/{}/ack", self.leased().await.lease), &[], ""),
            "queue.lease.nack" => asked(validator, "POST", &format!("/leases/{}/nack", self.leased().await.lease), &[], ""),
            "queue.lease.read" => asked(self.proof("objects"), "GET", &format!("/leases/{}", self.leased().await.lease), &[], ""),
            "queue.stats.read" => asked(self.proof("evidence"), "GET", "/queues", &[], ""),
            _ => return None,
        })
    }

    async fn asked_evidence(&self, action: &str) -> Option<Asked> {
        let (api, trace) = (self.proof("api"), format!("{:032x}", self.fresh() + 1));
        let typed = [("content-type", "application/json")];
        let span = serde_json::json!({ "traceId": trace, "spanId": "00000000000000aa", "name": "x", "kind": 1, "startTimeUnixNano": "1", "endTimeUnixNano": "2" });
        let spans = serde_json::json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string();
        let line =
            serde_json::json!({ "traceId": trace, "spanId": "00000000000000aa", "timeUnixNano": "1", "body": { "stringValue": "said" } });
        let lines = serde_json::json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [line] }] }] }).to_string();
        let gauge = serde_json::json!({ "name": "coverage_probe", "gauge": { "dataPoints": [{ "timeUnixNano": "1", "asInt": "1" }] } });
        let gauges = serde_json::json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [gauge] }] }] }).to_string();
        let record = serde_json::json!({ "seq": 1, "at_ms": 1, "event": "ActDone", "trace": "", "span": "", "fields": {} });
        let batch = serde_json::json!({ "process": format!("p{}", self.fresh()), "audit": [record] }).to_string();
        let admin = self.token("ann", "operate", &["admin"]);
        Some(match action {
            "evidence.append" => asked(api, "POST", "/records", &typed, &batch),
            "evidence.otlp.traces" => asked(api, "POST", "/v1/traces", &typed, &spans),
            "evidence.otlp.logs" => asked(api, "POST", "/v1/logs", &typed, &lines),
            "evidence.otlp.metrics" => asked(api, "POST", "/v1/metrics", &typed, &gauges),
            "evidence.metrics.read" => asked(operator(), "GET", "/metrics", &[], ""),
            "evidence.checkpoint.read" => asked(operator(), "GET", "/checkpoint", &[], ""),
            "evidence.trace.read" => {
                self.text("evidence", &api, request("POST", "/v1/traces", &typed, &spans)).await;
                asked(operator(), "GET", &format!("/traces/{trace}"), &[], "")
            }
            "evidence.breach.tell" => {
                let manifest = trust::Digest::of(b"manifest").to_string();
                let told =
                    format!(r#"{{"measured":false,"manifest":"{manifest}","attackers":[],"services":[],"matrix":[],"differences":[]}}"#);
                asked(operator(), "PUT", "/breach", &typed, &told)
            }
            "console.map" => asked(self.proof("edge"), "GET", "/console", &[("txn-token", &admin)], ""),
            "console.page" => asked(self.proof("edge"), "GET", "/console/audit", &[("txn-token", &admin)], ""),
            _ => return None,
        })
    }

    /// A message for the validator, as `queue` hands it to the guard; the job says `consumer`, the header `queue`.
    pub fn delivery(&self, consumer: &str, queue: &str) -> Asked {
        let job = trust::Job {
            id: "job".into(),
            lease: "lease".into(),
            queue: "uploaded".into(),
            consumer: consumer.into(),
            inputs: Vec::new(),
            folder: "v".into(),
        };
        let token = self.job_token(job);
        asked(self.proof("queue"), "POST", "/events", &[("txn-token", &token), (contract::guard::QUEUE_HEADER, queue)], "{}")
    }
}

/// A compact JWS with another signature.
pub fn resigned(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[7] ^= 1;
    format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

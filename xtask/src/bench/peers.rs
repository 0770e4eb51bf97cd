//! The peers' configurations: what the field runs in the product's place, set up to do the same work as far as they can.
//!
//! TLS 1.3 with AES-128-GCM; one worker; kept connections; no access log. Envoy keeps verified tokens, as the product does.

use serde_json::{Value, json};

use super::rig::Rig;
use super::scenario::{AUDIENCE, FIRST, ISSUER, Program, SCOPE, SECOND, Scenario, Shown};
use crate::Outcome;

const SERVER: &str = "app.bench.local";

/// HAProxy: one process for each hop.
pub(super) fn haproxy(rig: &Rig, path: &str, scenario: Scenario, shown: Shown) -> Outcome<Vec<Program>> {
    let ports = rig.ports;
    let file = |name: &str| rig.file(name);
    let hop = |name: &str, port: u16, to: u16, bind: &str, rules: &str, server: &str| -> Outcome<Program> {
        let text = format!(
            "global\n  nbthread 1\n  maxconn 8192\n  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256\n  \
             ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
             ssl-default-server-options ssl-min-ver TLSv1.3\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  \
             timeout server 60s\n  http-reuse always\nfrontend entry\n  bind 127.0.0.1:{port} {bind}\n{rules}  default_backend onward\n\
             backend onward\n  server next 127.0.0.1:{to} maxconn 4096 {server}\n"
        );
        Ok(Program::measured([path, "-db", "-f", &rig.config(&format!("haproxy-{name}.cfg"), &text)?]))
    };
    let bind = format!("ssl crt {} alpn http/1.1", file("gateway.both.pem"));
    let mut rules = String::new();
    for rule in [
        "deny deny_status 401 unless { http_auth_bearer -m found }".to_owned(),
        "set-var(txn.token) http_auth_bearer".to_owned(),
        "set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')".to_owned(),
        "deny deny_status 401 unless { var(txn.alg) -m str ES256 RS256 }".to_owned(),
    ] {
        rules.push_str(&format!("  http-request {rule}\n"));
    }
    for algorithm in ["ES256", "RS256"] {
        let key = file(&format!("{algorithm}.pub.pem"));
        rules.push_str(&format!(
            "  http-request deny deny_status 401 if {{ var(txn.alg) -m str {algorithm} }} !{{ var(txn.token),jwt_verify(txn.alg,\"{key}\") -m int 1 }}\n"
        ));
    }
    for rule in [
        format!("deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}"),
        format!("deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {AUDIENCE} }}"),
        "set-var(txn.ends) var(txn.token),jwt_payload_query('$.exp','int')".to_owned(),
        "set-var(txn.now) date()".to_owned(),
        "deny deny_status 401 unless { var(txn.ends),sub(txn.now) -m int gt 0 }".to_owned(),
        format!("deny deny_status 403 unless {{ var(txn.token),jwt_payload_query('$.scope') -m reg '(^| ){SCOPE}( |$)' }}"),
    ] {
        rules.push_str(&format!("  http-request {rule}\n"));
    }
    let name = shown.name();
    let onward = format!(
        "ssl crt {} ca-file {} verify required verifyhost {SERVER} sni str({SERVER})",
        file(&format!("{name}.both.pem")),
        file("ca.pem")
    );
    // The DER of the entry among the alternative names: tag 6, length, text. HAProxy 2 has no word for a URI there.
    let id: String = FIRST.bytes().map(|byte| format!("{byte:02x}")).collect();
    let only = format!("  tcp-request session reject unless {{ ssl_c_der,hex -m sub -i 86{:02x}{id} }}\n", FIRST.len());
    let second = || {
        let bind = format!("ssl crt {} ca-file {} verify required alpn http/1.1", file("app.both.pem"), file("ca.pem"));
        hop("second", ports.peer, ports.app, &bind, &only, "")
    };
    Ok(match scenario {
        Scenario::Edge => vec![hop("first", ports.entry, ports.app, &bind, &rules, "")?],
        Scenario::EdgeAndHop => vec![hop("first", ports.entry, ports.peer, &bind, &rules, &onward)?, second()?],
        Scenario::Hop => vec![hop("first", ports.entry, ports.peer, "", "", &onward)?, second()?],
    })
}

/// nginx: a mesh hop, which is what it can do without a module of its own for JWT.
pub(super) fn nginx(rig: &Rig, path: &str, shown: Shown) -> Outcome<Vec<Program>> {
    let ports = rig.ports;
    let tls = "ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; ssl_ecdh_curve X25519;\n\
               ssl_session_cache shared:S:10m; ssl_session_tickets on;";
    let server = |port: u16, listen: &str, to: u16, inside: &str, location: &str| {
        format!(
            "{tls}\nupstream next {{ server 127.0.0.1:{to}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s; }}\n\
             server {{ listen 127.0.0.1:{port} {listen}; {inside}\nlocation / {{ {location}\nproxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header Host $http_host; }} }}"
        )
    };
    let name = shown.name();
    let (ca, certificate, key) = (rig.file("ca.pem"), rig.file(&format!("{name}.pem")), rig.file(&format!("{name}.key")));
    let onward = format!(
        "proxy_pass https://next; proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {key}; proxy_ssl_trusted_certificate {ca};\n\
         proxy_ssl_verify on; proxy_ssl_name {SERVER}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;\n\
         proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let first = rig.nginx_config("nginx-first", &server(ports.entry, "", ports.peer, "", &onward))?;
    let inside = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {ca}; ssl_verify_client on;",
        rig.file("app.pem"),
        rig.file("app.key")
    );
    let known = format!("map $ssl_client_s_dn $known {{ default 0; \"CN={FIRST}\" 1; }}\n");
    let second = server(ports.peer, "ssl", ports.app, &inside, "if ($known = 0) { return 403; } proxy_pass http://next;");
    let second = rig.nginx_config("nginx-second", &format!("{known}{second}"))?;
    Ok(vec![Program::measured([path, "-c", &first]), Program::measured([path, "-c", &second])])
}

fn extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// Envoy: one process for each hop.
pub(super) fn envoy(rig: &Rig, path: &str, scenario: Scenario, shown: Shown) -> Outcome<Vec<Program>> {
    let ports = rig.ports;
    let hop = |name: &str, listener: Value, onward: Value| -> Outcome<Program> {
        let config = json!({ "static_resources": { "listeners": [listener], "clusters": [onward] } });
        let file = rig.config(&format!("envoy-{name}.json"), &config.to_string())?;
        Ok(Program::measured([path, "-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]))
    };
    let public = || json!({ "common_tls_context": envoy_tls(rig, "gateway", Value::Null) });
    let onward = || {
        let only = json!({ "trusted_ca": { "filename": rig.file("ca.pem") }, "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": SECOND } }] });
        let tls = json!({ "@type": extension("transport_sockets.tls.v3.UpstreamTlsContext"), "common_tls_context": envoy_tls(rig, shown.name(), only), "sni": SERVER });
        envoy_cluster(ports.peer, Some(tls))
    };
    let second = || {
        let filters = vec![envoy_allow(&json!({ "any": true }), &json!({ "authenticated": { "principal_name": { "exact": FIRST } } }))];
        let tls = envoy_tls(rig, "app", json!({ "trusted_ca": { "filename": rig.file("ca.pem") } }));
        let tls = json!({ "require_client_certificate": true, "common_tls_context": tls });
        hop("second", envoy_listener(ports.peer, filters, Some(tls)), envoy_cluster(ports.app, None))
    };
    let tokens = || envoy_tokens(rig);
    Ok(match scenario {
        Scenario::Edge => vec![hop("first", envoy_listener(ports.entry, tokens(), Some(public())), envoy_cluster(ports.app, None))?],
        Scenario::EdgeAndHop => vec![hop("first", envoy_listener(ports.entry, tokens(), Some(public())), onward())?, second()?],
        Scenario::Hop => vec![hop("first", envoy_listener(ports.entry, Vec::new(), None), onward())?, second()?],
    })
}

fn envoy_tls(rig: &Rig, name: &str, validation: Value) -> Value {
    let mut context = json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": { "filename": rig.file(&format!("{name}.pem")) },
            "private_key": { "filename": rig.file(&format!("{name}.key")) },
        }],
        "alpn_protocols": ["http/1.1"],
    });
    if !validation.is_null() {
        context["validation_context"] = validation;
    }
    context
}

fn envoy_allow(permission: &Value, principal: &Value) -> Value {
    json!({ "name": "rbac", "typed_config": {
        "@type": extension("filters.http.rbac.v3.RBAC"),
        "rules": { "action": "ALLOW", "policies": { "known": { "permissions": [permission], "principals": [principal] } } },
    } })
}

fn envoy_tokens(rig: &Rig) -> Vec<Value> {
    let provider = json!({
        "issuer": ISSUER, "audiences": [AUDIENCE], "forward": true, "payload_in_metadata": "jwt",
        "normalize_payload_in_metadata": { "space_delimited_claims": ["scope"] },
        "local_jwks": { "filename": rig.file("jwks.json") },
        "jwt_cache_config": { "jwt_cache_size": 10_000 },
    });
    let verify = json!({ "name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": extension("filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": { "bench": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "bench" } }],
    } });
    let scope = json!({ "metadata": {
        "filter": "envoy.filters.http.jwt_authn", "path": [{ "key": "jwt" }, { "key": "scope" }],
        "value": { "list_match": { "one_of": { "string_match": { "exact": SCOPE } } } },
    } });
    vec![verify, envoy_allow(&json!({ "any": true }), &scope)]
}

fn envoy_address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn envoy_listener(port: u16, mut filters: Vec<Value>, tls: Option<Value>) -> Value {
    filters.push(json!({ "name": "envoy.filters.http.router", "typed_config": { "@type": extension("filters.http.router.v3.Router") } }));
    let manager = json!({
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "entry", "codec_type": "HTTP1", "generate_request_id": false, "http_filters": filters,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "onward" } }] }] },
    });
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager }] });
    if let Some(mut tls) = tls {
        tls["@type"] = extension("transport_sockets.tls.v3.DownstreamTlsContext").into();
        chain["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    }
    json!({ "name": "entry", "address": envoy_address(port), "filter_chains": [chain] })
}

fn envoy_cluster(port: u16, tls: Option<Value>) -> Value {
    let most = json!({ "max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096 });
    let mut cluster = json!({
        "name": "onward", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": { "thresholds": [most] },
        "load_assignment": { "cluster_name": "onward", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": envoy_address(port) } }] }] },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    }
    cluster
}

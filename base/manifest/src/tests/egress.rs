//! D10: destinations outside, as they may and may not be declared.

use super::*;

const DAYS: &str = r#"
[egress.days]
host = "days.example"
data = "video"
"#;

/// The reference manifest in which `api` calls `days` that is declared like this.
fn with(destination: &str) -> String {
    let calls = "\"bucket.renditions:presign-get for view\",";
    assert!(VIDEO.contains(calls));
    VIDEO.replace(calls, &format!("{calls}\n  \"egress.days:POST /days/{{day}} for view\",")) + destination
}

fn problem(text: &str, said: &str) {
    let error = refused(text).to_string();
    assert!(error.contains(said), "{said:?} is not in: {error}");
}

#[test]
fn a_destination_is_declared_with_what_may_go_there() {
    let manifest = Manifest::parse("palisade.toml", &with(DAYS)).unwrap_or_else(|e| panic!("{e}"));
    let days = &manifest.egress["days"];
    assert_eq!(
        (days.port, days.body_bytes_max, days.answer_bytes_max, days.wall_ms, days.concurrency),
        (443, 1 << 20, 16 << 20, 30_000, 32)
    );
    assert!(days.networks.is_empty() && !days.trace);
    let flows: Vec<String> = manifest.services["api"].flows.iter().map(ToString::to_string).collect();
    assert!(flows.contains(&"egress.days:POST /days/{day}".to_owned()), "{flows:?}");
    let whole = format!(
        "{DAYS}port = 8443\nroot = \"tls/days.pem\"\nnetworks = [\"10.1.0.0/16\", \"fd00:1::/32\"]\nmax_body = \"2MiB\"\nwall = \"5s\"\n\
         certificate = {{ chain = \"tls/us.pem\", key = \"tls/us.key\" }}\ncredential = {{ header = \"x-api-key\", file = \"days.token\" }}\n"
    );
    assert!(Manifest::parse("palisade.toml", &with(&whole)).is_ok());
}

// D10: what only looks like a name, what nobody means, and every spelling of an address.
#[test]
fn hosts_and_networks_that_cannot_be_meant_are_refused() {
    let host = |host: &str| with(&DAYS.replace("days.example", host));
    for spelling in [
        "127.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "days.0x1",
        "127.0.0.1.",
        "[::1]",
        "fe80::1%eth0",
        "Days.example",
        "days.example:443",
        "a@days.example",
        "",
    ] {
        problem(&host(spelling), "is no host name");
    }
    for (address, why) in [
        ("169.254.169.254", "never connected to"),
        ("fd00:ec2::254", "never connected to"),
        ("100.100.100.200", "never connected to"),
        ("::ffff:1.1.1.1", "never connected to"),
        ("0:0:0:0:0:ffff:7f00:1", "never connected to"),
        ("64:ff9b::101:101", "never connected to"),
        ("fe80::1", "never connected to"),
        ("255.255.255.255", "never connected to"),
        ("10.1.2.3", "is not public"),
        ("::1", "is not public"),
        ("0:0:0:0:0:0:0:1", "is not public"),
    ] {
        problem(&host(address), why);
    }
    assert!(Manifest::parse("x", &host("1.1.1.1")).is_ok() && Manifest::parse("x", &host("2606:4700::1111")).is_ok());
    let networks = |list: &str| with(&format!("{DAYS}networks = [{list}]\n"));
    for network in [
        "169.254.0.0/16",
        "169.254.169.254",
        "fd00:ec2::/32",
        "100.100.100.200",
        "0.0.0.0/0",
        "::/0",
        "fe80::/10",
        "224.0.0.0/4",
        "64:ff9b::/96",
    ] {
        problem(&networks(&format!("\"{network}\"")), "cannot be declared");
    }
    problem(&networks("\"10.1.0.0/8\""), "10.0.0.0/8");
    let inside = networks("\"10.1.0.0/16\"").replace("days.example", "10.1.2.3");
    assert!(Manifest::parse("x", &inside).is_ok());
    problem(&inside.replace("10.1.2.3", "10.2.0.0"), "none of the declared networks");
}

#[test]
fn a_flow_outside_names_method_path_and_purpose() {
    let flow = |text: &str| with(DAYS).replace("egress.days:POST /days/{day} for view", text);
    for (text, said) in [
        ("egress.days:connect", "says method and path"),
        ("egress.days:FETCH /days/{day} for view", "unknown method"),
        ("egress.days:POST days for view", "begins with '/'"),
        ("egress.days:POST /days/{day}", "say for which purpose"),
        ("egress.days:POST /days/{day} for fun", "no purpose 'fun'"),
        ("egress.hours:POST /days/{day} for view", "no egress 'hours'"),
    ] {
        problem(&flow(text), said);
    }
    problem(&flow("egress.days:POST /days/{day} for view\", \"egress.days:POST /days/{x} for upload"), "means the same requests");
}

// D10: a destination gets no more than it may have, and what parses strangers' bytes reaches nothing outside.
#[test]
fn no_service_calls_a_destination_that_may_have_less_than_it_handles() {
    let less = with(&DAYS.replace("\"video\"", "\"page\""));
    problem(&less, "'api' handles 'video' (sensitivity 2), but 'days' may have 'page' (1) at most");
    assert!(Manifest::parse("x", &format!("{less}declassified = \"only the day is sent\"\n")).is_ok());
    problem(&format!("{less}declassified = \" \"\n"), "what keeps more sensitive data");
    let untrusted =
        VIDEO.replacen("\"bucket.originals:verdict\",", "\"bucket.originals:verdict\", \"egress.days:POST /days for process\",", 1) + DAYS;
    problem(&untrusted, "reaches nothing outside");
}

#[test]
fn names_files_and_credentials_of_destinations_are_checked() {
    for (more, said) in [
        ("credential = { header = \"Authorization\", file = \"t\" }", "no name of a field"),
        ("credential = { header = \"host\", file = \"t\" }", "means something else already"),
        ("credential = { header = \"authorization\", file = \"../t\" }", "without '..'"),
        ("certificate = { chain = \"a\", key = \"../b\" }", "without '..'"),
        ("root = \"..\"", "without '..'"),
        ("data = \"nothing\"", "no class of data 'nothing'"),
        ("plain = true", "unknown key 'plain'"),
    ] {
        let text = if more.starts_with("data") { DAYS.replace("data = \"video\"", more) } else { format!("{DAYS}{more}\n") };
        problem(&with(&text), said);
    }
    for taken in ["queue", "web"] {
        let text = with(DAYS).replace("egress.days", &format!("egress.{taken}"));
        problem(&text, "is the name of a service or of one of Palisade's own");
    }
}

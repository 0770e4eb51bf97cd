//! G12: a host for what people have stored.

use super::*;

#[test]
fn what_people_have_stored_may_have_a_host_of_its_own() {
    let edge = Manifest::parse("x", VIDEO).unwrap_or_else(|e| panic!("{e}")).edge;
    assert_eq!(edge.content.as_deref(), Some("content.localhost"));
    assert_eq!((edge.main_host(), edge.hosts.contains("content.localhost")), ("localhost", true));
    assert!(edge.local_hosts().contains("content.localhost"), "it needs a certificate as every host does");
    // It is never the host that people sign in at, wherever it stands in the alphabet.
    let bare = VIDEO.replacen("hosts = [\"localhost\", \"127.0.0.1\"]", "hosts = [\"video.localhost\"]", 1);
    assert_eq!(Manifest::parse("x", &bare).unwrap_or_else(|e| panic!("{e}")).edge.main_host(), "video.localhost");
    let line = "content = \"content.localhost\"";
    for (written, message) in [
        ("content = \"localhost\"", "for pages and callers already"),
        ("content = \"127.0.0.1\"", "one host name"),
        ("content = \"Content.localhost\"", "one host name"),
        ("content = \"content.localhost:8444\"", "one host name"),
        ("content = \"content.example\"", "'content.example' has no certificate"),
    ] {
        let text = refused(&VIDEO.replacen(line, written, 1)).to_string();
        assert!(text.contains(message), "{written}: {text}");
    }
    let public = VIDEO.replacen("[service.web] ", "[service.web]\npublic_at = { host = \"content.localhost\" }\n#", 1);
    assert!(refused(&public).to_string().contains("no host 'content.localhost'"), "no service is there");
}

//! Manifests: any text is a manifest that is valid whole, or a list of problems; its digest does not depend on the layout.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::Manifest;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::parse("palisade.toml", text) {
        let spaced = format!("\n\n{text}\n# a comment\n");
        let again = Manifest::parse("palisade.toml", &spaced).expect("blank lines and comments change nothing");
        assert_eq!(manifest.digest(), again.digest());
    }
});

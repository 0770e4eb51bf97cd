//! System packages: what is missing is installed, and said.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Outcome, tree};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Looked for in PATH, or as a file when absolute.
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// What for.
    pub why: &'static str,
}

/// For running the reference system.
pub const RUN: &[Need] = &[
    Need { program: "cc", package: "build-essential", why: "builds the C parts of dependencies" },
    Need { program: "/usr/bin/ffmpeg", package: "ffmpeg", why: "the transcoder's tool" },
    Need { program: "/usr/bin/python3", package: "python3", why: "the web service is written in it" },
];

/// For `demo` and the tests, besides.
pub const DEMO: &[Need] = &[Need { program: "curl", package: "curl", why: "the independent HTTP client of demo and tests" }];

/// For the tests, besides.
pub const TEST: &[Need] = &[
    Need { program: "/usr/bin/chromium", package: "chromium", why: "the browser of the end-to-end tests" },
    Need { program: "/usr/bin/chromedriver", package: "chromium-driver", why: "drives that browser" },
    Need { program: "tcpdump", package: "tcpdump", why: "captures loopback to look for plain text" },
    Need { program: "promtool", package: "prometheus", why: "checks metrics and alert rules" },
    Need {
        program: "/usr/lib/python3/dist-packages/prometheus_client/openmetrics/parser.py",
        package: "python3-prometheus-client",
        why: "reads the metrics as OpenMetrics, strictly",
    },
    Need { program: "/usr/bin/pip3", package: "python3-pip", why: "installs boto3 and the AWS CLI, clients of the S3 tests" },
    Need { program: "/usr/bin/node", package: "nodejs", why: "runs the AWS SDK for JavaScript, a client of the S3 tests" },
    Need { program: "npm", package: "npm", why: "installs that SDK" },
    Need { program: "openssl", package: "openssl", why: "a second opinion on certificate chains" },
    Need { program: "pebble", package: "pebble", why: "an ACME authority, of whom the edge gets certificates" },
    Need { program: "/usr/bin/bwrap", package: "bubblewrap", why: "the other backend of sandboxes, which passes the same tests" },
    Need { program: "setpriv", package: "util-linux", why: "tests as an unprivileged user" },
];

/// For the benchmarks, besides. The peers are measured where they are installed.
pub const BENCH: &[Need] = &[
    Need { program: "wrk", package: "wrk", why: "makes the load" },
    Need { program: "h2load", package: "nghttp2-client", why: "makes load at a fixed rate" },
    Need { program: "nginx", package: "nginx-light", why: "the app behind what is measured" },
    Need { program: "taskset", package: "util-linux", why: "gives what is measured a core of its own" },
];

/// Installs what is missing of `needs`.
///
/// # Errors
/// When something is missing and it cannot be installed; says with which command a person can.
pub fn ensure(needs: &[Need]) -> Outcome {
    let missing: Vec<&Need> = needs.iter().filter(|need| !present(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({}); package {}", need.program, need.why, need.package);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("install them with: sudo apt-get install {}", packages.join(" "));
    if !present("apt-get") {
        return Err(format!("this machine has no apt-get; {by_hand}").into());
    }
    let as_root = tree::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !as_root && !present("sudo") {
        return Err(by_hand.into());
    }
    println!("installing: {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = if as_root { Command::new("apt-get") } else { Command::new("sudo") };
        if !as_root {
            command.args(["-n", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    tree::run(&mut apt(&["update", "-qq"])).map_err(|e| format!("{e}; {by_hand}"))?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&packages);
    tree::run(&mut apt(&install)).map_err(|e| format!("{e}; {by_hand}"))?;
    match needs.iter().find(|need| !present(need.program)) {
        Some(need) => Err(format!("{} is still missing after installing {}", need.program, need.package).into()),
        None => Ok(()),
    }
}

/// Whether a program can be run.
#[must_use]
pub fn present(program: &str) -> bool {
    found(program).is_some()
}

/// Where a program is, if it is.
#[must_use]
pub fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    // An absolute path stays what it is when it is joined.
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Installs a cargo tool that is missing, into the user's cargo folder.
///
/// # Errors
/// When it cannot be built.
pub fn ensure_cargo_tool(name: &str, version: &str) -> Outcome {
    let subcommand = name.strip_prefix("cargo-").unwrap_or(name);
    let found = tree::cargo().args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("installing: {name} {version} (cargo install; takes some minutes once)");
    tree::run(tree::cargo().args(["install", name, "--version", version, "--locked", "--debug", "--quiet"]))
}

//! `cargo xtask`: set up, run, test, show and check the project.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Palisade's own tools.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing, build, and run the reference video platform until Ctrl-C.
    Up {
        /// Address of the edge; port 0 chooses a free one.
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: String,
        /// Folder for data and keys.
        #[arg(long, default_value = ".palisade")]
        dir: PathBuf,
    },
    /// Install what is missing, build, and run every test.
    Test,
    /// Take one video through a system of its own, and print one JSON line about it.
    Demo {
        /// A video: MP4 or WebM.
        file: PathBuf,
    },
    /// Measure beside the peers that are installed (HAProxy, Envoy, nginx), and print tables with ratios.
    Bench(xtask::bench::Wanted),
    /// Compare the reference system with the same application as one process: cost, reach after a break-in, crashes.
    Twin(xtask::twin::Comparison),
    /// The confused deputy: an api that does whatever it is asked, and what becomes of it.
    Deputy,
    /// Check the taste of the code: file sizes, module docs, names; a ratchet.
    Tidy,
    /// Check that the crates depend on each other only as the floor plan allows.
    Floorplan,
    /// Check licences, bans and sources of all dependencies, offline.
    Deny,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { listen, dir } => xtask::up::run(&listen, &dir),
        Command::Test => xtask::tests::run(),
        Command::Demo { file } => xtask::demo::run(&file),
        Command::Bench(wanted) => xtask::bench::run(&wanted),
        Command::Twin(wanted) => xtask::twin::run(&wanted),
        Command::Deputy => xtask::deputy::run(),
        Command::Tidy => xtask::tidy::run(),
        Command::Floorplan => xtask::floorplan::run(),
        Command::Deny => xtask::deny::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

//! The twin: the video application as one process, with everything that an ordinary one has.
//!
//! Pages, sign-in, catalogue, uploads, the check of what was uploaded, FFmpeg as a child, files on its disk, TLS. It shares the
//! catalogue, the check and FFmpeg's command lines with the services of the reference system, so that what differs is how the parts
//! are put together. `cargo xtask twin` prints both side by side (docs/twin.md).
//!
//! Guarantees: N8 the same functional suite passes; L14.
//! Not here:   a sandbox, an audit log, limits of rate: what people put in front of or around such a program.

mod accounts;
mod door;
mod files;
mod pages;
mod passwords;
mod routes;
mod uploads;
mod visitor;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::json;
use video_api::catalogue::Catalogue;
use video_transcoder::run::Ffmpeg;

use crate::accounts::Accounts;
use crate::files::Files;

/// What a start or a command ends with when it fails.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The video application as one process.
#[derive(Debug, Parser)]
#[command(name = "video-monolith")]
struct Arguments {
    /// Folder of its databases and files.
    #[arg(long)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Listens and works until SIGTERM; prints one JSON line once it does.
    Serve {
        /// Address; port 0 chooses a free one.
        #[arg(long, default_value = "127.0.0.1:8444")]
        listen: SocketAddr,
        /// Certificate chain, PEM.
        #[arg(long)]
        chain: PathBuf,
        /// Private key, PEM.
        #[arg(long)]
        key: PathBuf,
        /// Folder of the page, its style and its script.
        #[arg(long)]
        pages: PathBuf,
        /// FFmpeg.
        #[arg(long, default_value = "/usr/bin/ffmpeg")]
        ffmpeg: PathBuf,
    },
    /// Prints a one-time link's path, for one more person.
    Invite,
}

/// What every part works with.
pub(crate) struct App {
    pub(crate) accounts: Accounts,
    pub(crate) catalogue: Catalogue,
    pub(crate) files: Files,
    pub(crate) pages: pages::Pages,
    pub(crate) workshop: work::Workshop,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    log(&error.to_string());
    ExitCode::FAILURE
}

/// Writes one line to the log (standard error).
pub(crate) fn log(line: &str) {
    eprintln!("video-monolith: {line}");
}

async fn run(Arguments { dir, command }: Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&dir)?;
    let accounts = Accounts::open(&dir).await?;
    match command {
        Command::Invite => say(&json!({ "path": accounts.invite().await? })),
        Command::Serve { listen, chain, key, pages, ffmpeg } => {
            let acceptor = door::acceptor(&chain, &key)?;
            let listener = tokio::net::TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            let invitation = if accounts.has_people().await? { None } else { Some(accounts.invite().await?) };
            let app = Arc::new(App {
                catalogue: Catalogue::open(&dir).await?,
                files: Files::open(&dir)?,
                pages: pages::Pages::load(&pages)?,
                workshop: work::Workshop::new(Ffmpeg { program: ffmpeg, wall: Duration::from_secs(3300) }),
                accounts,
            });
            work::take_up_again(&app).await?;
            let origin = format!("https://localhost:{}", address.port());
            say(&json!({ "address": origin, "first_link": invitation.map(|path| format!("{origin}{path}")) }));
            door::serve(listener, acceptor, routes::router(app)).await?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program's answer to its caller")]
fn say(line: &serde_json::Value) {
    println!("{line}");
}

//! Commands that ask a running system over its operator sockets: `user`, `revoke`, `trace`.

use std::path::Path;
use std::process::ExitCode;

use contract::login::{Invite, Invited, Person};
use contract::{Call, Client};
use http::Method;
use trust::SpiffeId;

use super::{DirArgument, Failure, Format, block_on, say};
use crate::system::Layout;

/// People who may sign in.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum User {
    /// Invite a person: prints a one-time link behind which they choose their password.
    Invite {
        /// Name to sign in with.
        name: String,
        /// Roles, such as `admin`; may be given several times.
        #[arg(long = "role")]
        roles: Vec<String>,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// List them.
    List {
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Take a person's second factor away, because they lost it: they are signed out, and sign in by their password alone.
    ResetSecondFactor {
        /// The person's id, as `list` prints it.
        user: String,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Remove a person: sessions and tokens end at once.
    Remove {
        /// The person's id, as `list` prints it.
        user: String,
        #[command(flatten)]
        dir: DirArgument,
    },
}

impl User {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        match self {
            Self::Invite { name, roles, dir } => invite(name, roles, &dir.dir, format),
            Self::List { dir } => list(&dir.dir, format),
            Self::ResetSecondFactor { user, dir } => delete(&format!("/users/{user}/factor"), dir),
            Self::Remove { user, dir } => delete(&format!("/users/{user}"), dir),
        }
    }
}

fn delete(path: &str, dir: DirArgument) -> Result<ExitCode, Failure> {
    block_on(async {
        let client = operator(&Layout { dir: dir.dir }, "login")?;
        client.bytes::<()>(&Call::default(), Method::DELETE, path, None).await.map_err(Failure::failed)
    })??;
    Ok(ExitCode::SUCCESS)
}

/// A client of a role's operator socket.
pub(super) fn operator(layout: &Layout, role: &str) -> Result<Client, Failure> {
    let socket = layout.operator(role);
    if !socket.exists() {
        let dir = layout.dir.display();
        return Err(Failure::failed(format_args!(
            "no system has run in {dir}; start one with `palisade up`, or name its folder with --dir"
        )));
    }
    Ok(Client::new(proxy::client::UnixTransport::new(socket)))
}

fn invite(name: String, roles: Vec<String>, dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let request = Invite { name, roles: roles.into_iter().collect() };
    let invited: Invited = block_on(async {
        let client = operator(&Layout { dir: dir.to_path_buf() }, "login")?;
        client.json(&Call::default(), Method::POST, "/users", &request).await.map_err(Failure::failed)
    })??;
    match format {
        Format::Json => say(serde_json::to_string(&invited).map_err(Failure::failed)?),
        Format::Text => say(format_args!("{}{}\nworks once", contract::login::ISSUER_PATH, invited.path)),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let people: Vec<Person> = block_on(async {
        let client = operator(&Layout { dir: dir.to_path_buf() }, "login")?;
        client.get(&Call::default(), "/users").await.map_err(Failure::failed)
    })??;
    if format == Format::Json {
        say(serde_json::to_string(&people).map_err(Failure::failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    for person in people {
        let roles = person.roles.into_iter().collect::<Vec<_>>().join(",");
        let state = match (person.enrolled, person.second_factor) {
            (false, _) => "  (link not used yet)",
            (true, false) => "",
            (true, true) => "  (second factor)",
        };
        say(format_args!("{}  {}  {}{state}", person.user, person.name, roles));
    }
    Ok(ExitCode::SUCCESS)
}

/// `palisade revoke`.
pub(super) fn revoke(spiffe_id: &SpiffeId, dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let answer: serde_json::Value = block_on(async {
        let client = operator(&Layout { dir: dir.to_path_buf() }, "control")?;
        client
            .json(&Call::default(), Method::POST, "/revoke", &serde_json::json!({ "spiffe_id": spiffe_id }))
            .await
            .map_err(Failure::failed)
    })??;
    match format {
        Format::Json => say(answer),
        Format::Text => say(format_args!("revoked: {spiffe_id}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// `palisade trace`.
pub(super) fn trace(trace: &str, dir: &Path) -> Result<ExitCode, Failure> {
    if trace.len() != 32 || !trace.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::failed("a trace id has 32 hexadecimal digits"));
    }
    let spans: serde_json::Value = block_on(async {
        let client = operator(&Layout { dir: dir.to_path_buf() }, "evidence")?;
        client.get(&Call::default(), &format!("/traces/{trace}")).await.map_err(Failure::failed)
    })??;
    say(serde_json::to_string_pretty(&spans).map_err(Failure::failed)?);
    Ok(ExitCode::SUCCESS)
}

//! `palisade key`: keys for programs that cannot sign in.

use std::process::ExitCode;

use contract::Call;
use contract::login::{ApiKey, KeyMade, NewKey};
use http::Method;

use super::people::operator;
use super::{DirArgument, Failure, Format, block_on, say};
use crate::system::Layout;

/// API keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Key {
    /// Make a key for a program: prints it, this once.
    Create {
        /// What will use it.
        name: String,
        /// Id of the person that it acts for, as `user list` prints it.
        #[arg(long = "for")]
        user: String,
        /// Scopes that it brings; may be given several times.
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// Days until it ends: 366 at most.
        #[arg(long, default_value_t = 90)]
        days: u64,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// List them, with when they end.
    List {
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Revoke a key: it is refused within a second.
    Revoke {
        /// The key's id, as `list` prints it.
        id: String,
        #[command(flatten)]
        dir: DirArgument,
    },
}

impl Key {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        match self {
            Self::Create { name, user, scopes, days, dir } => {
                let new = NewKey { user, name, scopes: scopes.into_iter().collect(), life_s: days.saturating_mul(24 * 3600) };
                let made: KeyMade = block_on(async {
                    let client = operator(&Layout { dir: dir.dir }, "login")?;
                    client.json(&Call::default(), Method::POST, "/keys", &new).await.map_err(Failure::failed)
                })??;
                match format {
                    Format::Json => say(serde_json::to_string(&made).map_err(Failure::failed)?),
                    Format::Text => say(format_args!("{}\nshown this once; revoke it with: palisade key revoke {}", made.key, made.id)),
                }
            }
            Self::List { dir } => {
                let keys: Vec<ApiKey> = block_on(async {
                    let client = operator(&Layout { dir: dir.dir }, "login")?;
                    client.get(&Call::default(), "/keys").await.map_err(Failure::failed)
                })??;
                if format == Format::Json {
                    say(serde_json::to_string(&keys).map_err(Failure::failed)?);
                    return Ok(ExitCode::SUCCESS);
                }
                for key in keys {
                    let end = if key.revoked_s.is_some() { "revoked".to_owned() } else { format!("ends {}", date(key.expires_s)) };
                    let scopes = key.scopes.into_iter().collect::<Vec<_>>().join(",");
                    say(format_args!("{}  {}  {}  {scopes}  {end}", key.id, key.user, key.name));
                }
            }
            Self::Revoke { id, dir } => {
                block_on(async {
                    let client = operator(&Layout { dir: dir.dir }, "login")?;
                    client.bytes::<()>(&Call::default(), Method::DELETE, &format!("/keys/{id}"), None).await.map_err(Failure::failed)
                })??;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The day of a time, as RFC 3339 writes it.
fn date(unix_s: u64) -> String {
    let at = i64::try_from(unix_s).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    at.map_or_else(|| unix_s.to_string(), |at| at.date().to_string())
}

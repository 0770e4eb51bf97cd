//! Settings from the environment: the addresses of the neighbours, and the port to listen on.
//!
//! Spec:       twelve-factor configuration; the names are those the S3, OTLP and queue clients of the field read.
//! Guarantees: a missing setting is named, with what it is for, before anything starts.
//! Not here:   secrets; a service holds none.

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The variable is not in the environment.
    #[error("{name} is not set; it must hold {meaning}")]
    Missing {
        /// The variable's name.
        name: &'static str,
        /// What it should hold.
        meaning: &'static str,
    },
    /// The variable cannot be understood.
    #[error("{name}={value:?} is not {meaning}")]
    Invalid {
        /// The variable's name.
        name: &'static str,
        /// What was found.
        value: String,
        /// What it should hold.
        meaning: &'static str,
    },
}

/// Reads one variable that must be there.
///
/// # Errors
/// [`SettingError::Missing`] when it is absent, empty or not UTF-8.
pub fn required(name: &'static str, meaning: &'static str) -> Result<String, SettingError> {
    optional(name).ok_or(SettingError::Missing { name, meaning })
}

/// Reads one variable that may be absent; an empty one counts as absent.
#[must_use]
pub fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads one number that may be absent.
///
/// # Errors
/// [`SettingError::Invalid`] when it is there and no number.
pub fn number(name: &'static str, default: u64) -> Result<u64, SettingError> {
    match optional(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| SettingError::Invalid { name, value, meaning: "a whole number" }),
    }
}

/// Reads an address of a neighbour (`http://127.0.0.1:4000`), without a slash at its end.
///
/// # Errors
/// [`SettingError`] when it is absent or not plain HTTP.
pub fn neighbour(name: &'static str, meaning: &'static str) -> Result<String, SettingError> {
    let value = required(name, meaning)?;
    if value.starts_with("http://") {
        Ok(value.trim_end_matches('/').to_owned())
    } else {
        Err(SettingError::Invalid { name, value, meaning: "an http:// address" })
    }
}

/// Reads `PORT`, the loopback port to listen on.
///
/// # Errors
/// [`SettingError`] when it is absent or no port.
pub fn port() -> Result<u16, SettingError> {
    let meaning = "the port to listen on";
    let value = required("PORT", meaning)?;
    value.parse().map_err(|_| SettingError::Invalid { name: "PORT", value, meaning })
}

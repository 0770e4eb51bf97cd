//! Pages about the second factor: the code at sign-in, and setting it up.
//!
//! Guarantees: B13 in part; pictures are drawn in the page, so that no secret is in an address.

use std::fmt::Write;

use askama::Template;
use contract::Body;
use http::{HeaderMap, Response, StatusCode};
use qrcode::{Color, EcLevel, QrCode};
use trust::{Fault, Secret};

use super::{Frame, html};
use crate::answer::Refusal;
use crate::client::Client;
use crate::provider::Inner;

/// What the page that asks for a code is filled with.
#[derive(Debug, Clone)]
pub(crate) struct Second<'a> {
    /// The authorization request that it serves.
    pub(crate) request: &'a str,
    /// The client of that request.
    pub(crate) client: Client,
    /// That the password was right.
    pub(crate) proof: &'a str,
    /// What was wrong.
    pub(crate) error: Option<&'a str>,
}

/// What somebody's second factor is like.
#[derive(Debug)]
pub(crate) enum FactorState {
    /// There is none.
    Off,
    /// A secret is shown, and a code of it is asked for.
    Pending { uri: Secret<String>, text: Secret<String>, error: Option<&'static str> },
    /// Recovery codes, the one time that they are shown.
    Codes { codes: Vec<String> },
    /// There is one, with so many recovery codes left.
    On { left: usize },
}

#[derive(Template)]
#[template(path = "second.html")]
struct SecondPage<'a> {
    frame: Frame<'a>,
    token: &'a str,
    request: &'a str,
    proof: &'a str,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "factor.html")]
struct FactorPage<'a> {
    frame: Frame<'a>,
    token: &'a str,
    home: &'a str,
    state: &'a FactorState,
    picture: Option<Picture>,
}

/// A QR code: how many modules it is wide, with the quiet zone, and the outline of the dark ones.
struct Picture {
    width: usize,
    path: String,
}

/// Light modules around it (ISO/IEC 18004, section 5.3.8).
const QUIET: usize = 4;

impl Picture {
    fn of(text: &str) -> Result<Self, Fault> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(Fault::internal)?;
        let (width, mut path) = (code.width(), String::new());
        for (y, row) in code.to_colors().chunks(width.max(1)).enumerate() {
            for (x, _) in row.iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
                // Writing to a text never fails.
                let _written = write!(path, "M{} {}h1v1h-1z", x.saturating_add(QUIET), y.saturating_add(QUIET));
            }
        }
        Ok(Self { width: width.saturating_add(2 * QUIET), path })
    }
}

impl Inner {
    /// The page that asks for a code.
    pub(crate) fn second_page(&self, headers: &HeaderMap, status: StatusCode, filled: Second<'_>) -> Result<Response<Body>, Refusal> {
        let (token, cookie) = self.form_token(headers);
        let Second { request, client, proof, error } = filled;
        let page = SecondPage { frame: self.frame(), token: &token, request, proof, error };
        html(status, page.render(), &client.form_targets(), cookie.as_deref())
    }

    /// The page about somebody's own second factor.
    pub(crate) fn factor_state_page(
        &self,
        headers: &HeaderMap,
        status: StatusCode,
        state: &FactorState,
    ) -> Result<Response<Body>, Refusal> {
        let (token, cookie) = self.form_token(headers);
        let picture = match state {
            FactorState::Pending { uri, .. } => Some(Picture::of(uri.expose())?),
            _ => None,
        };
        let home = format!("{}/", self.public_origin);
        let page = FactorPage { frame: self.frame(), token: &token, home: &home, state, picture };
        html(status, page.render(), "'self'", cookie.as_deref())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    // ISO/IEC 18004: a code of version 1 is 21 modules wide, and begins with the finder's seven dark ones.
    #[test]
    fn pictures_have_their_finder_and_their_quiet_zone() {
        let picture = Picture::of("A").unwrap();
        assert_eq!(picture.width, 21 + 8);
        let first: Vec<&str> = picture.path.split_inclusive('z').take(7).collect();
        assert_eq!(first, (4..11).map(|x| format!("M{x} 4h1v1h-1z")).collect::<Vec<_>>());
    }

    // The longest name that a person may have, each character of four bytes, still fits.
    #[test]
    fn long_names_fit_into_a_picture() {
        let uri = crate::totp::Totp::new(&trust::SystemEntropy).uri(&"s".repeat(63), &"\u{1f600}".repeat(64));
        assert!(Picture::of(uri.expose()).is_ok());
    }
}

//! Tokens that are bound to a key or a certificate, in the hands of somebody who has neither.
//!
//! Spec:       RFC 9449, sections 4 and 7; RFC 8705, section 3; RFC 7636.

use std::io;

use super::{Notes, Row, Run, Visitor, Who, patiently};
use crate::attacker::http::{Answer, Ask, Request};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "bound",
    title: "Shows tokens that are bound to a key or a certificate: without a proof, with one of another key, with one that was used, with \
            another certificate; redeems stolen codes and refresh tokens.",
    attack: "T1528",
    stride: Stride::S,
    controls: &[Control::SignIn],
    run: Run::Outside(run, &[Who::Stranger]),
};

/// What a thief has besides.
pub trait Thief {
    /// A proof of the thief's own key for a request.
    ///
    /// # Errors
    /// It cannot be made.
    fn prove(&self, method: &str, path: &str, token: Option<&str>, nonce: Option<&str>) -> io::Result<String>;
    /// The way in over a connection that shows a certificate of another partner.
    fn with_another_certificate(&self) -> &dyn Ask;
}

/// What a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundTo {
    /// A key, by DPoP.
    Key,
    /// A client's certificate.
    Certificate,
}

/// A bound token and what else was seen of its owner.
#[derive(Debug, Clone)]
pub struct Bound {
    /// To what.
    pub to: BoundTo,
    /// Whose application it is of.
    pub client: String,
    /// The access token.
    pub text: String,
    /// The refresh token that came with it.
    pub refresh: Option<String>,
    /// A code that its owner has not redeemed yet, and the address that it was given for.
    pub code: Option<(String, String)>,
    /// Service, path and answer's mark of what it opens, which its owner has just seen.
    pub opens: (String, String, String),
    /// The proof that its owner has just used for that.
    pub used: Option<String>,
    /// A proof that its owner made for something else, and that never arrived there.
    pub astray: Option<String>,
}

/// Where tokens are had.
const TOKEN: &str = "token";

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for why in visitor.unbound {
        notes.untried(why.clone());
    }
    for bound in visitor.bound {
        shown(visitor, notes, bound);
        renewed(visitor, notes, bound);
    }
    notes.shows(None);
}

/// The access token, at what it opens.
fn shown(visitor: &Visitor<'_>, notes: &mut Notes, bound: &Bound) {
    let (service, path, said) = &bound.opens;
    let (what, text) = (bound.what(), &bound.text);
    let opened = |notes: &mut Notes, context: &str, answer: io::Result<Answer>| {
        notes.shows(Some((&what, context)));
        match answer {
            Ok(answer) if answer.is_success() && answer.text().contains(said.as_str()) => {
                let cell = Cell::read(format!("elsewhere.{service}"), Extent::Everybody);
                notes.reached(cell, format!("{what}, {context}: it opens {service}"));
            }
            Ok(answer) => notes.stopped(Some(Control::SignIn), format!("{what}, {context}: {}", answer.status)),
            Err(_) => notes.stopped(Some(Control::SignIn), format!("{what}, {context}: no answer")),
        }
    };
    let get = |scheme: &str| Request::new("GET", path.clone()).with("authorization", format!("{scheme} {text}"));
    let thief = visitor.thief;
    opened(notes, "as Bearer, without a proof", patiently(visitor.bare, &get("Bearer")));
    opened(notes, "as DPoP, without a proof", patiently(visitor.bare, &get("DPoP")));
    let own = |scheme: &str| {
        let prove = |nonce: Option<&str>| thief.prove("GET", path, Some(text), nonce);
        proven(visitor.bare, &get(scheme), &prove)
    };
    opened(notes, "with a proof of the thief's own key", own("DPoP"));
    opened(notes, "as Bearer, with a proof of the thief's own key", own("Bearer"));
    for (context, proof) in [("with a proof that was used", &bound.used), ("with its owner's proof for another address", &bound.astray)] {
        if let Some(proof) = proof {
            opened(notes, context, patiently(visitor.bare, &get("DPoP").with("dpop", proof.clone())));
        }
    }
    if bound.to == BoundTo::Certificate {
        opened(notes, "with another partner's certificate", patiently(thief.with_another_certificate(), &get("Bearer")));
    }
}

/// What more tokens could be had with: the refresh token, and a code.
fn renewed(visitor: &Visitor<'_>, notes: &mut Notes, bound: &Bound) {
    let path = format!("{}/{TOKEN}", contract::login::ISSUER_PATH);
    let client = &bound.client;
    let form = |more: &str| {
        let request = Request::new("POST", path.clone());
        request.body("application/x-www-form-urlencoded", format!("client_id={client}&{more}"))
    };
    let mut grants = Vec::new();
    // Codes first: a refresh token that is shown wrongly may end all that came of the same sign-in.
    if let Some((code, back)) = &bound.code {
        let what = format!("a code for {}", bound.what());
        let body = |more: &str| format!("grant_type=authorization_code&redirect_uri={back}&code={code}{more}");
        grants.push((what.clone(), "without the verifier", form(&body(""))));
        grants.push((what, "with another verifier", form(&body(&format!("&code_verifier={}", "x".repeat(43))))));
    }
    if let Some(refresh) = &bound.refresh {
        let what = format!("a refresh token for {}", bound.what());
        grants.push((what, "at sign-in", form(&format!("grant_type=refresh_token&refresh_token={refresh}"))));
    }
    for (what, context, request) in grants {
        let prove = |nonce: Option<&str>| visitor.thief.prove("POST", &path, None, nonce);
        let ways = [
            ("", patiently(visitor.bare, &request)),
            (", with a proof of the thief's own key", proven(visitor.bare, &request, &prove)),
            (", with another partner's certificate", patiently(visitor.thief.with_another_certificate(), &request)),
        ];
        for (how, answer) in ways {
            let context = format!("{context}{how}");
            notes.shows(Some((&what, &context)));
            match answer {
                Ok(answer) if answer.text().contains("\"access_token\"") => {
                    notes.reached(Cell::secret("a token of a person"), format!("{what}, {context}: a token"));
                }
                Ok(answer) => notes.stopped(Some(Control::SignIn), format!("{what}, {context}: {}", answer.status)),
                Err(_) => notes.stopped(Some(Control::SignIn), format!("{what}, {context}: no answer")),
            }
        }
    }
}

impl Bound {
    /// In words.
    #[must_use]
    pub fn what(&self) -> String {
        let to = if self.to == BoundTo::Key { "a key" } else { "a certificate" };
        format!("a token bound to {to}")
    }
}

/// Asks with a proof, and once more with the nonce where one is wanted (RFC 9449, section 8).
///
/// # Errors
/// The proof cannot be made, or there is no answer.
pub fn proven(ask: &dyn Ask, request: &Request, prove: &dyn Fn(Option<&str>) -> io::Result<String>) -> io::Result<Answer> {
    let first = patiently(ask, &request.clone().with("dpop", prove(None)?))?;
    let Some(nonce) = first.header("dpop-nonce").filter(|_| first.status >= 400) else { return Ok(first) };
    patiently(ask, &request.clone().with("dpop", prove(Some(nonce))?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::RefCell;

    use super::*;

    /// Wants a nonce with the first proof, as an edge that was just started does.
    #[derive(Default)]
    struct Started(RefCell<Vec<String>>);

    impl Ask for Started {
        fn ask(&self, request: &Request) -> io::Result<Answer> {
            let proof = request.header("dpop").unwrap_or_default().to_owned();
            self.0.borrow_mut().push(proof.clone());
            let status = if proof.ends_with("n1") { 200 } else { 401 };
            Ok(Answer { status, headers: vec![("dpop-nonce".to_owned(), "n1".to_owned())], body: Vec::new() })
        }
    }

    #[test]
    fn a_proof_is_made_anew_with_the_nonce_that_is_wanted() {
        let edge = Started::default();
        let prove = |nonce: Option<&str>| Ok(format!("proof {}", nonce.unwrap_or("without")));
        assert_eq!(proven(&edge, &Request::new("GET", "/"), &prove).unwrap().status, 200);
        assert_eq!(edge.0.into_inner(), ["proof without", "proof n1"]);
    }
}

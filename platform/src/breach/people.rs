//! People of the copy: each comes in as people do, by a one-time link and a password, or with a key that an operator made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use breach::attacker::http::{Answer, Ask, Request};
use contract::login::{FACTOR_PATH, Invite, Invited, KeyMade, NewKey, Person};
use contract::{Call, Client};
use http::Method;
use tokio::runtime::Handle;
use trust::Clock;

use super::authenticator::Authenticator;
use super::browser::Browser;
use super::form::Form;
use super::stage::Stage;
use crate::system::Layout;

/// Long enough for every rule about passwords, and worth nothing: the copy is thrown away.
const PASSWORD: &str = "seven quiet herons over the marsh";
/// The first administrator's name.
const ROOT: &str = "root";
/// Signing in, and then nowhere: a copy has no pages of its own.
const START: &str = "/auth/login?return=/auth/login";
const FORM: &str = "application/x-www-form-urlencoded";

/// Everybody.
pub(super) struct People {
    /// The first administrator, in a session of before the second factor: what somebody who took it has.
    pub(super) root: Browser,
    /// What the administrator's second proofs come from.
    phone: Authenticator,
    clock: Arc<dyn Clock>,
    /// Ada, whose work is attacked, and who attacks others from outside.
    pub(super) ada: Browser,
    /// Bob, the victim.
    pub(super) bob: Browser,
    /// What tokens call Bob.
    pub(super) bob_id: String,
    /// A partner's program, with a key of limited scope.
    pub(super) partner: Browser,
    /// Scopes of that key.
    pub(super) partner_scopes: Vec<String>,
    /// The same partner's program, with a key without any scope.
    pub(super) lesser: Browser,
    /// Nobody.
    pub(super) stranger: Browser,
}

impl People {
    /// Lets everybody in.
    pub(super) fn come(handle: &Handle, stage: &Stage, scopes: BTreeSet<String>) -> io::Result<Self> {
        let stranger = Browser::new(handle, &stage.origin, &stage.certificate)?;
        let operator = Client::new(proxy::client::UnixTransport::new(Layout { dir: stage.dir.clone() }.operator("login")));
        let root = stranger.bare();
        enrol(&root, &stage.first_link, ROOT)?;
        let clock = trust::SystemClock::shared();
        let phone = set_up(&root, &*clock)?;
        let mut invited = BTreeMap::new();
        for name in ["ada", "bob", "partner"] {
            let request = Invite { name: name.to_owned(), roles: Default::default() };
            let call = async { operator.json::<_, Invited>(&Call::default(), Method::POST, "/users", &request).await };
            let link = handle.block_on(call).map_err(fault)?;
            let browser = stranger.bare();
            enrol(&browser, &format!("{}{}", contract::login::ISSUER_PATH, link.path), name)?;
            invited.insert(name, browser);
        }
        let people: Vec<Person> = handle.block_on(async { operator.get(&Call::default(), "/users").await }).map_err(fault)?;
        let id_of = |name: &str| people.iter().find(|person| person.name == name).map(|person| person.user.clone()).unwrap_or_default();
        let (id, bob_id) = (id_of("partner"), id_of("bob"));
        let partner_scopes = scopes.iter().cloned().collect();
        let key = |name: &str, scopes: BTreeSet<String>| {
            let new = NewKey { user: id.clone(), name: name.to_owned(), scopes, life_s: 24 * 3600 };
            let made = async { operator.json::<_, KeyMade>(&Call::default(), Method::POST, "/keys", &new).await };
            handle.block_on(made).map_err(fault)
        };
        let (made, lesser) = (key("partner", scopes)?, key("lesser", BTreeSet::new())?);
        let mut take = |name: &str| invited.remove(name).ok_or_else(|| io::Error::other("nobody of that name came in"));
        Ok(Self {
            root,
            phone,
            clock,
            ada: take("ada")?,
            bob: take("bob")?,
            bob_id,
            partner: stranger.with_key(&made.key),
            partner_scopes,
            lesser: stranger.with_key(&lesser.key),
            stranger,
        })
    }
}

impl People {
    /// The administrator, who signs in anew with password and code.
    pub(super) fn proven(&self) -> io::Result<Browser> {
        let browser = self.stranger.bare();
        // What confirmed the factor was of a step that is over by now.
        let code = self.phone.shows(self.clock.unix_s(), 0);
        let asked = by_password(&browser)?;
        let (answer, at) = submit(&browser, asked, &[("code", &code)])?;
        if !is_signed_in(&browser)? {
            return Err(io::Error::other(format!("the administrator's second proof was not taken: {} at {at}", answer.status)));
        }
        Ok(browser)
    }

    /// Whether somebody with the administrator's password and nothing else has a session in the end.
    pub(super) fn by_password_alone(&self) -> io::Result<bool> {
        let browser = self.stranger.bare();
        by_password(&browser)?;
        is_signed_in(&browser)
    }
}

/// The administrator's name and password at the sign-in page: what comes then.
fn by_password(browser: &Browser) -> io::Result<(Answer, String)> {
    let page = browser.follow(Request::new("GET", START))?;
    submit(browser, page, &[("name", ROOT), ("password", PASSWORD)])
}

fn is_signed_in(browser: &Browser) -> io::Result<bool> {
    Ok(browser.ask(&Request::new("GET", "/auth/me"))?.status == 200)
}

/// Sets up a second factor; the session at the edge stays the one of before.
fn set_up(browser: &Browser, clock: &dyn Clock) -> io::Result<Authenticator> {
    let page = browser.follow(Request::new("GET", format!("{}{FACTOR_PATH}", contract::login::ISSUER_PATH)))?;
    let (shown, at) = submit(browser, page, &[])?;
    let phone = Authenticator::scan(&shown.text()).ok_or_else(|| io::Error::other(format!("{at} ({}) shows no secret", shown.status)))?;
    // The oldest code that counts, so that the next one does a moment later.
    let code = phone.shows(clock.unix_s(), -1);
    let (answer, _) = submit(browser, (shown, at), &[("code", &code)])?;
    if answer.status == 200 { Ok(phone) } else { Err(io::Error::other(format!("the second factor was not taken: {}", answer.status))) }
}

fn fault(fault: trust::Fault) -> io::Error {
    io::Error::other(format!("login: {fault}"))
}

/// Opens the one-time link, chooses a password, and signs in.
fn enrol(browser: &Browser, link: &str, name: &str) -> io::Result<()> {
    let page = browser.follow(Request::new("GET", link))?;
    let (answer, at) = submit(browser, page, &[("name", name), ("password", PASSWORD), ("repeat", PASSWORD)])?;
    // It ends at the start of the system, which may have none.
    if answer.status >= 400 && at.starts_with(contract::login::ISSUER_PATH) {
        return Err(io::Error::other(format!("{name} could not choose a password: {}", answer.status)));
    }
    let page = browser.follow(Request::new("GET", START))?;
    let ended = if page.1.contains("/oidc/") { submit(browser, page, &[("name", name), ("password", PASSWORD)]) } else { Ok(page) };
    // Where it ends is of no matter: coming back there may begin anew.
    match ended {
        Ok((answer, _)) if answer.status == 401 || answer.status == 403 => Err(io::Error::other(format!("{name} could not sign in"))),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn submit(browser: &Browser, (page, at): (Answer, String), values: &[(&str, &str)]) -> io::Result<(Answer, String)> {
    let form = Form::of(&page.text()).ok_or_else(|| io::Error::other(format!("{at} ({}) has no form", page.status)))?;
    let action = match form.action.as_str() {
        "" => at,
        action if action.starts_with('/') => action.to_owned(),
        action if action.starts_with("https://") => browser.path_of(action),
        action => format!("{}/{action}", at.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder)),
    };
    browser.follow(Request::new("POST", action).body(FORM, form.filled(values)))
}

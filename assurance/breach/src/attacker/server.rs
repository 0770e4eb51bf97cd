//! The server: what the manifest's service listens on, with a thread for each connection.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use manifest::Protocol;

use super::hand::Hand;
use super::http::{Answer, Request};
use super::mark::{Act, Mark};
use super::note::{Notes, Said, say};
use super::play;
use super::script::Script;
use super::techniques::{self, Run, unvalidated};
use super::{grpc, raw};

/// How long tries without a request in hand may take, all of them.
const ALONE_MAX: Duration = Duration::from_secs(45);
/// How long what is stolen stays in flight, for others to try it.
const HELD: Duration = Duration::from_secs(4);
/// When a kept token is tried after its work.
const AFTER: Duration = Duration::from_millis(700);

/// Waits by the one call for it that every sandbox allows (`needs`).
pub(super) fn pause(long: Duration) {
    let begun = Instant::now();
    while let Some(left) = long.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

struct Server {
    script: Script,
    path: PathBuf,
    name: String,
    /// Turns that were taken: mark and entry.
    taken: Mutex<BTreeSet<(Mark, String)>>,
    /// Marks for which the tries without a request were made.
    alone: Mutex<BTreeSet<Mark>>,
    /// Held by who attacks: one at a time, so that what is recorded of this service meanwhile is about that.
    turn: Mutex<()>,
}

/// Serves until it is killed.
pub(super) fn run(script: Script, path: &Path, name: &str) -> u8 {
    let Some(port) = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()) else { return 64 };
    let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { return 71 };
    let server = Arc::new(Server {
        script,
        path: path.to_path_buf(),
        name: name.to_owned(),
        taken: Mutex::default(),
        alone: Mutex::default(),
        turn: Mutex::default(),
    });
    let speaks = server.script.services.get(name).map(|part| part.protocol).unwrap_or_default();
    if speaks == Protocol::Grpc {
        let ended = grpc::serve(listener, Arc::new(move |request, reply| server.call(&request, reply)));
        eprintln!("gRPC is not served here: {ended:?}");
        return 71;
    }
    for stream in listener.incoming().flatten() {
        let server = Arc::clone(&server);
        // Without a thread this connection is closed, as by any service that has too much to do.
        let _started = std::thread::Builder::new()
            .stack_size(512 * 1024)
            .spawn(move || if speaks == Protocol::Tcp { server.raw(stream) } else { server.connection(stream) });
    }
    71
}

impl Server {
    fn connection(&self, stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let (mut reader, mut writer) = (BufReader::new(reading), BufWriter::new(stream));
        while let Ok(Some(request)) = Request::read(&mut reader) {
            let (answer, kept) = self.answer(&request);
            if answer.write(&mut writer).is_err() {
                return;
            }
            if let Some(hand) = kept {
                pause(AFTER);
                self.after(&hand);
            }
        }
    }

    /// One call, whatever comes after its answer.
    fn call(&self, request: &Request, reply: grpc::Reply) {
        let (answer, kept) = self.answer(request);
        reply(answer);
        if let Some(hand) = kept {
            pause(AFTER);
            self.after(&hand);
        }
    }

    /// One raw flow: a line, and a line back.
    fn raw(&self, mut stream: TcpStream) {
        let Ok(request) = raw::heard(&stream) else { return };
        let (answer, kept) = self.answer(&request);
        // Who said it may have gone.
        let _gone = stream.write_all(&[answer.body.as_slice(), b"\n"].concat());
        drop(stream);
        if let Some(hand) = kept {
            pause(AFTER);
            self.after(&hand);
        }
    }

    /// The answer, and what is kept of the work after it.
    fn answer(&self, request: &Request) -> (Answer, Option<Hand<'_>>) {
        let is_event = request.header("ce-id").is_some();
        let Some(mut hand) = Hand::of(&self.script, &self.name, request) else {
            // A health check, or work that is nobody's turn.
            return (Answer { status: if is_event { 204 } else { 200 }, ..Answer::default() }, None);
        };
        if is_event && request.header("ce-id").is_some_and(|id| id.ends_with(unvalidated::UNSEEN)) {
            self.look(&hand);
            return (Answer { status: 204, ..Answer::default() }, None);
        }
        let attacks = hand.mark.service == self.name && hand.mark.act != Act::Calm && self.takes_turn(&hand);
        if attacks {
            self.first(&hand);
        }
        let played = play::along(&mut hand);
        if hand.mark.act == Act::Calm {
            say(Said::Played { mark: hand.mark.to_string(), entry: hand.entry_text(), done: played.done.clone() });
        }
        if attacks {
            self.attack(&hand, request);
        }
        techniques::leftovers::leave(&hand);
        let answer = if is_event { Answer { status: 204, ..Answer::default() } } else { played.answer(&hand) };
        (answer, attacks.then_some(hand))
    }

    /// Each entry has one turn for each mark.
    fn takes_turn(&self, hand: &Hand<'_>) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert((hand.mark.clone(), hand.entry_text()))
    }

    /// What must come before anything is done with the work.
    fn first(&self, hand: &Hand<'_>) {
        for technique in techniques::ALL.iter().filter(|technique| self.script.wants(technique.id)) {
            let Run::First(run) = technique.run else { continue };
            let mut notes = Notes::new(technique.id, &hand.mark);
            run(hand, &mut notes);
            notes.tell();
        }
    }

    /// Looks at what another handed on too early.
    fn look(&self, hand: &Hand<'_>) {
        let mut notes = Notes::new(unvalidated::ROW.id, &hand.mark);
        unvalidated::look(hand, &mut notes);
        notes.tell();
    }

    /// Whether it is the first of this mark's work: what needs no request is tried once.
    fn is_first(&self, hand: &Hand<'_>) -> bool {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).insert(hand.mark.clone())
    }

    fn attack(&self, hand: &Hand<'_>, request: &Request) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (mark, entry) = (hand.mark.to_string(), hand.entry_text());
        say(Said::Began { mark: mark.clone(), entry: entry.clone() });
        for technique in techniques::ALL {
            let Run::InHand(run, when) = technique.run else { continue };
            if when == hand.mark.act && self.script.wants(technique.id) {
                let mut notes = Notes::new(technique.id, &hand.mark);
                run(hand, &mut notes);
                notes.tell();
            }
        }
        if matches!(hand.mark.act, Act::Attack | Act::Lend) {
            let mut notes = Notes::new("steal", &hand.mark);
            if let Some(token) = &hand.token {
                notes.stole("transaction-token", token);
            }
            for (name, value) in &request.headers {
                if name == "cookie" || name == "authorization" {
                    notes.stole(name, value);
                }
            }
            notes.tell();
            if hand.mark.act == Act::Attack && self.is_first(hand) {
                self.alone(&hand.mark);
                pause(HELD);
            }
        }
        if hand.mark.act == Act::Press && self.is_first(hand) {
            self.alone(&hand.mark);
        }
        say(Said::Ended { mark, entry });
    }

    /// What needs no request is tried by a process with one thread for each technique, which may be killed for it: then the others are
    /// tried all the same, and of this one it is told that it was not.
    fn alone(&self, mark: &Mark) {
        let mut left = ALONE_MAX;
        for technique in techniques::ALL.iter().filter(|row| row.is_alone(mark.act) && self.script.wants(row.id)) {
            let Some(program) = std::env::args_os().next() else { return };
            let mut command = Command::new(program);
            command.arg(super::ALONE).arg(&self.path).arg(&self.name).arg(mark.to_string()).arg(technique.id);
            command.arg(std::process::id().to_string());
            if let Err(why) = ended(&mut command, &mut left) {
                let mut notes = Notes::new(technique.id, mark);
                notes.untried(why);
                notes.tell();
            }
        }
    }

    /// The token of work that is over.
    fn after(&self, hand: &Hand<'_>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for technique in techniques::ALL {
            let Run::After(run) = technique.run else { continue };
            if hand.mark.act == Act::Attack && self.script.wants(technique.id) {
                let mut notes = Notes::new(technique.id, &hand.mark);
                run(hand, &mut notes);
                notes.tell();
            }
        }
    }
}

/// Waits for a process within what is left of its turn; why it told nothing, if it did not come to its end.
fn ended(command: &mut Command, left: &mut Duration) -> Result<(), String> {
    let mut child = command.spawn().map_err(|error| format!("no process can be started in this sandbox: {}", error.kind()))?;
    let step = Duration::from_millis(5);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("its process did not come to its end: {status}")),
            Ok(None) if left.is_zero() => {
                // It may have ended this moment.
                let _ended = child.kill();
                let _reaped = child.wait();
                return Err("the time for its turn was over".to_owned());
            }
            Ok(None) => {
                pause(step);
                *left = left.saturating_sub(step);
            }
            Err(error) => return Err(format!("its process cannot be waited for: {}", error.kind())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // L8, L10: a process that is killed, fails or takes too long has not tried its technique, and that is told.
    #[test]
    fn a_process_that_does_not_come_to_its_end_is_told_of() {
        let run = |program: &str, arguments: &[&str], seconds: u64| {
            let mut left = Duration::from_secs(seconds);
            ended(Command::new(program).args(arguments), &mut left)
        };
        assert_eq!(run("true", &[], 60), Ok(()));
        let failed = |said: Result<(), String>, word: &str| assert!(said.as_ref().is_err_and(|why| why.contains(word)), "{said:?}: {word}");
        failed(run("false", &[], 60), "exit status: 1");
        failed(run("sh", &["-c", "kill -9 $$"], 60), "signal: 9");
        failed(run("sleep", &["600"], 0), "time for its turn");
        failed(run("/nowhere/program", &[], 60), "no process can be started");
    }
}

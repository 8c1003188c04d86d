//! What clients ask for.

use std::os::fd::OwnedFd;
use std::time::Instant;

use serde_json::Value;

use super::clients::{Pending, Received};
use super::protocol::{
    Answer, Attach, FromClient, Op, Request, STDIN_WINDOW, State, Stop, from_client,
};
use super::stop::Stopping;
use super::{Owner, Supervisor};
use crate::base::{Error, Result};
use crate::container::attach;
use crate::sys::epoll::EpollFlags;
use crate::sys::process::ExitStatus;

/// Messages of one client in a row, before the others get their turn.
const BURST: usize = 16;

/// A request's outcome, unless it is answered later.
type Outcome = Result<Option<Value>>;

impl Supervisor {
    pub(super) fn client(
        &mut self,
        id: u32,
        flags: EpollFlags,
        owner: &mut dyn Owner,
    ) -> Result<()> {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.clients.flush(id, &self.epoll);
            self.unblock()?;
        }
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return Ok(());
        }
        self.make_buffer();
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..BURST {
            match self.clients.receive(id, &mut buffer) {
                Received::Message(length, fds) => {
                    self.message(id, &buffer[..length], fds, owner)?
                }
                Received::Bad(error) => self.answer(id, 0, Err(error)),
                Received::Nothing => break,
                Received::Broken(error) => {
                    self.answer(id, 0, Err(error));
                    self.hang_up(id)?;
                    break;
                }
                Received::End => {
                    self.hang_up(id)?;
                    break;
                }
            }
        }
        self.buffer = buffer;
        self.feed()
    }

    fn hang_up(&mut self, id: u32) -> Result<()> {
        if let Some(client) = self.clients.remove(id) {
            if self.stdin_once && client.attached.is_some_and(|a| a.stdin) {
                self.streams.end_input();
            }
            self.unblock()?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        id: u32,
        message: &[u8],
        fds: Vec<OwnedFd>,
        owner: &mut dyn Owner,
    ) -> Result<()> {
        match from_client(message) {
            Ok(FromClient::Stdin(bytes)) => self.stdin(id, bytes),
            Ok(FromClient::Request(request)) => {
                let number = request.id;
                match self.request(id, request, fds, owner) {
                    Ok(Some(value)) => self.answer(id, number, Ok(value)),
                    Ok(None) => {}
                    Err(error) => self.answer(id, number, Err(error)),
                }
                self.unblock()
            }
            Err((number, error)) => {
                self.answer(id, number, Err(error));
                Ok(())
            }
        }
    }

    fn stdin(&mut self, id: u32, bytes: &[u8]) -> Result<()> {
        let Some(client) = self.clients.get(id) else {
            return Ok(());
        };
        if !client.attached.is_some_and(|a| a.stdin) {
            return Ok(());
        }
        if bytes.is_empty() {
            if self.stdin_once {
                self.streams.end_input();
            }
            return Ok(());
        }
        client.unconfirmed += bytes.len();
        if client.unconfirmed > STDIN_WINDOW {
            // It does not keep to the protocol: nothing of it can be trusted.
            return self.hang_up(id);
        }
        self.streams.input(id, bytes);
        Ok(())
    }

    fn request(
        &mut self,
        id: u32,
        request: Request,
        fds: Vec<OwnedFd>,
        owner: &mut dyn Owner,
    ) -> Outcome {
        if let Some(status) = self.over {
            return after_the_end(&request.op, status);
        }
        let later = |this: &mut Self, pending| {
            if let Some(client) = this.clients.get(id) {
                client.pending.push((request.id, pending));
            }
            Ok(None)
        };
        match request.op {
            Op::Attach(attach) => self.attach(id, attach),
            Op::Wait => later(self, Pending::Wait),
            Op::Signal(signal) => {
                if self.signal(signal, owner)? {
                    owner.signalled(signal, false);
                }
                Ok(Some(Value::Null))
            }
            Op::Stop(how) => {
                self.stop(how, false, owner)?;
                later(self, Pending::Stop)
            }
            Op::Restart(how) => {
                self.stop(how, true, owner)?;
                later(self, Pending::Restart)
            }
            Op::Pause(on) => {
                owner.pause(on)?;
                self.paused = on;
                Ok(Some(Value::Null))
            }
            Op::Resize { rows, cols } => {
                if self.settings.tty {
                    self.streams.resize(rows, cols)?;
                }
                Ok(Some(Value::Null))
            }
            Op::Pidfd => {
                let pidfd = self.pidfd.try_clone()?;
                let answer = Answer::new(request.id, Ok(Value::Null));
                self.clients
                    .answer(id, &answer, Some(pidfd.into()), &self.epoll);
                Ok(None)
            }
            Op::State => {
                let state = State {
                    pid: self.pid,
                    tty: self.settings.tty,
                    paused: self.paused,
                    stopping: self.stopping.is_some(),
                };
                serde_json::to_value(state)
                    .map(Some)
                    .map_err(|e| Error::parse("encode", "state", e))
            }
            Op::Command { verb, body } => owner.command(&verb, body, fds).map(Some),
        }
    }

    fn attach(&mut self, id: u32, attach: Attach) -> Outcome {
        if let Some(client) = self.clients.get(id) {
            let stdin = attach.stdin && self.settings.open_stdin;
            client.attached = Some(Attach { stdin, ..attach });
        }
        Ok(Some(Value::Null))
    }

    /// Sends a signal. A paused program cannot act on one, so what is meant to
    /// end it thaws it too (a v1 freezer would hold back even SIGKILL).
    pub(super) fn signal(&mut self, signal: i32, owner: &mut dyn Owner) -> Result<bool> {
        let alive = self.pidfd.signal(signal)?;
        if self.paused && (signal == libc::SIGKILL || signal == self.settings.stop_signal) {
            owner.pause(false)?;
            self.paused = false;
        }
        Ok(alive)
    }

    pub(super) fn stop(&mut self, how: Stop, restart: bool, owner: &mut dyn Owner) -> Result<()> {
        let signal = how.signal.unwrap_or(self.settings.stop_signal);
        if self.signal(signal, owner)? {
            owner.signalled(signal, !how.removal);
        }
        if self.paused {
            owner.pause(false)?;
            self.paused = false;
        }
        let timeout = how.timeout.unwrap_or(self.settings.stop_timeout_s);
        let stopping = self.stopping.get_or_insert_with(|| Stopping::new(restart));
        stopping.join(Instant::now(), timeout, restart);
        if signal == libc::SIGKILL && timeout == 0 {
            // Nothing is left to be tried.
            stopping.killed(Instant::now());
        }
        Ok(())
    }

    /// SIGKILL did not help: those who asked get to know.
    pub(super) fn give_up(&mut self) {
        self.stopping = None;
        let pid = self.pid;
        let error = Error::state(
            "stop",
            format!("process {pid}"),
            "it did not end within 10 s of SIGKILL",
        )
        .hint(format!("it hangs in the kernel: see /proc/{pid}/stack"));
        self.settle(&Err(error.clone()), &Err(error));
    }

    /// Answers all who asked for a stop or a restart.
    pub(super) fn settle(&mut self, stop: &Result<Value>, restart: &Result<Value>) {
        for id in self.clients.ids() {
            let Some(client) = self.clients.get(id) else {
                continue;
            };
            let pending = &mut client.pending;
            let due: Vec<_> = pending.extract_if(.., |p| p.1 != Pending::Wait).collect();
            for (number, pending) in due {
                let outcome = if pending == Pending::Stop {
                    stop
                } else {
                    restart
                };
                self.answer(id, number, outcome.clone());
            }
        }
    }

    /// Tells all who attached or wait how it ended, and answers what is still
    /// unread.
    pub(super) fn farewell(&mut self, status: ExitStatus) {
        self.make_buffer();
        let mut buffer = std::mem::take(&mut self.buffer);
        for id in self.clients.ids() {
            while let Received::Message(length, _) = self.clients.receive(id, &mut buffer) {
                let answer = match from_client(&buffer[..length]) {
                    Ok(FromClient::Stdin(_)) => continue,
                    Ok(FromClient::Request(request)) => match after_the_end(&request.op, status) {
                        Ok(value) => (request.id, Ok(value.unwrap_or_default())),
                        Err(error) => (request.id, Err(error)),
                    },
                    Err((number, error)) => (number, Err(error)),
                };
                self.answer(id, answer.0, answer.1);
            }
            let Some(client) = self.clients.get(id) else {
                continue;
            };
            let attached = client.attached.is_some();
            for (number, pending) in std::mem::take(&mut client.pending) {
                let outcome = match pending {
                    Pending::Wait => status_value(status),
                    Pending::Stop => Ok(Value::Null),
                    Pending::Restart => Err(Error::conflict(format!(
                        "container {} was stopped meanwhile",
                        self.settings.live.file_name().unwrap_or_default().display()
                    ))),
                };
                self.answer(id, number, outcome);
            }
            if attached {
                self.clients
                    .answer(id, &Answer::Exit(status), None, &self.epoll);
            }
        }
        self.buffer = buffer;
    }

    fn answer(&mut self, id: u32, number: u64, outcome: Result<Value>) {
        let answer = Answer::new(number, outcome);
        self.clients.answer(id, &answer, None, &self.epoll);
    }
}

/// The container has ended for good.
fn after_the_end(op: &Op, status: ExitStatus) -> Outcome {
    match op {
        Op::Wait => status_value(status).map(Some),
        Op::Stop(_) | Op::Attach(_) => Ok(Some(Value::Null)),
        // As if it had come too late to be let in.
        _ => Err(attach::ended()),
    }
}

fn status_value(status: ExitStatus) -> Result<Value> {
    serde_json::to_value(status).map_err(|e| Error::parse("encode", "exit status", e))
}

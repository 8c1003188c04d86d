//! What runs in a container: `exec`, `attach`, `logs`.

use std::io::{self, Write};
use std::time::SystemTime;

use super::super::args::Syntax;
use super::super::args::container as args;
use super::super::exit::{self, Failure, Outcome, status_code};
use super::super::resolve::{self, keys};
use super::lifecycle::{attached, need_tty, streams};
use super::{Front, Real};
use crate::base::ContainerId;
use crate::engine::{Engine, Relay};

pub(super) fn exec(front: &Front, syntax: &Syntax, a: args::Exec) -> Outcome {
    exit::count(syntax, a.rest.len())?;
    let request = resolve::exec::exec(&a, &Real).map_err(|e| Failure::usage(syntax, &e))?;
    if !a.detach {
        need_tty(a.interactive, a.tty)?;
    }
    Engine::protect_own_file()?;
    let wanted = a.rest.first().map_or("", String::as_str);
    match front.engine.exec(wanted, request) {
        Ok(status) => Ok(status.map_or(0, |s| status_code(s.code()))),
        Err(e) => Err(Failure::coded(&e, exit::program_code(&e, 1))),
    }
}

pub(super) fn attach(front: &Front, syntax: &Syntax, a: args::Attach) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let detach_keys =
        keys::detach(a.detach_keys.as_deref()).map_err(|e| Failure::usage(syntax, &e))?;
    let wanted = a.names.first().map_or("", String::as_str);
    let container = front.engine.container(wanted)?;
    let how = streams(&container);
    let how = Relay {
        stdin: container.config.open_stdin && !a.no_stdin,
        sig_proxy: how.sig_proxy && a.sig_proxy.unwrap_or(true),
        detach_keys,
        ..how
    };
    need_tty(how.stdin, how.tty)?;
    let mut client = front.engine.attach(wanted)?;
    let id = ContainerId::new(container.id)?;
    Ok(attached(front, &id, &mut client, how)?)
}

pub(super) fn logs(front: &Front, syntax: &Syntax, a: args::Logs) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let request = resolve::exec::logs(&a, SystemTime::now())?;
    let wanted = a.names.first().map_or("", String::as_str);
    let mut out = Watched::new(io::stdout());
    let mut err = Watched::new(io::stderr());
    match front.engine.logs(wanted, &request, &mut out, &mut err) {
        Err(_) if out.broken || err.broken => Err(Failure::BrokenPipe),
        result => Ok(result.map(|()| 0)?),
    }
}

/// Remembers that its reader went away, so that this is told apart from a
/// broken connection to the supervisor.
struct Watched<W> {
    to: W,
    broken: bool,
}

impl<W> Watched<W> {
    fn new(to: W) -> Self {
        Self { to, broken: false }
    }

    fn watch<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.broken |= matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.watch(result)
    }
    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.watch(result)
    }
}

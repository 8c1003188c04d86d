//! From `run` to `rm`.

use std::io::IsTerminal;

use super::super::args::Syntax;
use super::super::args::container as args;
use super::super::args::run::Run;
use super::super::exit::{self, Failure, OURS, Outcome, complain, each, say, status_code};
use super::super::resolve::{self, keys};
use super::{Front, Real};
use crate::base::{Cause, ContainerId, Error, Result};
use crate::engine::view::Container;
use crate::engine::{Client, Leaving, Relay};

pub(super) fn run(front: &Front, syntax: &Syntax, a: Run) -> Outcome {
    if a.rootfs.is_none() {
        exit::count(syntax, a.rest.len())?;
    }
    let request = resolve::run::run(&a, &Real).map_err(|e| Failure::usage(syntax, &e))?;
    let patience =
        resolve::parent_wait(a.parent_wait.as_ref()).map_err(|e| Failure::usage(syntax, &e))?;
    if !a.detach {
        need_tty(a.interactive, a.tty)?;
    }
    if let Some(patience) = patience {
        let networks = request.networks.iter().map(|n| n.network.as_str());
        front
            .engine
            .await_parents(networks, patience)
            .map_err(|e| Failure::coded(&e, OURS))?;
    }
    let mut made = None;
    let outcome = front.engine.run(request, &mut |id| made = Some(id.clone()));
    let mut run = match (outcome, made) {
        (Ok(run), _) => run,
        (Err(e), made) => {
            // It stays, as created; and is gone with --rm.
            if let Some(id) = made.filter(|_| a.detach && !a.rm) {
                exit::print_line(id.as_str())?;
            }
            return Err(Failure::with_help(syntax, &e, exit::program_code(&e, OURS)));
        }
    };
    warn(&run.warnings);
    match run.client.as_mut() {
        Some(client) => {
            attached(front, &run.id, client, run.relay).map_err(|e| Failure::coded(&e, OURS))
        }
        None => {
            exit::print_line(run.id.as_str())?;
            Ok(0)
        }
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("WARNING: {warning}"));
    }
}

/// Relays until the program ends or the user detaches.
pub(super) fn attached(
    front: &Front,
    id: &ContainerId,
    client: &mut Client,
    how: Relay,
) -> Result<u8> {
    match client.relay(how) {
        Err(lost) if lost.is_errno(libc::ECONNRESET) => match front.engine.unseen_end(id)? {
            Some((code, why)) => {
                complain(&format!("container {} has ended: {why}", id.short()));
                Ok(status_code(code))
            }
            None => Err(lost),
        },
        ended => Ok(ended?.map_or(0, |status| status_code(status.code()))),
    }
}

/// A terminal for the program must come from a terminal of ours.
pub(super) fn need_tty(interactive: bool, tty: bool) -> std::result::Result<(), Failure> {
    if interactive && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::from(Error::invalid(
            "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
        )));
    }
    Ok(())
}

/// `--timeout`, or `--time`, as it was called.
fn timeout(a: &args::Stop) -> std::result::Result<Option<i64>, Failure> {
    if a.time.is_some() {
        say("Flag --time has been deprecated, use --timeout instead");
    }
    match (a.timeout, a.time) {
        (Some(_), Some(_)) => Err(Failure::from(Error::invalid(
            "conflicting options: cannot specify both --timeout and --time",
        ))),
        (timeout, time) => Ok(timeout.or(time)),
    }
}

pub(super) fn stop(front: &Front, syntax: &Syntax, a: args::Stop) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let timeout = timeout(&a)?;
    let one = |name: &str| front.engine.stop(name, a.signal.as_deref(), timeout);
    if let [name] = &a.names[..] {
        return each(std::slice::from_ref(name), one);
    }
    // Each may take its whole grace period: they take it side by side, as
    // with Docker.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = a
            .names
            .iter()
            .map(|name| scope.spawn(|| one(name)))
            .collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    let mut results = results.into_iter();
    each(&a.names, |_| match results.next() {
        Some(Ok(result)) => result,
        _ => Err(Error::state("stop", "container", "its thread has panicked")),
    })
}

pub(super) fn restart(front: &Front, syntax: &Syntax, a: args::Stop) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let timeout = timeout(&a)?;
    each(&a.names, |name| {
        front.engine.restart(name, a.signal.as_deref(), timeout)
    })
}

pub(super) fn kill(front: &Front, syntax: &Syntax, a: args::Kill) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let signal = a
        .signal
        .as_deref()
        .filter(|s| !s.is_empty())
        .unwrap_or("KILL");
    each(&a.names, |name| front.engine.kill(name, signal))
}

pub(super) fn pause(front: &Front, syntax: &Syntax, a: args::Names) -> Outcome {
    exit::count(syntax, a.names.len())?;
    each(&a.names, |name| front.engine.pause(name, true))
}

pub(super) fn unpause(front: &Front, syntax: &Syntax, a: args::Names) -> Outcome {
    exit::count(syntax, a.names.len())?;
    each(&a.names, |name| front.engine.pause(name, false))
}

pub(super) fn wait(front: &Front, syntax: &Syntax, a: args::Names) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let mut failed = 0;
    for name in &a.names {
        match front.engine.wait(name) {
            Ok(code) => exit::print_line(&code.to_string())?,
            Err(e) => {
                complain(&e.to_string());
                failed = 1;
            }
        }
    }
    Ok(failed)
}

pub(super) fn start(front: &Front, syntax: &Syntax, a: args::Start) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let detach_keys =
        keys::detach(a.detach_keys.as_deref()).map_err(|e| Failure::usage(syntax, &e))?;
    let patience =
        resolve::parent_wait(a.parent_wait.as_ref()).map_err(|e| Failure::usage(syntax, &e))?;
    let wait = |name: &str| match patience {
        Some(patience) => front.engine.await_parents_of(name, patience),
        None => Ok(()),
    };
    if a.attach || a.interactive {
        let [name] = &a.names[..] else {
            return Err(Failure::from(Error::invalid(
                "you cannot start and attach multiple containers at once",
            )));
        };
        let container = front.engine.container(name)?;
        let how = Relay {
            stdin: a.interactive && container.config.open_stdin,
            detach_keys,
            ..streams(&container)
        };
        need_tty(how.stdin, how.tty)?;
        wait(name)?;
        let started = front
            .engine
            .start(name, true)
            .map_err(|e| Failure::coded(&e, exit::program_code(&e, 1)))?;
        warn(&started.warnings);
        let mut client = match started.client {
            Some(client) => client,
            // It had been running already: nobody holds a connection for us.
            None => front.engine.attach(name)?,
        };
        let id = ContainerId::new(container.id)?;
        return Ok(attached(front, &id, &mut client, how)?);
    }
    let mut failed = Vec::new();
    each(&a.names, |name| {
        let started = wait(name)
            .and_then(|()| front.engine.start(name, false))
            .inspect_err(|_| failed.push(name.to_owned()))?;
        warn(&started.warnings);
        Ok(())
    })?;
    if failed.is_empty() {
        return Ok(0);
    }
    complain(&format!(
        "failed to start containers: {}",
        failed.join(", ")
    ));
    Ok(1)
}

/// Output only; the caller adds stdin.
pub(super) fn streams(container: &Container) -> Relay {
    let tty = container.config.tty;
    Relay {
        stdin: false,
        stdout: true,
        stderr: !tty,
        tty,
        sig_proxy: !tty,
        ..Relay::default()
    }
}

pub(super) fn rm(front: &Front, syntax: &Syntax, a: args::Rm) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let mut failed = 0;
    let mut leaving = Leaving::default();
    for name in &a.names {
        match front.engine.remove(name, a.force, &mut leaving) {
            Ok(()) => exit::print_line(name)?,
            Err(e) => {
                complain(&e.to_string());
                // What is not there is removed, if one insists.
                if !(a.force && matches!(e.cause, Cause::NotFound(_))) {
                    failed = 1;
                }
            }
        }
    }
    leaving.wait();
    Ok(failed)
}

pub(super) fn rename(front: &Front, syntax: &Syntax, a: args::Names) -> Outcome {
    exit::count(syntax, a.names.len())?;
    match &a.names[..] {
        [old, new] if !old.trim().is_empty() && !new.trim().is_empty() => {
            front.engine.rename(old, new)?;
            Ok(0)
        }
        _ => Err(Failure::from(Error::invalid(
            "Neither old nor new names may be empty",
        ))),
    }
}

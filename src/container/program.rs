//! The last step of a start: finding the program and executing it; and why
//! that failed, in Docker's words.

use std::ffi::CString;
use std::path::Path;

use nix::errno::Errno;

use crate::base::error::errno_text;
use crate::base::{Cause, Error, Result, Subject};
use crate::sys::process;

/// Docker's words; it treats this as a program that cannot be run.
pub(super) fn no_cwd(cwd: &str, errno: Errno) -> Error {
    let why = errno_text(errno as i32);
    cannot_run(
        errno,
        format!("chdir to cwd (\"{cwd}\") set in config.json failed: {why}"),
    )
}

pub(super) fn cannot_run(errno: Errno, text: String) -> Error {
    Error::new(
        "",
        Subject::None,
        Cause::Exec {
            errno: errno as i32,
            text,
        },
    )
}

pub(super) fn c_strings(texts: &[String]) -> Result<Vec<CString>> {
    texts
        .iter()
        .map(|text| {
            CString::new(text.as_str())
                .map_err(|_| Error::invalid("an argument or variable contains a NUL byte"))
        })
        .collect()
}

/// execve of the first file that can be executed, as execvp(3) but by the
/// container's own PATH; in Docker's words when there is none.
pub(super) fn execute(program: &str, argv: &[CString], env: &[CString], vars: &[String]) -> Error {
    let attempt = |path: &str| match CString::new(path) {
        Ok(path) => Errno::from_raw(process::exec(&path, argv, env)),
        Err(_) => Errno::EINVAL,
    };
    if program.contains('/') {
        return refused(program, program, attempt(program));
    }
    let path = vars.iter().find_map(|v| v.strip_prefix("PATH="));
    let mut found = None;
    for folder in path.unwrap_or_default().split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let file = format!("{folder}/{program}");
        match attempt(&file) {
            // EACCES: perhaps not this one's own, but its folder's.
            Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES if !is_file(&file) => {}
            Errno::EACCES => found = found.or(Some(file)),
            errno => return refused(program, &file, errno),
        }
    }
    match found {
        Some(file) => refused(program, &file, Errno::EACCES),
        None => cannot_run(
            Errno::ENOENT,
            format!("exec: \"{program}\": executable file not found in $PATH"),
        ),
    }
}

fn is_file(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_dir())
}

fn refused(program: &str, file: &str, errno: Errno) -> Error {
    let why = errno_text(errno as i32);
    match errno {
        Errno::ENOENT if is_file(file) => cannot_run(errno, format!("exec {file}: {why}")).hint(
            "the file is there; the interpreter in its first line, or its dynamic linker, is not",
        ),
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {
            cannot_run(errno, format!("exec: \"{program}\": stat {file}: {why}"))
        }
        Errno::EACCES if Path::new(file).is_dir() => {
            cannot_run(errno, format!("exec: \"{program}\": is a directory"))
        }
        Errno::EACCES => cannot_run(errno, format!("exec: \"{program}\": {why}")),
        _ => cannot_run(errno, format!("exec {file}: {why}")),
    }
}

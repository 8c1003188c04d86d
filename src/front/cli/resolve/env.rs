//! `-e`, `--env-file`, `--label-file`: lines of `NAME=value`; a name alone
//! takes its value from the caller's environment, or is dropped.

use std::path::{Path, PathBuf};

use super::World;
use crate::base::error::{IntoErrno, errno_text};
use crate::base::{Error, Result};

/// The files first, in order, then what was given on the command line.
pub fn variables(files: &[PathBuf], list: &[String], world: &dyn World) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for path in files {
        out.extend(file(path, world)?);
    }
    for item in list {
        if item.contains('=') {
            out.push(item.clone());
        } else if let Some(value) = world.var(item) {
            out.push(format!("{item}={value}"));
        }
    }
    Ok(out)
}

/// Labels: the same, but a name alone on the command line stays, without value.
pub fn labels(files: &[PathBuf], list: &[String], world: &dyn World) -> Result<Vec<String>> {
    let mut out = variables(files, &[], world)?;
    out.extend(list.iter().cloned());
    Ok(out)
}

fn file(path: &Path, world: &dyn World) -> Result<Vec<String>> {
    let name = path.display();
    let bytes = world
        .read(path)
        .map_err(|e| Error::invalid(format!("open {name}: {}", errno_text(e.into_errno()))))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let broken = |why: String| Error::invalid(format!("invalid env file ({name}): {why}"));
    let mut out = Vec::new();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| {
            broken(format!(
                "invalid utf8 bytes at line {}: {line:?}",
                number + 1
            ))
        })?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let variable = line.split('=').next().unwrap_or(line);
        if variable.is_empty() {
            return Err(broken(format!("no variable name on line '{line}'")));
        }
        if variable.contains(char::is_whitespace) {
            return Err(broken(format!(
                "variable '{variable}' contains whitespaces"
            )));
        }
        if line.contains('=') {
            out.push(line.to_owned());
        } else if let Some(value) = world.var(variable) {
            out.push(format!("{variable}={value}"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    fn world() -> Fake {
        Fake {
            vars: [("A", "from outside")].into(),
            files: [
                ("ok", "\u{feff} A=1 \r\n#c\n\nA\nB\n  D=\n"),
                ("blank", "C = x\n"),
                ("noname", "=x\n"),
            ]
            .into(),
        }
    }

    #[test]
    fn as_docker_reads_them() {
        let list = ["A".to_owned(), "B".to_owned(), "C=3".to_owned()];
        assert_eq!(
            variables(&["ok".into()], &list, &world()).unwrap(),
            ["A=1 ", "A=from outside", "D=", "A=from outside", "C=3"]
        );
        assert_eq!(
            labels(&["ok".into()], &["x".to_owned()], &world()).unwrap(),
            ["A=1 ", "A=from outside", "D=", "x"]
        );
    }

    #[test]
    fn refusals() {
        for (path, text) in [
            (
                "blank",
                "invalid env file (blank): variable 'C ' contains whitespaces",
            ),
            (
                "noname",
                "invalid env file (noname): no variable name on line '=x'",
            ),
            ("nope", "open nope: no such file or directory"),
        ] {
            let e = variables(&[path.into()], &[], &world()).unwrap_err();
            assert_eq!(e.to_string(), text);
        }
    }
}

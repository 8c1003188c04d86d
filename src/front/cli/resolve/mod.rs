//! From what was typed to what is asked of the engine. Pure: environment
//! variables and files come through [`World`], nothing else is looked at, and
//! all of it is done before the engine starts. The messages are Docker's.

pub mod env;
pub mod exec;
pub mod filter;
pub mod hosts;
pub mod keys;
pub mod network;
pub mod ports;
pub mod run;
pub mod time;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::base::{Error, Result};

/// What a command line may refer to outside itself.
pub trait World {
    fn var(&self, name: &str) -> Option<String>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn exists(&self, path: &Path) -> bool;
}

/// `KEY=VALUE` pairs, later ones win; a lone `KEY` has an empty value.
pub(crate) fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .map(|item| {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// `--parent-wait`
pub(crate) fn parent_wait(text: Option<&String>) -> Result<Option<Duration>> {
    let Some(text) = text else {
        return Ok(None);
    };
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86400) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Error::invalid(format!(
            "invalid value for \"parent-wait\": '{text}': must be a number of seconds, 1 to 86400"
        ))),
    }
}

/// Docker's rule when two ways of saying the same are used at once.
pub(crate) fn conflict(what: &str) -> Error {
    Error::invalid(format!("conflicting options: {what}"))
}

pub(crate) fn not_yet(what: &str) -> Error {
    Error::invalid(format!("{what} is not supported yet by dockless"))
}

/// An empty value on the command line is as good as none.
pub(crate) fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|s| !s.is_empty())
}

/// An IPv4 address, or Docker's message.
pub(crate) fn ipv4(text: &str) -> Result<std::net::Ipv4Addr> {
    text.parse()
        .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A world of a few variables and files.
    #[derive(Debug, Default)]
    pub(crate) struct Fake {
        pub(crate) vars: BTreeMap<&'static str, &'static str>,
        pub(crate) files: BTreeMap<&'static str, &'static str>,
    }

    impl World for Fake {
        fn var(&self, name: &str) -> Option<String> {
            self.vars.get(name).map(ToString::to_string)
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match self.files.get(path.to_str().unwrap()) {
                Some(text) => Ok(text.as_bytes().to_vec()),
                None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            }
        }
        fn exists(&self, path: &Path) -> bool {
            self.files.contains_key(path.to_str().unwrap())
        }
    }
}

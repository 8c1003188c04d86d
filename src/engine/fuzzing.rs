//! State files that somebody has edited, for the fuzzer: see
//! `docs/fuzzing.md`.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lease::Lease;
use super::record::Record;
use super::{resolv_conf, view};
use crate::base::{Error, Step};
use crate::net::spec::NetworkSpec;
use crate::store::file;
use crate::store::journal::Entries;

/// The first byte says which file.
pub fn state(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else {
        return;
    };
    match first % 6 {
        0 => object::<Record>(content),
        1 => object::<NetworkSpec>(content),
        2 => object::<view::Event>(content),
        3 => journal(content),
        4 => lease(&String::from_utf8_lossy(content)),
        _ => {
            let text = String::from_utf8_lossy(content);
            let _ = resolv_conf::parse(&text);
        }
    }
}

/// Understood, and then written and read as the same; or an error that names
/// the file. (What is fit for a terminal is for `front` to see to.)
fn object<T: Serialize + DeserializeOwned>(content: &[u8]) {
    let path = Path::new("/state/file.json");
    match file::parse_json::<T>(path, content) {
        Ok(read) => {
            let text = serde_json::to_vec(&read).expect("what is read can be written");
            let again: T = file::parse_json(path, &text).expect("and read again");
            let again = serde_json::to_vec(&again).expect("and written again");
            assert_eq!(text, again);
        }
        Err(error) => check_error(&error),
    }
}

fn check_error(error: &Error) {
    let text = error.to_string();
    assert!(text.contains("/state/"), "{text:?}");
}

fn journal(content: &[u8]) {
    let entries = Entries::parse(Path::new("/state/journal"), content);
    let lines = content.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(entries.steps.len() + entries.damaged.len(), lines);
    entries.damaged.iter().for_each(check_error);
    for step in &entries.steps {
        let line = serde_json::to_vec(step).expect("a step is written");
        assert!(!line.contains(&b'\n'));
        let back: Step = serde_json::from_slice(&line).expect("and read");
        assert_eq!(back, *step);
    }
}

fn lease(content: &str) {
    let Some(lease) = Lease::parse(content) else {
        return;
    };
    let text = Lease::text(&lease.container, &lease.network, &lease.names);
    let back = Lease::parse(&text).expect("what is written can be read");
    assert_eq!(
        (&back.container, &back.network),
        (&lease.container, &lease.network)
    );
    assert!(back.names.iter().all(|name| lease.names.contains(name)));
    let again = Lease::text(&back.container, &back.network, &back.names);
    assert_eq!(text, again);
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_state() {
        crate::base::fuzzing::replay("state", super::state);
    }
}

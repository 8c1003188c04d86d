//! The binary itself: what it says to wrong command lines, on which stream,
//! with which code. None of these gets as far as the engine.

use std::process::{Command, Stdio};

use super::goldens::{sections, split};

fn dockless(argv: &[String]) -> (String, String, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(argv)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        text(out.stdout),
        text(out.stderr),
        out.status.code().unwrap_or(-1),
    )
}

/// `goldens/usage.txt`: a command line, its stderr, and its code in brackets.
#[test]
fn refusals() {
    let mut wrong = Vec::new();
    for (line, wanted) in sections(include_str!("goldens/usage.txt")) {
        let (out, err, code) = dockless(&split(line));
        let got = format!("{err}[{code}]\n");
        if got != wanted || !out.is_empty() {
            wrong.push(format!("$ {line}\n--- wanted\n{wanted}--- got\n{out}{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_is_a_result() {
    for line in [
        "",
        "--help",
        "network",
        "help run",
        "run --help",
        "container ls --help",
        "help",
    ] {
        let (out, err, code) = dockless(&split(line));
        assert!(out.starts_with("Usage:  dockless"), "{line}: {out}");
        assert_eq!((err.as_str(), code), ("", 0), "{line}");
    }
    // As Docker has it; `run -h` is its host name.
    for line in ["ps -h", "network create -h", "rm -f -h web"] {
        let (out, err, code) = dockless(&split(line));
        assert!(out.starts_with("Usage:  dockless"), "{line}: {out}");
        let deprecated = "Flag shorthand -h has been deprecated, use --help\n";
        assert_eq!((err.as_str(), code), (deprecated, 0), "{line}");
    }
}

#[test]
fn completions_and_manual_pages() {
    for (shell, mark) in [
        ("bash", "complete"),
        ("zsh", "#compdef dockless"),
        ("fish", "complete -c dockless"),
    ] {
        let (out, err, code) = dockless(&split(&format!("completion {shell}")));
        assert_eq!((err.as_str(), code), ("", 0));
        assert!(out.contains(mark) && out.contains("publish-via"), "{shell}");
        assert!(out.contains("__complete"), "{shell}");
    }
    let (pages, _, _) = dockless(&split("man list"));
    assert!(pages.lines().count() > 25);
    for page in pages.lines() {
        let (out, err, code) = dockless(&split(&format!("man {page}")));
        assert_eq!((err.as_str(), code), ("", 0), "{page}");
        let title = format!(".TH {page} 1 ");
        assert!(
            out.contains(&title) && out.contains(".SH SYNOPSIS"),
            "{page}"
        );
    }
    let (by_words, _, _) = dockless(&split("man network rm"));
    let (by_page, _, _) = dockless(&split("man dockless-network-rm"));
    assert_eq!(by_words, by_page);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stderr.is_empty());
}

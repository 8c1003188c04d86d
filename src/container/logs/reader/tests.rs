//! What is shown of a log, and of one that is rotated meanwhile.

use super::super::{Stream, Writer};
use super::*;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

fn second(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n)
}

fn show(log: &Path, query: &Query) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    read(log, query, None, &mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err))
}

/// Ten lines, one a second, every third to stderr, in several files.
fn ten(dir: &Path) -> PathBuf {
    let path = dir.join("c-json.log");
    let mut log = Writer::open(&path, Some(200), 5).unwrap();
    for n in 0..10 {
        let stream = if n % 3 == 2 {
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        log.write(stream, format!("{n}\n").as_bytes(), second(n));
    }
    assert!(rotated(&path, 2).exists());
    path
}

#[test]
fn each_stream_goes_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = ten(dir.path());
    let (out, err) = show(&path, &Query::default());
    assert_eq!(out, "0\n1\n3\n4\n6\n7\n9\n");
    assert_eq!(err, "2\n5\n8\n");
    let absent = dir.path().join("none");
    assert_eq!(
        show(&absent, &Query::default()),
        (String::new(), String::new())
    );
}

#[test]
fn a_rotation_under_way_hides_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = ten(dir.path());
    let all = show(&path, &Query::default());
    let there = (1..).take_while(|n| rotated(&path, *n).exists());
    let oldest = there.last().unwrap();
    // As the writer does it, stopped after each of its renames.
    for n in (1..=oldest).rev() {
        std::fs::rename(rotated(&path, n), rotated(&path, n + 1)).unwrap();
        assert_eq!(show(&path, &Query::default()), all, "{n}");
    }
    std::fs::rename(&path, rotated(&path, 1)).unwrap();
    assert_eq!(show(&path, &Query::default()), all);
}

#[test]
fn tail_counts_across_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = ten(dir.path());
    for (tail, out, err) in [
        (0, "", ""),
        (1, "9\n", ""),
        (2, "9\n", "8\n"),
        (7, "3\n4\n6\n7\n9\n", "5\n8\n"),
        (10, "0\n1\n3\n4\n6\n7\n9\n", "2\n5\n8\n"),
        (11, "0\n1\n3\n4\n6\n7\n9\n", "2\n5\n8\n"),
    ] {
        let query = Query {
            tail: Some(tail),
            ..Query::default()
        };
        assert_eq!(
            show(&path, &query),
            (out.to_owned(), err.to_owned()),
            "{tail}"
        );
    }
}

#[test]
fn since_until_and_timestamps() {
    let dir = tempfile::tempdir().unwrap();
    let path = ten(dir.path());
    let query = Query {
        since: Some(second(3)),
        until: Some(second(4)),
        timestamps: true,
        ..Query::default()
    };
    assert_eq!(
        show(&path, &query).0,
        "2023-11-14T22:13:23.000000000Z 3\n2023-11-14T22:13:24.000000000Z 4\n"
    );
    let query = Query {
        since: Some(second(100)),
        ..Query::default()
    };
    assert_eq!(show(&path, &query), (String::new(), String::new()));
}

#[test]
fn damaged_entries_are_skipped_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let good = "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}\n";
    std::fs::write(
        &path,
        format!("{good}{{\"log\":\"ha\n{good}\0\0\0\n{good}{{\"lo"),
    )
    .unwrap();
    let (out, err) = show(&path, &Query::default());
    assert_eq!(out, "x\nx\nx\n");
    let notes: Vec<_> = err.lines().collect();
    assert_eq!(notes.len(), 3, "{err}");
    assert!(notes[0].ends_with(&format!("byte {}", good.len())), "{err}");
    let query = Query {
        tail: Some(2),
        ..Query::default()
    };
    assert_eq!(show(&path, &query).0, "x\n");
}

/// A long line needs more than one buffer.
#[test]
fn entries_longer_than_the_buffer_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let text = "y".repeat(5 * CHUNK);
    std::fs::write(
        &path,
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}}\n"
        ),
    )
    .unwrap();
    assert_eq!(show(&path, &Query::default()).0.len(), text.len() + 1);
    let query = Query {
        tail: Some(1),
        ..Query::default()
    };
    assert_eq!(show(&path, &query).0.len(), text.len() + 1);
}

/// A writer that rotates all the time, and a follower that must see every
/// line once and stop when the container has ended.
#[test]
fn follows_through_rotation_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Writer::open(&path, Some(20_000), 200).unwrap();
    log.write(Stream::Stdout, b"0\n", SystemTime::now());
    let (end, signal): (OwnedFd, OwnedFd) = nix::unistd::pipe().unwrap();
    let writer = std::thread::spawn(move || {
        for n in 1..20_000 {
            log.write(
                Stream::Stdout,
                format!("{n}\n").as_bytes(),
                SystemTime::now(),
            );
            if n % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        drop(signal);
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let query = Query {
        follow: true,
        ..Query::default()
    };
    read(&path, &query, Some(end.as_fd()), &mut out, &mut err).unwrap();
    writer.join().unwrap();
    assert_eq!(String::from_utf8(err).unwrap(), "");
    let expected: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    assert!(String::from_utf8(out).unwrap() == expected);
}

#[test]
fn following_ends_at_until() {
    let dir = tempfile::tempdir().unwrap();
    let path = ten(dir.path());
    let (end, _signal) = nix::unistd::pipe().unwrap();
    let query = Query {
        follow: true,
        tail: Some(1),
        until: Some(SystemTime::now() + Duration::from_millis(50)),
        ..Query::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    read(&path, &query, Some(end.as_fd()), &mut out, &mut err).unwrap();
    assert_eq!(out, b"9\n");
}

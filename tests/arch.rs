//! The architecture, kept by a test: which layer may use which, where unsafe
//! code may stand, what product code never does. Reads the source as text (a
//! small lexer; macros are not expanded), so it needs no compiler of its own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Layer → the layers it may use besides itself (design.md §1).
const EDGES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("netlink", &["base", "sys"]),
    ("store", &["base", "sys"]),
    ("net", &["base", "sys", "store", "netlink"]),
    ("container", &["base", "sys", "store"]),
    ("image", &["base", "sys", "store"]),
    ("lab", &["base", "sys", "netlink"]),
    ("tester", &["base", "sys", "netlink"]),
    (
        "engine",
        &[
            "base",
            "sys",
            "netlink",
            "store",
            "net",
            "container",
            "image",
        ],
    ),
    ("front", &["engine", "lab", "base"]),
];

/// What a binary outside the library may name.
const MAIN_MAY_USE: &[&str] = &["front", "tester"];

/// Drawers without a label.
const VAGUE_NAMES: &[&str] = &[
    "utils", "util", "common", "types", "helpers", "misc", "core",
];

/// Lines of one file without its tests: more than this is two subjects.
const MAX_LINES: usize = 600;

// --- reading source

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Word,
    Punct,
    Text,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    text: String,
    line: usize,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.text == text
    }
}

/// Words, string literals and single punctuation characters (`::` is one),
/// without comments.
fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let start = i;
        let first_line = line;
        let kind = match (at(i), at(i + 1)) {
            ('/', '/') => {
                i = (i..chars.len())
                    .find(|&j| at(j) == '\n')
                    .unwrap_or(chars.len());
                None
            }
            ('/', '*') => {
                i = (i..chars.len())
                    .find(|&j| at(j) == '*' && at(j + 1) == '/')
                    .map_or(chars.len(), |j| j + 2);
                None
            }
            ('"', _) => {
                i = string_end(&chars, i);
                Some(Kind::Text)
            }
            ('r', '"' | '#') if raw_string_end(&chars, i).is_some() => {
                i = raw_string_end(&chars, i).unwrap();
                Some(Kind::Text)
            }
            ('\'', c) if c == '\\' || at(i + 2) == '\'' => {
                // A character literal; anything else is a lifetime.
                i += if c == '\\' { 3 } else { 2 };
                i = (i..chars.len())
                    .find(|&j| at(j) == '\'')
                    .map_or(i, |j| j + 1);
                Some(Kind::Text)
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                Some(Kind::Word)
            }
            (':', ':') => {
                i += 2;
                Some(Kind::Punct)
            }
            (c, _) => {
                i += 1;
                (!c.is_whitespace()).then_some(Kind::Punct)
            }
        };
        let text: String = chars[start..i].iter().collect();
        line += text.matches('\n').count();
        if let Some(kind) = kind {
            tokens.push(Token {
                kind,
                text,
                line: first_line,
            });
        }
    }
    tokens
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let found = chars[open + 1..]
        .windows(close.len())
        .position(|w| w == close)?;
    Some(open + 1 + found + close.len())
}

/// Cuts `#[cfg(test)] mod … { … }`, which is not product code.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        let ahead = &tokens[i..];
        let is_cfg_test = cfg_test.iter().zip(ahead).filter(|(a, b)| b.is(a)).count() == 7;
        if !is_cfg_test {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // Up to the item's `;`, or over its braces.
        let mut depth = 0_i32;
        while i < tokens.len() {
            let token = &tokens[i];
            i += 1;
            if token.is("{") {
                depth += 1;
            } else if token.is("}") {
                depth -= 1;
            }
            if depth == 0 && (token.is("}") || token.is(";")) {
                break;
            }
        }
    }
    kept
}

struct File {
    /// Relative to src/.
    path: PathBuf,
    source: String,
    all: Vec<Token>,
    product: Vec<Token>,
}

impl File {
    fn layer(&self) -> &str {
        let first = self.path.iter().next().unwrap().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Modules between this file's module and the crate root.
    fn depth(&self) -> usize {
        let is_mod = self.path.ends_with("mod.rs");
        self.path.iter().count() - usize::from(is_mod)
    }

    fn is_raw(&self) -> bool {
        let path = self.path.to_str().unwrap();
        path == "sys/raw.rs" || path.starts_with("sys/raw/")
    }

    /// Top-level modules that this file names, and where.
    fn uses(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let tokens = &self.all;
        for i in 0..tokens.len() {
            let is_path_start = i == 0 || !tokens[i - 1].is("::");
            let after = if tokens[i].is("crate") && is_path_start {
                i + 1
            } else if tokens[i].is("super") && is_path_start {
                let supers = (0..)
                    .take_while(|n| tokens.get(i + 2 * n).is_some_and(|t| t.is("super")))
                    .count();
                if supers < self.depth() {
                    continue;
                }
                i + 2 * supers - 1
            } else {
                continue;
            };
            if !tokens.get(after).is_some_and(|t| t.is("::")) {
                continue;
            }
            heads(&tokens[after + 1..], &mut found);
        }
        found
    }
}

/// First words of `a::b`, or of each branch of `{a::b, c::{d, e}}`.
fn heads(tokens: &[Token], found: &mut Vec<(String, usize)>) {
    if !tokens.first().is_some_and(|t| t.is("{")) {
        if let Some(head) = tokens.first() {
            found.push((head.text.clone(), head.line));
        }
        return;
    }
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth -= 1;
            if depth == 0 {
                return;
            }
        } else if depth == 1 && (tokens[i - 1].is("{") || tokens[i - 1].is(",")) {
            found.push((token.text.clone(), token.line));
        }
    }
}

fn files() -> Vec<File> {
    fn walk(folder: &Path, root: &Path, files: &mut Vec<File>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let all = lex(&source);
                // The latter in builds for tests and the fuzzer alone.
                let is_test_file = path.ends_with("tests.rs") || path.ends_with("fuzzing.rs");
                files.push(File {
                    path: path.strip_prefix(root).unwrap().to_owned(),
                    product: if is_test_file {
                        Vec::new()
                    } else {
                        without_tests(&all)
                    },
                    source,
                    all,
                });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    assert!(files.len() > 20, "found only {} files", files.len());
    files
}

/// `process::Command` or `process::{…, Command}`: std's, where clap's has the
/// same name.
fn names_std_command(tokens: &[Token]) -> bool {
    tokens.windows(3).enumerate().any(|(i, w)| {
        let named: Vec<_> = if w[2].is("{") {
            tokens[i + 3..].iter().take_while(|t| !t.is("}")).collect()
        } else {
            vec![&w[2]]
        };
        w[0].is("process") && w[1].is("::") && named.iter().any(|t| t.is("Command"))
    })
}

/// Runs `check` over every file and fails with the whole list.
fn each_file(rule: &str, check: impl Fn(&File, &mut Vec<(usize, String)>)) {
    let mut report = String::new();
    for file in files() {
        let mut broken = Vec::new();
        check(&file, &mut broken);
        for (line, what) in broken {
            writeln!(report, "src/{}:{line}: {what}", file.path.display()).unwrap();
        }
    }
    assert!(report.is_empty(), "{rule}\n{report}");
}

// --- the rules

#[test]
fn layers_use_only_what_the_table_allows() {
    let layers: BTreeSet<&str> = EDGES.iter().map(|(layer, _)| *layer).collect();
    each_file(
        "a layer uses one that it must not (EDGES)",
        |file, broken| {
            let own = file.layer();
            if matches!(own, "lib" | "main") {
                return;
            }
            let Some((_, allowed)) = EDGES.iter().find(|(layer, _)| *layer == own) else {
                broken.push((1, format!("{own} is not in the table")));
                return;
            };
            for (used, line) in file.uses() {
                if layers.contains(used.as_str())
                    && used != own
                    && !allowed.contains(&used.as_str())
                {
                    broken.push((line, format!("{own} uses {used}")));
                }
            }
        },
    );
}

#[test]
fn main_is_thin() {
    each_file("main may only choose a front", |file, broken| {
        if file.layer() != "main" {
            return;
        }
        for window in file.product.windows(3) {
            if window[0].is("dockless")
                && window[1].is("::")
                && !MAIN_MAY_USE.contains(&window[2].text.as_str())
            {
                broken.push((window[0].line, format!("main uses {}", window[2].text)));
            }
        }
    });
}

#[test]
fn unsafe_code_is_fenced() {
    each_file("unsafe outside src/sys/raw", |file, broken| {
        if file.is_raw() {
            return;
        }
        for token in file.all.iter().filter(|t| t.is("unsafe")) {
            broken.push((token.line, "unsafe".to_owned()));
        }
        for pair in file.all.windows(3) {
            if pair[0].is("allow") && pair[1].is("(") && pair[2].is("unsafe_code") {
                broken.push((pair[0].line, "allow(unsafe_code)".to_owned()));
            }
        }
    });
}

#[test]
fn product_code_starts_no_other_program() {
    each_file(
        "a netlink message or a file does what that program would",
        |file, broken| {
            if !names_std_command(&file.product) {
                return;
            }
            for w in file.product.windows(5) {
                let is_new = w[0].is("Command") && w[1].is("::") && w[2].is("new");
                if is_new && w[4].text != "\"/proc/self/exe\"" {
                    broken.push((w[0].line, format!("Command::new({}", w[4].text)));
                }
            }
        },
    );
}

#[test]
fn nothing_is_unfinished_or_gives_up() {
    let refused = ["todo", "unimplemented", "panic", "unreachable", "dbg"];
    each_file("product code returns errors", |file, broken| {
        for pair in file.product.windows(2) {
            if refused.contains(&pair[0].text.as_str()) && pair[1].is("!") {
                broken.push((pair[0].line, format!("{}!", pair[0].text)));
            }
        }
        for three in file.product.windows(3) {
            let is_call = three[0].is(".") && three[2].is("(");
            if is_call && (three[1].is("unwrap") || three[1].is("expect")) {
                broken.push((three[1].line, format!(".{}()", three[1].text)));
            }
        }
        for (n, line) in file.source.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            for mark in ["TODO", "FIXME", "XXX", "HACK"] {
                if comment.contains(mark) {
                    broken.push((n + 1, mark.to_owned()));
                }
            }
        }
    });
}

#[test]
fn files_say_what_they_are_for_and_stay_small() {
    each_file("files a newcomer can read", |file, broken| {
        if !file.source.starts_with("//!") {
            broken.push((1, "does not open with its purpose (//!)".to_owned()));
        }
        let name = file.path.file_stem().unwrap().to_str().unwrap();
        if VAGUE_NAMES.contains(&name) {
            broken.push((1, format!("{name} says nothing")));
        }
        let tests = file.source.find("#[cfg(test)]\nmod ");
        let lines = file.source[..tests.unwrap_or(file.source.len())].lines();
        let count = lines.count();
        if count > MAX_LINES {
            broken.push((1, format!("{count} lines without tests")));
        }
    });
}

/// The fuzz targets compile the layers with libraries of their own manifest.
#[test]
fn the_fuzz_targets_use_the_same_libraries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dependencies = |manifest: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root.join(manifest)).unwrap();
        let lines = text.lines().skip_while(|line| *line != "[dependencies]");
        let section = lines.skip(1).take_while(|line| !line.starts_with('['));
        let named = section.filter(|line| line.contains(" = "));
        named.map(str::to_owned).collect()
    };
    let (own, fuzz) = (dependencies("Cargo.toml"), dependencies("fuzz/Cargo.toml"));
    let others: Vec<&String> = fuzz.difference(&own).collect();
    assert!(
        matches!(others[..], [library] if library.starts_with("libfuzzer-sys = ")),
        "fuzz/Cargo.toml has what Cargo.toml has not: {others:?}"
    );
    assert!(fuzz.len() > 5, "{fuzz:?}");
}

/// docs/features.md names the test of each row; one that is renamed or gone
/// must not go on proving anything.
#[test]
fn tests_that_the_docs_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = vec![root.join("tests/kernel")];
    let mut tests = String::new();
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            tests += &fs::read_to_string(path).unwrap();
        }
    }
    let features = fs::read_to_string(root.join("docs/features.md")).unwrap();
    let named: Vec<&str> = features
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| Some(code.rsplit_once("::")?.1))
        .filter(|name| !matches!(*name, "" | "…"))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !tests.contains(&format!("fn {name}()")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_lexer_sees_what_it_must() {
    let source = r####"
        use crate::{net::spec, sys::{fd, raw}}; // crate::front
        use super::super::engine; /* unsafe */
        const A: &str = r#"crate::"lab""#;
        const B: char = '"'; fn f<'a>() { "crate::lab \" unsafe"; crate::base::x() }
        #[cfg(test)] mod tests { use crate::front; }
    "####;
    let all = lex(source);
    let file = File {
        path: "net/vlan.rs".into(),
        source: source.to_owned(),
        product: without_tests(&all),
        all,
    };
    let names: Vec<String> = file.uses().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["net", "sys", "engine", "base", "front"]);
    assert!(!file.all.iter().any(|t| t.is("unsafe")));
    assert!(!file.product.iter().any(|t| t.is("front")));
    for (source, is_std) in [
        ("use std::process::{Child, Command};", true),
        ("std::process::Command::new(x)", true),
        ("use clap::Command; use std::process::{Child};", false),
        ("use std::os::unix::process::CommandExt;", false),
    ] {
        assert_eq!(names_std_command(&lex(source)), is_std, "{source}");
    }
}

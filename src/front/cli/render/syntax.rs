//! What Go refuses when it parses a template, and the library lets pass: blocks
//! that do not fit together, and characters that can follow no name.

/// A block that is open, and whether its `else` has been.
struct Block<'a> {
    keyword: &'a str,
    has_else: bool,
}

/// The error is Go's: `template: :1: unexpected {{end}}`.
pub(super) fn check(source: &str) -> Result<(), String> {
    let mut open: Vec<Block<'_>> = Vec::new();
    let mut rest = source;
    let line = |rest: &str| source[..source.len() - rest.len()].matches('\n').count() + 1;
    while let Some(at) = rest.find("{{") {
        let action = &rest[at + 2..];
        let Some(length) = action_length(action) else {
            // The library says so.
            return Ok(());
        };
        let text = action[..length]
            .trim_start_matches("- ")
            .trim_end_matches(" -");
        let fail = |what: String| Err(format!("template: :{}: {what}", line(action)));
        if let Some(c) = bad_character(text) {
            return fail(format!("bad character U+{:04X} '{c}'", u32::from(c)));
        }
        let words = text.trim();
        let (first, more) = words.split_at(
            words
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(words.len()),
        );
        match first {
            "if" | "range" | "with" | "block" | "define" => open.push(Block {
                keyword: first,
                has_else: false,
            }),
            "end" if open.pop().is_none() => return fail("unexpected {{end}}".to_owned()),
            "else" => match open.last_mut() {
                None => return fail("unexpected {{else}}".to_owned()),
                Some(block) if matches!(block.keyword, "block" | "define") => {
                    let clause = block.keyword;
                    return fail(format!("unexpected {{{{else}}}} in {clause} clause"));
                }
                Some(block) if block.has_else => {
                    return fail("expected end; found {{else}}".to_owned());
                }
                Some(block) => block.has_else = more.trim().is_empty(),
            },
            _ => {}
        }
        rest = &action[length + 2..];
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err(format!("template: :{}: unexpected EOF", line(""))),
    }
}

/// Up to the `}}` that ends it: not one in a string or a comment.
fn action_length(action: &str) -> Option<usize> {
    let inside = action.trim_start_matches("- ").trim_start();
    if inside.starts_with("/*") {
        let end = action.find("*/")?;
        return Some(end + action[end..].find("}}")?);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in action.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if action[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// What stands right behind a field, variable or word and may not (Go's
/// `atTerminator`).
fn bad_character(action: &str) -> Option<char> {
    if action.trim_start().starts_with("/*") {
        return None;
    }
    let is_name = |c: char| c == '_' || c.is_alphanumeric();
    let mut chars = action.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '`' | '\'' => {
                while let Some(next) = chars.next() {
                    if next == '\\' && c != '`' {
                        chars.next();
                    } else if next == c {
                        break;
                    }
                }
            }
            // A number has rules of its own.
            '0'..='9' => {
                while chars
                    .next_if(|c| is_name(*c) || matches!(c, '.' | '+' | '-'))
                    .is_some()
                {}
            }
            c if matches!(c, '.' | '$') || is_name(c) => {
                if c == '.' && chars.peek().is_some_and(char::is_ascii_digit) {
                    continue;
                }
                while chars.next_if(|c| is_name(*c)).is_some() {}
                let next = chars.peek().copied()?;
                if !next.is_whitespace() && !matches!(next, '.' | ',' | '|' | ':' | ')' | '(') {
                    return Some(next);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes_and_what_not() {
        for good in [
            "plain }} text",
            "{{.A}} {{if .B}}x{{else if .C}}y{{else}}z{{end}}",
            "{{- range $k, $v := .M -}}{{$k}}={{$v}}{{- end -}}",
            "{{/* {{end}} a-b */}}{{with .A}}{{end}}",
            "{{\"}}{{end}}\"}}{{`a-b`}}{{printf \"%d-%d\" -1 0x1f}}{{(index .A 0).B}}{{1.5e-3}}",
            "{{define \"a\"}}{{end}}{{range .A}}{{else}}none{{end}}",
            "{{$}} {{$x := 1}}{{$x = 2}} {{.}}{{not (and .A .B)}}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, text) in [
            ("a{{end}}b", ":1: unexpected {{end}}"),
            ("{{if .A}}{{end}}\n{{end}}", ":2: unexpected {{end}}"),
            ("{{else}}", ":1: unexpected {{else}}"),
            (
                "{{if .A}}{{else}}{{else}}{{end}}",
                ":1: expected end; found {{else}}",
            ),
            (
                "{{define \"x\"}}{{else}}{{end}}",
                ":1: unexpected {{else}} in define clause",
            ),
            ("{{if .A}}x", ":1: unexpected EOF"),
            ("{{.a.my-net.X}}", ":1: bad character U+002D '-'"),
            ("\n{{$x/1}}", ":2: bad character U+002F '/'"),
        ] {
            assert_eq!(check(bad), Err(format!("template: {text}")), "{bad}");
        }
    }
}

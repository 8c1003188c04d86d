//! Text from containers and networks on its way to a terminal: control
//! characters are shown as escapes, so that a label cannot move the cursor,
//! set the title or hide a line. In a pipe nothing is changed.

use std::borrow::Cow;

/// `\x1b` for a control character (C0, DEL, C1), the rest unchanged.
pub fn field(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// The same for finished output, which may have newlines and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, allowed: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && !allowed(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if bad(c) {
            out.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_gets_through() {
        assert_eq!(field("a\x1b[2Jb\u{9b}1mc\n"), "a\\x1b[2Jb\\x9b1mc\\x0a");
        assert_eq!(lines("a\tb\n\x07"), "a\tb\n\\x07");
        assert!(matches!(field("näme"), Cow::Borrowed(_)));
    }
}

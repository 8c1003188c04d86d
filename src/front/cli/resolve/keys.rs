//! `--detach-keys`: `ctrl-p,ctrl-q`, `a`, `ctrl-[`, `DEL`.

use crate::base::{Error, Result};
use crate::engine::DetachKeys;

/// Not given or empty: Docker's default, ctrl-p ctrl-q.
pub fn detach(text: Option<&str>) -> Result<DetachKeys> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(DetachKeys::default());
    };
    let bytes: Vec<u8> = text
        .split(',')
        .map(|key| byte(text, key))
        .collect::<Result<_>>()?;
    DetachKeys::new(&bytes).ok_or_else(|| invalid(text, "more than 16 keys"))
}

fn byte(all: &str, key: &str) -> Result<u8> {
    let unknown = || invalid(all, &format!("Unknown character: '{key}'"));
    match key.as_bytes() {
        [byte] => Ok(*byte),
        _ if key == "DEL" => Ok(127),
        _ => {
            let rest = key.strip_prefix("ctrl-").ok_or_else(unknown)?;
            match rest.as_bytes() {
                // The control code is the letter's place in the alphabet.
                [c] if c.is_ascii_lowercase() => Ok(c - b'a' + 1),
                [c @ (b'@' | b'['..=b'_')] => Ok(c & 0x1f),
                _ => Err(unknown()),
            }
        }
    }
}

fn invalid(all: &str, why: &str) -> Error {
    Error::invalid(format!("invalid detach keys ({all}): {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_reads_them() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("a,ctrl-a", b"a\x01"),
            ("ctrl-@,ctrl-[,ctrl-_", &[0, 27, 31]),
            ("DEL", &[127]),
        ] {
            assert_eq!(detach(Some(text)).unwrap().as_bytes(), bytes, "{text}");
        }
        assert_eq!(detach(None).unwrap(), DetachKeys::default());
        assert_eq!(detach(Some("")).unwrap(), DetachKeys::default());
        for bad in ["ctrl-foo", "foo", "a,", "ctrl-A"] {
            assert!(
                detach(Some(bad))
                    .unwrap_err()
                    .to_string()
                    .contains("Unknown character"),
                "{bad}"
            );
        }
        assert!(detach(Some("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q")).is_err());
    }
}

//! Signals by name or number, as `kill` and `--stop-signal` take them.

use crate::base::{Error, Result};
use nix::sys::signal::Signal;

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub(super) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |sign: &str, base: i32, factor: i32| {
        bare.strip_prefix(sign).map(|rest| {
            let offset = match rest {
                "" => 0,
                rest => rest
                    .strip_prefix(if factor > 0 { '+' } else { '-' })
                    .and_then(|n| n.parse::<i32>().ok())
                    .ok_or_else(invalid)?,
            };
            let number = base + factor * offset;
            if (34..=64).contains(&number) {
                Ok(number)
            } else {
                Err(invalid())
            }
        })
    };
    // Linux's numbers as container programs see them (signal(7)): the C
    // library keeps 32 and 33 for itself.
    if let Some(number) = real_time("RTMIN", 34, 1).or_else(|| real_time("RTMAX", 64, -1)) {
        return number;
    }
    format!("SIG{bare}")
        .parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sighup", 1),
            ("3", 3),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("rtmin", 34),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "FOO", "-1", "RTMIN+40", "RTMIN3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

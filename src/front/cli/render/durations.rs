//! Times as Docker says them: `Up 5 seconds`, `About a minute`, `3 weeks ago`,
//! `2026-11-23 11:59:50 +0000 UTC`; and sizes: `12.3kB`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::view::NEVER;

/// Reads a view's time; `None` for Go's zero time and for what is no time.
pub fn parse(time: &str) -> Option<SystemTime> {
    if time.is_empty() || time == NEVER {
        return None;
    }
    humantime::parse_rfc3339(time).ok()
}

/// How long ago `time` was; a time in the future is now.
pub fn since(time: &str, now: SystemTime) -> Option<Duration> {
    parse(time).map(|t| now.duration_since(t).unwrap_or_default())
}

/// In words, in the largest unit that fits.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest, all else down.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (s, 0, _) => format!("{s} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, h) if h < 48 => format!("{h} hours"),
        (_, _, h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (_, _, h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (_, _, h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A view's time as Go prints it, in UTC: `2026-11-23 11:59:50.1 +0000 UTC`.
pub fn stamp(time: &str, fraction: bool) -> String {
    let at = parse(time).unwrap_or(UNIX_EPOCH);
    let text = humantime::format_rfc3339_nanos(at).to_string();
    let text = text.trim_end_matches('Z').replacen('T', " ", 1);
    let (whole, nanos) = text.split_once('.').unwrap_or((&text, ""));
    let nanos = nanos.trim_end_matches('0');
    if fraction && !nanos.is_empty() {
        format!("{whole}.{nanos} +0000 UTC")
    } else {
        format!("{whole} +0000 UTC")
    }
}

/// Powers of 1000 with three significant digits: `0B`, `12.3kB`, `1.23MB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Powers of 1024 with four significant digits: `7.654GiB`.
pub fn size_binary(bytes: u64) -> String {
    scaled(
        bytes,
        1024,
        4,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

/// C's `%.{digits}g` of the value in the largest unit below it.
fn scaled(bytes: u64, base: u64, digits: usize, units: &[&str]) -> String {
    let mut divisor = 1u64;
    let mut unit = 0;
    while unit + 1 < units.len() && bytes / divisor >= base {
        divisor *= base;
        unit += 1;
    }
    let whole = bytes / divisor;
    let decimals = digits.saturating_sub(whole.max(1).to_string().len());
    let scale = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
    // Rounded half up, in integers, so that large sizes lose nothing.
    let rounded = (u128::from(bytes) * scale * 2 + u128::from(divisor)) / (u128::from(divisor) * 2);
    let mut text = format!("{}", rounded / scale);
    if decimals > 0 {
        let fraction = format!("{:0decimals$}", rounded % scale);
        let fraction = fraction.trim_end_matches('0');
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(fraction);
        }
    }
    text.push_str(units[unit]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_docker() {
        let hour = 3600;
        let day = 24 * hour;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (5, "5 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (hour, "About an hour"),
            (hour + 1799, "About an hour"),
            (hour + 1800, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (59 * day, "8 weeks"),
            (60 * day, "2 months"),
            (729 * day, "24 months"),
            (730 * day, "2 years"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn stamps() {
        let t = "2026-11-23T11:59:50.120000000Z";
        assert_eq!(stamp(t, true), "2026-11-23 11:59:50.12 +0000 UTC");
        assert_eq!(stamp(t, false), "2026-11-23 11:59:50 +0000 UTC");
        assert_eq!(parse(NEVER), None);
        assert_eq!(parse("soon"), None);
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (12_288, "12.3kB"),
            (1_234_567, "1.23MB"),
            (4_500_000, "4.5MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(size_binary(8_217_874_432), "7.653GiB");
        assert_eq!(size_binary(1 << 30), "1GiB");
    }
}

//! Moments as `logs --since`, `--until` and `network prune --filter until=`
//! take them: a Go duration before now (`1h30m`), RFC 3339 in whole or in part
//! (UTC unless it says otherwise), or seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::{Error, Result};

pub fn moment(option: &str, text: &str, now: SystemTime) -> Result<SystemTime> {
    if let Some(ago) = go_duration(text) {
        return Ok(now.checked_sub(ago).unwrap_or(UNIX_EPOCH));
    }
    date(text).or_else(|| unix(text)).ok_or_else(|| {
        Error::invalid(format!(
            "invalid value for {option:?}: failed to parse value as time or duration: {text:?}"
        ))
    })
}

/// `300ms`, `1.5h`, `2h45m`; a number needs its unit.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = next;
    }
    Some(total)
}

/// `2026-11-23`, `…T10`, `…T10:20`, `…T10:20:30.5`, each with `Z`, `+01:00` or
/// nothing behind.
fn date(text: &str) -> Option<SystemTime> {
    let (day, clock) = match text.split_once('T') {
        Some((day, clock)) => (day, clock),
        None => (text.get(..10)?, text.get(10..)?),
    };
    let zone_at = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let clock = match clock.len() {
        0 => "00:00:00".to_owned(),
        2 => format!("{clock}:00:00"),
        5 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    let at = humantime::parse_rfc3339(&format!("{day}T{clock}Z")).ok()?;
    let (behind, zone) = match zone.split_at_checked(1) {
        None | Some(("Z", "")) => return Some(at),
        Some(("+", zone)) => (true, zone),
        Some(("-", zone)) => (false, zone),
        Some(_) => return None,
    };
    let (hours, minutes) = zone.split_once(':')?;
    let offset = (hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?) * 60;
    let offset = Duration::from_secs(offset);
    if behind {
        at.checked_sub(offset)
    } else {
        at.checked_add(offset)
    }
}

/// `1136073600` or `1136073600.000000001`
fn unix(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let now = humantime::parse_rfc3339("2026-11-23T12:00:00Z").unwrap();
        for (text, wanted) in [
            ("10m", "2026-11-23T11:50:00Z"),
            ("1h30m", "2026-11-23T10:30:00Z"),
            ("1.5h", "2026-11-23T10:30:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("2026-11-01T10", "2026-11-01T10:00:00Z"),
            ("2026-11-01T10:20", "2026-11-01T10:20:00Z"),
            ("2026-11-01T10:20:30", "2026-11-01T10:20:30Z"),
            ("2026-11-01T10:20:30.25Z", "2026-11-01T10:20:30.250Z"),
            ("2026-11-01T10:20:30+01:00", "2026-11-01T09:20:30Z"),
            ("2026-11-01T10:20:30-01:30", "2026-11-01T11:50:30Z"),
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("1136073600.5", "2006-01-01T00:00:00.500Z"),
        ] {
            let at = moment("since", text, now).unwrap();
            assert_eq!(at, humantime::parse_rfc3339(wanted).unwrap(), "{text}");
        }
        for bad in [
            "foo",
            "10",
            "-5m",
            "2026-13-01",
            "2026-11-01T25:00",
            "1.",
            "5x",
            "",
        ] {
            // A lone number is a time, not a duration: "10" is ten seconds after 1970.
            if bad == "10" {
                assert!(moment("since", bad, now).is_ok());
                continue;
            }
            assert_eq!(
                moment("since", bad, now).unwrap_err().to_string(),
                format!(
                    "invalid value for \"since\": failed to parse value as time or duration: {bad:?}"
                )
            );
        }
    }
}

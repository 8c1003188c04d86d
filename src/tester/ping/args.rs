//! ping's command line, parsed as getopt(3) does: `-c1`, `-c 1`, `-qn`.

use std::time::Duration;

use super::Failure;
use crate::base::Family;

/// iputils stamps packets from this many data bytes on; shorter ones have no
/// round trip time.
pub(super) const STAMPED: usize = 16;
/// What fits into an IPv4 packet beside its header and the ICMP header.
const MAX_SIZE: u64 = 65_507;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Args {
    pub host: String,
    pub count: Option<u64>,
    pub interval: Duration,
    /// How long to wait for answers after the last packet if there were none.
    pub linger: Duration,
    pub size: usize,
    pub quiet: bool,
    pub numeric: bool,
    /// `-4`, `-6`
    pub family: Option<Family>,
}

const USAGE: &str = "\n\nUsage\n  ping [options] <destination>\n\nOptions:\n  \
    -c <count>     stop after <count> replies\n  \
    -i <interval>  seconds between packets\n  \
    -n             numbers only, no names\n  \
    -q             only the summary\n  \
    -s <size>      number of data bytes\n  \
    -W <timeout>   seconds to wait for a response\n  \
    -4, -6         IPv4 or IPv6 only";

impl Args {
    pub(super) fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut parsed = Self {
            host: String::new(),
            count: None,
            interval: Duration::from_secs(1),
            linger: Duration::from_secs(10),
            size: 56,
            quiet: false,
            numeric: false,
            family: None,
        };
        let mut words = args.iter();
        let mut only_hosts = false;
        while let Some(word) = words.next() {
            match word.strip_prefix('-') {
                Some("-") if !only_hosts => only_hosts = true,
                Some(letters) if !only_hosts && !letters.is_empty() => {
                    parsed.letters(letters, &mut words)?;
                }
                // Of several the last counts, as in iputils.
                _ => parsed.host.clone_from(word),
            }
        }
        if parsed.host.is_empty() {
            let text = "usage error: Destination address required";
            return Err(Failure::new(1, text));
        }
        Ok(parsed)
    }

    fn letters(
        &mut self,
        letters: &str,
        words: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), Failure> {
        for (at, letter) in letters.char_indices() {
            match letter {
                'q' => self.quiet = true,
                'n' => self.numeric = true,
                '4' => self.family = Some(Family::Ipv4),
                '6' => self.family = Some(Family::Ipv6),
                'c' | 'i' | 's' | 'W' => {
                    let rest = &letters[at + letter.len_utf8()..];
                    let value = match rest {
                        "" => words.next().map(String::as_str).ok_or_else(|| {
                            let text = format!("option requires an argument -- '{letter}'{USAGE}");
                            Failure::new(2, text)
                        })?,
                        _ => rest,
                    };
                    return self.set(letter, value);
                }
                'h' => return Err(Failure::new(2, format!("ICMP echo{USAGE}"))),
                _ => {
                    return Err(Failure::new(
                        2,
                        format!("invalid option -- '{letter}'{USAGE}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, letter: char, value: &str) -> Result<(), Failure> {
        match letter {
            'c' => {
                self.count = Some(number(
                    value,
                    1,
                    u64::try_from(i64::MAX).unwrap_or(u64::MAX),
                )?)
            }
            's' => {
                let size = number(value, 0, MAX_SIZE)?;
                self.size = usize::try_from(size).unwrap_or_default();
            }
            'W' => self.linger = seconds(value)?,
            _ => {
                self.interval = seconds(value)?;
                if self.interval < Duration::from_millis(2) {
                    let text = "cannot flood; minimal interval allowed for user is 2ms";
                    return Err(Failure::new(2, text));
                }
            }
        }
        Ok(())
    }
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, Failure> {
    let value: i128 = text
        .parse()
        .map_err(|_| Failure::new(1, format!("invalid argument: '{text}'")))?;
    match u64::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Failure::new(
            1,
            format!("invalid argument: '{text}': out of range: {min} <= value <= {max}"),
        )),
    }
}

fn seconds(text: &str) -> Result<Duration, Failure> {
    text.parse()
        .ok()
        .and_then(|s: f64| Duration::try_from_secs_f64(s).ok())
        // A day: Instant arithmetic must not overflow.
        .filter(|d| *d <= Duration::from_secs(86_400))
        .ok_or_else(|| Failure::new(1, format!("invalid argument: '{text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Failure> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(&words)
    }

    #[test]
    fn getopt_forms() {
        let args = parse("-qnc3 -i 0.2 -s0 h -W1.5").unwrap();
        assert_eq!((args.count, args.size), (Some(3), 0));
        assert_eq!(args.interval, Duration::from_millis(200));
        assert_eq!(args.linger, Duration::from_millis(1500));
        assert!(args.quiet && args.numeric);
        assert_eq!(args.family, None);
        assert_eq!(parse("-6 h").unwrap().family, Some(Family::Ipv6));
        assert_eq!(parse("a b").unwrap().host, "b");
        assert_eq!(parse("-- -x").unwrap().host, "-x");
    }

    #[test]
    fn refusals_as_iputils() {
        for (line, code, text) in [
            ("", 1, "usage error: Destination address required"),
            ("-c x h", 1, "invalid argument: 'x'"),
            (
                "-c 0 h",
                1,
                "invalid argument: '0': out of range: 1 <= value <= 9223372036854775807",
            ),
            ("-s 65508 h", 1, "out of range: 0 <= value <= 65507"),
            ("-s -1 h", 1, "out of range"),
            ("-Z h", 2, "invalid option -- 'Z'"),
            ("-c", 2, "option requires an argument -- 'c'"),
            ("-i 0.001 h", 2, "cannot flood"),
            ("-i nan h", 1, "invalid argument: 'nan'"),
            ("-W 1e300 h", 1, "invalid argument"),
        ] {
            let failure = parse(line).unwrap_err();
            assert_eq!(failure.code, code, "{line}");
            assert!(failure.text.contains(text), "{line}: {}", failure.text);
        }
    }
}

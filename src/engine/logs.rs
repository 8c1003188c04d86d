//! `--log-opt`, as Docker's json-file driver takes it.

use std::collections::BTreeMap;

use crate::base::{Error, Result};

/// `max-size` (bytes, with k, m or g) and `max-file`.
pub(super) fn limits(options: &BTreeMap<String, String>) -> Result<(Option<u64>, u32)> {
    let mut size = None;
    let mut files = 1;
    for (key, value) in options {
        match key.as_str() {
            "max-size" if value == "-1" => size = None,
            "max-size" => {
                size = Some(bytes(value).ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid log option max-size={value}: it must be a number with k, m or g"
                    ))
                })?);
            }
            "max-file" => {
                files = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid log option max-file={value}: it must be a number above 0"
                    ))
                })?;
            }
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{key}' for json-file log driver"
                )));
            }
        }
    }
    if size.is_none() && files > 1 {
        return Err(Error::invalid(
            "max-file cannot be more than 1 when max-size is not set",
        ));
    }
    Ok((size, files))
}

fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match bare.chars().last()? {
        'k' => (&bare[..bare.len() - 1], 10),
        'm' => (&bare[..bare.len() - 1], 20),
        'g' => (&bare[..bare.len() - 1], 30),
        _ => (bare, 0),
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts() {
        let of = |list: &[(&str, &str)]| {
            limits(
                &list
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(of(&[]).unwrap(), (None, 1));
        assert_eq!(
            of(&[("max-size", "10m"), ("max-file", "3")]).unwrap(),
            (Some(10 << 20), 3)
        );
        assert_eq!(of(&[("max-size", "1kb")]).unwrap(), (Some(1024), 1));
        for bad in [
            &[("max-size", "x")][..],
            &[("max-file", "2")],
            &[("max-size", "1k"), ("max-file", "0")],
            &[("x", "1")],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}

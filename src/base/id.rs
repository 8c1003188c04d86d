//! Names and ids of containers and networks, in Docker's spelling.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// 64 lower-case hex digits, so an id can never leave its folder.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                if id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    Ok(Self(id))
                } else {
                    Err(Error::invalid(format!("invalid id {id:?}: it must be 64 hex digits")))
                }
            }

            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
                let digits = bytes.map(|b| [digit(b >> 4), digit(b)]);
                // ASCII is UTF-8.
                Self(String::from_utf8_lossy(digits.as_flattened()).into_owned())
            }

            pub fn to_bytes(&self) -> [u8; 32] {
                let digit = |b: &u8| match b {
                    b'0'..=b'9' => b - b'0',
                    // Nothing else is in an id.
                    _ => b - b'a' + 10,
                };
                let mut bytes = [0; 32];
                for (byte, digits) in bytes.iter_mut().zip(self.0.as_bytes().chunks_exact(2)) {
                    *byte = digits.iter().fold(0, |sum, d| sum << 4 | digit(d));
                }
                bytes
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, as Docker prints an id.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(id: String) -> Result<Self> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
    };
}

hex_id! {
    /// A container's 64-hex id.
    ContainerId
}
hex_id! {
    /// A network's 64-hex id.
    NetworkId
}

/// A container's name: Docker's `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, without the
/// leading slash of its API.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest =
            bytes.len() > 0 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if first && rest {
            Ok(Self(name))
        } else {
            let short = name.len() == 1 && first;
            let error = Error::invalid(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            ));
            Err(if short {
                error.hint("it needs two characters or more")
            } else {
                error
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A network's name. Docker refuses only a blank one; slashes and spaces are
/// legal, so a name is never used as a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

impl NetworkName {
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.trim().is_empty() {
            Err(Error::invalid("invalid name: name is empty"))
        } else {
            Ok(Self(name))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }
        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}
text!(ContainerName);
text!(NetworkName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_traverse() {
        assert!(ContainerId::new("a".repeat(64)).is_ok());
        assert!(ContainerId::new("../".repeat(21) + "a").is_err());
        assert!(ContainerId::new("A".repeat(64)).is_err());
        assert_eq!(ContainerId::from_bytes([0xab; 32]).short(), "abababababab");
    }

    #[test]
    fn container_names_as_docker() {
        for ok in ["mac1", "a.b", "A_-."] {
            assert!(ContainerName::new(ok).is_ok(), "{ok}");
        }
        for bad in ["", "a", "-a", "a/b", "a b", "ü1"] {
            assert!(ContainerName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn network_names_are_free_text() {
        assert!(NetworkName::new("a/b c").is_ok());
        assert!(NetworkName::new("  ").is_err());
    }
}

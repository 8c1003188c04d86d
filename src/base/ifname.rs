//! Interface names as the kernel accepts them (`dev_valid_name` in
//! net/core/dev.c): 1 to 15 bytes, no slash, no colon, no white space, not `.`
//! or `..`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::NetworkId;
use super::error::{Error, Result};

/// A network interface name that the kernel would accept.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// `IFNAMSIZ` less the terminating NUL.
    pub const MAX: usize = 15;

    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let bad = if name.is_empty() {
            "it is empty"
        } else if name.len() > Self::MAX {
            "it is longer than 15 bytes"
        } else if name == "." || name == ".." {
            "the kernel reserves it"
        } else if name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b)
        {
            "it has a slash, a colon, a NUL or white space in it"
        } else {
            return Ok(Self(name));
        };
        Err(Error::invalid(format!(
            "invalid interface name {name:?}: {bad}"
        )))
    }

    /// The host-side link of a network: `dl-` and the first 12 hex digits of
    /// the id, exactly as long as a name may be.
    pub fn of_network(id: &NetworkId) -> Self {
        Self(format!("dl-{}", id.short()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IfName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl std::str::FromStr for IfName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_names_are_valid() {
        let name = IfName::of_network(&NetworkId::from_bytes([0xab; 32]));
        assert_eq!(name.as_str(), "dl-abababababab");
        assert_eq!(IfName::new(name.as_str()).unwrap(), name);
    }

    #[test]
    fn kernel_limits() {
        assert!(IfName::new("eth0.4094").is_ok());
        assert!(IfName::new("abcdefghijklmno").is_ok());
        for bad in [
            "",
            "abcdefghijklmnop",
            ".",
            "..",
            "a/b",
            "a:1",
            "a b",
            "a\tb",
            "a\0",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }
}

//! The two address families, and what exists at most once in each.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::addr::Cidr;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// In Docker's order: IPv4 first.
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Length of an address in bits.
    pub fn width(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// What belongs to one family by what it is.
pub trait OfFamily {
    fn family(&self) -> Family;
}

impl OfFamily for IpAddr {
    fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4,
            Self::V6(_) => Family::Ipv6,
        }
    }
}

impl OfFamily for Cidr {
    fn family(&self) -> Family {
        self.addr().family()
    }
}

/// At most one of each family; on disk a list. An address can only be put
/// where it belongs, since its slot follows from what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(
    from = "Vec<T>",
    into = "Vec<T>",
    bound(
        serialize = "T: Clone + Serialize",
        deserialize = "T: OfFamily + Deserialize<'de>"
    )
)]
pub struct PerFamily<T> {
    ipv4: Option<T>,
    ipv6: Option<T>,
}

impl<T> PerFamily<T> {
    pub const NONE: Self = Self {
        ipv4: None,
        ipv6: None,
    };

    /// What `value` says of each family.
    pub fn each(mut value: impl FnMut(Family) -> Option<T>) -> Self {
        Self {
            ipv4: value(Family::Ipv4),
            ipv6: value(Family::Ipv6),
        }
    }

    pub fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    pub fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }
}

impl<T: Copy> PerFamily<T> {
    pub fn of(&self, family: Family) -> Option<T> {
        self.get(family).copied()
    }

    pub fn ipv4(&self) -> Option<T> {
        self.ipv4
    }

    pub fn ipv6(&self) -> Option<T> {
        self.ipv6
    }

    /// IPv4 first.
    pub fn values(&self) -> impl Iterator<Item = T> + use<T> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

impl<T: OfFamily> PerFamily<T> {
    /// Puts it into its family's place; what was there comes back.
    pub fn put(&mut self, value: T) -> Option<T> {
        match value.family() {
            Family::Ipv4 => self.ipv4.replace(value),
            Family::Ipv6 => self.ipv6.replace(value),
        }
    }
}

impl<T> PerFamily<T> {
    /// Takes out what there is of a family.
    pub fn take(&mut self, family: Family) -> Option<T> {
        match family {
            Family::Ipv4 => self.ipv4.take(),
            Family::Ipv6 => self.ipv6.take(),
        }
    }
}

impl<T> Default for PerFamily<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T: OfFamily> From<T> for PerFamily<T> {
    fn from(value: T) -> Self {
        Self::from_iter([value])
    }
}

impl<T: OfFamily> FromIterator<T> for PerFamily<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut all = Self::NONE;
        for value in values {
            all.put(value);
        }
        all
    }
}

impl<T: OfFamily> From<Vec<T>> for PerFamily<T> {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T> From<PerFamily<T>> for Vec<T> {
    fn from(all: PerFamily<T>) -> Self {
        all.ipv4.into_iter().chain(all.ipv6).collect()
    }
}

impl<T: fmt::Debug> fmt::Debug for PerFamily<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_where_it_belongs() {
        let text = r#"["fd00::5/64","10.0.2.5/24"]"#;
        let both: PerFamily<Cidr> = serde_json::from_str(text).unwrap();
        assert_eq!(both.ipv4().unwrap().to_string(), "10.0.2.5/24");
        assert_eq!(both.ipv6().unwrap().to_string(), "fd00::5/64");
        let back = serde_json::to_string(&both).unwrap();
        assert_eq!(back, r#"["10.0.2.5/24","fd00::5/64"]"#);
        let mut ips = PerFamily::from(both.ipv6().unwrap().addr());
        assert_eq!(ips.ipv4(), None);
        assert!(ips.put("fd00::6".parse().unwrap()).is_some());
        assert_eq!(ips.values().count(), 1);
        assert!(PerFamily::<IpAddr>::default().is_empty());
    }
}

//! JSON that keeps the order of its keys. Templates work on sorted maps, but
//! `{{json .State}}` must print Docker's order; so the document is kept beside
//! them in this form, and a value to print is looked up in it.
//!
//! A key can be there for templates only: Go's templates see the empty fields
//! that its JSON leaves out.

use std::fmt;
use std::sync::Arc;

use gotmpl::Value;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

#[derive(Clone, Debug, PartialEq)]
pub enum Ordered {
    Scalar(serde_json::Value),
    List(Vec<Ordered>),
    Map(Vec<Entry>),
    /// `null` of a type that templates take for an empty list or dictionary:
    /// known by where its value is in memory.
    Empty(Value),
}

/// Fields that are `null` in the JSON, and lists or dictionaries to Go: nil ones
/// print as empty ones. Others are pointers.
const LISTS: &[&str] = &[
    "Aliases",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Entrypoint",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "VolumesFrom",
];
const DICTIONARIES: &[&str] = &["DriverOpts", "Volumes"];

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub value: Ordered,
    /// Not in the JSON.
    pub hidden: bool,
}

impl Ordered {
    pub fn of<T: Serialize>(value: &T) -> serde_json::Result<Self> {
        serde_json::from_str(&serde_json::to_string(value)?)
    }

    /// The first part of the document that says the same as `value`. Which of
    /// several equal parts is found makes no difference to what is printed,
    /// as parts with the same keys are of the same kind.
    pub fn find(&self, value: &Value) -> Option<&Self> {
        self.find_where(&|part| part.is_that(value))
            .or_else(|| self.find_where(&|part| part.same(value)))
    }

    fn find_where(&self, wanted: &dyn Fn(&Self) -> bool) -> Option<&Self> {
        if wanted(self) {
            return Some(self);
        }
        match self {
            Self::Scalar(_) | Self::Empty(_) => None,
            Self::List(items) => items.iter().find_map(|i| i.find_where(wanted)),
            Self::Map(entries) => entries.iter().find_map(|e| e.value.find_where(wanted)),
        }
    }

    fn is_that(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Empty(Value::List(a)), Value::List(b)) => Arc::ptr_eq(a, b),
            (Self::Empty(Value::Map(a)), Value::Map(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Gives `null` lists and dictionaries their type.
    pub fn type_nulls(&mut self) {
        match self {
            Self::Scalar(_) | Self::Empty(_) => {}
            Self::List(items) => items.iter_mut().for_each(Self::type_nulls),
            Self::Map(entries) => {
                for e in entries {
                    let is_null = e.value == Self::Scalar(serde_json::Value::Null);
                    if is_null && LISTS.contains(&e.key.as_str()) {
                        e.value = Self::Empty(Value::List(Arc::from(Vec::new())));
                    } else if is_null && DICTIONARIES.contains(&e.key.as_str()) {
                        e.value = Self::Empty(Value::Map(Arc::default()));
                    }
                    e.value.type_nulls();
                }
            }
        }
    }

    /// As templates see it, hidden keys included.
    pub fn value(&self) -> Value {
        match self {
            Self::Scalar(scalar) => gotmpl::to_value(scalar).unwrap_or(Value::Nil),
            Self::Empty(value) => value.clone(),
            Self::List(items) => Value::List(items.iter().map(Self::value).collect()),
            Self::Map(entries) => Value::Map(Arc::new(
                entries
                    .iter()
                    .map(|e| (Arc::from(e.key.as_str()), e.value.value()))
                    .collect(),
            )),
        }
    }

    /// Adds keys for templates where the JSON has left them out. `missing`
    /// gives them for an object, by its path from the root (`.IPAM.Config`;
    /// the items of a list have the list's path).
    pub fn fill(&mut self, path: &str, missing: &dyn Fn(&str) -> Vec<(&'static str, Ordered)>) {
        match self {
            Self::Scalar(_) | Self::Empty(_) => {}
            Self::List(items) => items.iter_mut().for_each(|i| i.fill(path, missing)),
            Self::Map(entries) => {
                for e in entries.iter_mut() {
                    e.value.fill(&format!("{path}.{}", e.key), missing);
                }
                for (key, value) in missing(path) {
                    if !entries.iter().any(|e| e.key == key) {
                        entries.push(Entry {
                            key: key.to_owned(),
                            value,
                            hidden: true,
                        });
                    }
                }
            }
        }
    }

    fn same(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same(b))
            }
            (Self::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|e| b.get(e.key.as_str()).is_some_and(|b| e.value.same(b)))
            }
            (Self::Scalar(a), b) => same_scalar(a, b),
            (Self::Empty(_), b) => self.is_that(b),
            _ => false,
        }
    }
}

fn same_scalar(a: &serde_json::Value, b: &Value) -> bool {
    match b {
        Value::Nil => a.is_null(),
        Value::Bool(b) => a.as_bool() == Some(*b),
        Value::Int(b) => a.as_i64() == Some(*b),
        Value::Uint(b) => a.as_u64() == Some(*b),
        Value::Float(b) => a.as_f64() == Some(*b),
        Value::String(b) => a.as_str() == Some(b),
        _ => false,
    }
}

/// A template's value as JSON, keys sorted: for what is not in the document.
pub fn plain(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(b) => Json::from(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::String(s) => Json::from(&**s),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(items) => items
            .iter()
            .map(|(key, item)| (key.to_string(), plain(item)))
            .collect(),
        _ => Json::Null,
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(value) => value.serialize(serializer),
            Self::Empty(_) => serializer.serialize_unit(),
            Self::List(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(None)?;
                for e in entries.iter().filter(|e| !e.hidden) {
                    map.serialize_entry(&e.key, &e.value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(serde_json::Value::Null))
    }
    fn visit_bool<E>(self, v: bool) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(v.into()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(v.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Ordered::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some((key, value)) = map.next_entry()? {
            items.push(Entry {
                key,
                value,
                hidden: false,
            });
        }
        Ok(Ordered::Map(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_keys_are_for_templates() {
        let mut document: Ordered = serde_json::from_str(r#"{"a":[{"b":1}]}"#).unwrap();
        document.fill("", &|path| match path {
            ".a" => vec![("c", Ordered::Scalar("".into()))],
            _ => Vec::new(),
        });
        let whole = document.value();
        let inner = whole.field("a").unwrap().index(&Value::Int(0)).unwrap();
        assert_eq!(inner.field("c"), Some(&Value::String("".into())));
        let found = document.find(&inner).unwrap();
        assert_eq!(serde_json::to_string(found).unwrap(), r#"{"b":1}"#);
    }

    #[test]
    fn order_survives_a_lookup() {
        let text = r#"{"z":{"b":1,"a":[true,null,-1,0.5,"x"]},"y":{}}"#;
        let document: Ordered = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        let whole = document.value();
        let part = whole.field("z").unwrap();
        let found = document.find(part).unwrap();
        assert_eq!(
            serde_json::to_string(found).unwrap(),
            r#"{"b":1,"a":[true,null,-1,0.5,"x"]}"#
        );
        assert!(document.find(&Value::Int(7)).is_none());
        assert_eq!(
            plain(part).to_string(),
            r#"{"a":[true,null,-1,0.5,"x"],"b":1}"#
        );
    }
}

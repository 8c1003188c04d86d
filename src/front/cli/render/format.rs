//! Lists: `ps`, `network ls`. A format is Docker's: `table`, `table TEMPLATE`,
//! `json`, or a template for one line an item.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{FuncMap, Value};

use super::align::align;
use super::safe;
use super::template::{Failed, Parsed, escape_html, header_functions, refused, text, unescape};
use crate::base::Result;

/// What a list shows: its fields with their headings, and what Go would call
/// the type of a row.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub go_type: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    /// Without `--format`.
    pub table: &'static str,
    /// What Docker says before the library's message when a template cannot be
    /// parsed, and when it cannot be carried out.
    pub unparsed: &'static str,
    pub failed: &'static str,
    /// Positions count from the start of the format, `table ` included.
    pub whole: bool,
}

/// One item: the fields of its [`Kind`], and its labels for `.Label "x"`.
#[derive(Clone, Debug, Default)]
pub struct Row {
    fields: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
}

impl Row {
    pub fn new(labels: &BTreeMap<String, String>) -> Self {
        Self {
            fields: BTreeMap::new(),
            labels: labels.clone(),
        }
    }

    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<String>) -> Self {
        self.fields.insert(field, value.into());
        self
    }

    /// For the template; safe for a terminal if `tty`.
    fn value(&self, tty: bool) -> Value {
        let clean = |s: &str| {
            if tty { text(&safe::field(s)) } else { text(s) }
        };
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| (Arc::from(key.as_str()), clean(value)))
            .collect();
        let mut map: BTreeMap<Arc<str>, Value> = self
            .fields
            .iter()
            .map(|(key, value)| (Arc::from(*key), clean(value)))
            .collect();
        // A key that no template can name.
        map.insert(Arc::from("\0labels"), Value::Map(Arc::new(labels)));
        Value::Map(Arc::new(map))
    }

    fn json(&self) -> String {
        let object: serde_json::Map<_, _> = self
            .fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
            .collect();
        escape_html(&serde_json::Value::Object(object).to_string())
    }
}

/// Labels as lists show them: `a=1,b=2`.
pub fn label_list(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

/// All of `rows` as text. An empty `format` is the kind's own table.
pub fn list(kind: &Kind, format: &str, rows: &[Row], tty: bool) -> Result<String> {
    let format = unescape(if format.is_empty() || format == "table" {
        kind.table
    } else {
        format
    });
    if format == "json" {
        return Ok(rows.iter().map(|row| row.json() + "\n").collect());
    }
    let body = format.strip_prefix("table ");
    let source = body.unwrap_or(&format).trim_start();
    // Positions in messages are those in what the user typed.
    let shift = if kind.whole {
        format.len() - source.len()
    } else {
        0
    };
    let functions = row_json();
    let parse = |functions: &FuncMap| {
        Parsed::new(source, functions).map_err(|e| refused(kind.unparsed, &e))
    };
    let template = parse(&functions)?;
    let run = |template: &Parsed, value: &Value| {
        template
            .execute(value, |key| {
                format!("can't evaluate field {key} in type {}", kind.go_type)
            })
            .map_err(|e| match e {
                Failed::Unparsed(text) => refused(kind.unparsed, &text),
                Failed::Failed(text) => refused(kind.failed, &shifted(&text, shift)),
            })
    };
    let mut out = String::new();
    if body.is_some() {
        let header = parse(&header_functions())?;
        let names = kind.headers.iter();
        let map = names.map(|(field, name)| (Arc::from(*field), text(name)));
        out.push_str(&run(&header, &Value::Map(Arc::new(map.collect())))?);
        out.push('\n');
    }
    for row in rows {
        out.push_str(&run(&template, &row.value(tty))?);
        out.push('\n');
    }
    Ok(if body.is_some() { align(&out) } else { out })
}

/// Moves the column of `template: :1:2: …` by what stood before the template.
fn shifted(error: &str, by: usize) -> String {
    let moved = || {
        let rest = error.strip_prefix("template: :1:")?;
        let (column, rest) = rest.split_once(':')?;
        let column: usize = column.parse().ok()?;
        Some(format!("template: :1:{}:{rest}", column + by))
    };
    moved().unwrap_or_else(|| error.to_owned())
}

/// `{{json .}}` of a row must not show the hidden key.
fn row_json() -> FuncMap {
    let mut map = FuncMap::new();
    map.insert(
        "json".to_owned(),
        Arc::new(|args: &[Value]| {
            let mut json = super::ordered::plain(args.first().unwrap_or(&Value::Nil));
            if let Some(object) = json.as_object_mut() {
                object.remove("\0labels");
            }
            Ok(text(&escape_html(&json.to_string())))
        }),
    );
    map
}

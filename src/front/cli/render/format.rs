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

    /// The same where `wanted` is not known, or has the field.
    #[must_use]
    pub fn with_if<S: Into<String>>(
        self,
        wanted: Option<&Wanted>,
        field: &'static str,
        value: impl FnOnce() -> S,
    ) -> Self {
        match wanted {
            Some(wanted) if !wanted.iter().any(|one| one == field) => self,
            _ => self.with(field, value()),
        }
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

    /// What the template would give; `None`: that is for the library to say.
    fn fill(&self, parts: &[Part<'_>], tty: bool) -> Option<String> {
        let mut line = String::new();
        for part in parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(name) if tty => line.push_str(&safe::field(self.fields.get(name)?)),
                Part::Field(name) => line.push_str(self.fields.get(name)?),
            }
        }
        Some(line)
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

/// A piece of a template that has nothing but text and `{{.Field}}`, as almost
/// all have, those of the tables above all: a thousand rows of them need no
/// template engine.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Field(&'a str),
}

/// The fields of a format that has no more than that.
pub type Wanted = Vec<String>;

/// Which of its fields a list shows; `None`: it may be any.
pub fn wanted(kind: &Kind, format: &str) -> Option<Wanted> {
    let format = chosen(kind, format);
    if format == "json" {
        return None;
    }
    let source = format.strip_prefix("table ").unwrap_or(&format);
    let parts = plain(source.trim_start())?;
    let field = |part: &Part<'_>| match part {
        Part::Field(name) => Some((*name).to_owned()),
        Part::Text(_) => None,
    };
    Some(parts.iter().filter_map(field).collect())
}

fn chosen(kind: &Kind, format: &str) -> String {
    unescape(match format {
        "" | "table" => kind.table,
        format => format,
    })
}

fn plain(source: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = source;
    while let Some((text, action)) = rest.split_once("{{") {
        let (action, after) = action.split_once("}}")?;
        let field = action.trim_matches(' ').strip_prefix('.')?;
        if field.is_empty() || !field.chars().all(|c| c.is_ascii_alphanumeric()) {
            return None;
        }
        parts.extend([Part::Text(text), Part::Field(field)]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    Some(parts)
}

/// Labels as lists show them: `a=1,b=2`.
pub fn label_list(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

/// All of `rows` as text. An empty `format` is the kind's own table.
pub fn list(kind: &Kind, format: &str, rows: &[Row], tty: bool) -> Result<String> {
    let format = chosen(kind, format);
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
    let plain = plain(source);
    for row in rows {
        match plain.as_ref().and_then(|parts| row.fill(parts, tty)) {
            Some(line) => out.push_str(&line),
            None => out.push_str(&run(&template, &row.value(tty))?),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_templates_give_what_the_library_gives() {
        let row = Row::new(&BTreeMap::new())
            .with("ID", "a1")
            .with("Names", "we\x1b[2Jb");
        let kind = crate::front::cli::render::containers::KIND;
        for source in [
            "{{.ID}}",
            "x {{ .Names }}\t{{.ID}} }} y",
            "",
            "{{.Names}}{{.Names}}",
        ] {
            for tty in [false, true] {
                let parts = plain(source).unwrap();
                let parsed = Parsed::new(source, &row_json()).unwrap();
                let library = parsed.execute(&row.value(tty), |_| String::new()).unwrap();
                assert_eq!(row.fill(&parts, tty).unwrap(), library, "{source:?}");
            }
        }
        for source in [
            "{{json .}}",
            "{{.ID}",
            "{{- .ID}}",
            "{{.}}",
            "{{.ID.X}}",
            "{{.Label \"x\"}}",
            "{{\"{{\"}}",
            "{{/* {{.ID}} */}}",
        ] {
            assert_eq!(plain(source), None, "{source:?}");
        }
        // What it has not, it does not make up.
        let error = list(&kind, "{{.Foo}}", &[row], false).unwrap_err();
        assert!(error.to_string().contains("Foo"), "{error}");
    }
}

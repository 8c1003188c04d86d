//! Go templates for `--format`, with Docker's functions, on any view.
//!
//! A view is a tree of structs and of dictionaries (labels, options, ports).
//! Go knows which is which: an unknown field of a struct is an error, an
//! unknown key of a dictionary is `<no value>`. The template library sees maps
//! only, so [`DICTIONARIES`] names the fields that hold dictionaries.

use std::sync::Arc;

use gotmpl::{FuncMap, MissingKey, Template, TemplateError, Value};

use super::ordered::{Ordered, plain};
use super::syntax;
use crate::base::{Error, Result};

/// Fields of the views whose keys are the user's.
const DICTIONARIES: &[&str] = &[
    "Labels",
    "Actor.Attributes",
    "Options",
    "Ports",
    "PortBindings",
    "ExposedPorts",
    "Volumes",
    "Networks",
    "DriverOpts",
    "Containers",
    "AuxiliaryAddresses",
    "Subnets",
    "LogConfig.Config",
    "GraphDriver.Data",
    "Dockless.Links",
];

/// What the library prints for nil.
const NO_VALUE: &str = "<no value>";

type Outcome = gotmpl::Result<Value>;

/// Why a parsed template gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It names a function that there is not: Go would not have parsed it.
    Unparsed(String),
    Failed(String),
}

impl Failed {
    pub fn text(&self) -> &str {
        match self {
            Self::Unparsed(text) | Self::Failed(text) => text,
        }
    }
}

impl From<&TemplateError> for Failed {
    fn from(e: &TemplateError) -> Self {
        match e {
            TemplateError::UndefinedFunction(_) => Self::Unparsed(go_text(e)),
            _ => Self::Failed(go_text(e)),
        }
    }
}

/// A parsed template; `source` is what positions in messages refer to.
pub struct Parsed {
    source: String,
    strict: Template,
    /// The same with missing keys allowed.
    lenient: Template,
}

impl std::fmt::Debug for Parsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parsed").field(&self.source).finish()
    }
}

impl Parsed {
    /// `functions` come on top of Docker's. The error is the library's text,
    /// which is Go's: `template: :1:2: unclosed action`.
    pub fn new(source: &str, functions: &FuncMap) -> Result<Self, String> {
        syntax::check(source)?;
        let make = |missing| {
            Template::new("")
                .missing_key(missing)
                .funcs(docker_functions())
                .funcs(functions.clone())
                .parse(&label_calls(source))
                .map_err(|e| go_text(&e))
        };
        Ok(Self {
            source: source.to_owned(),
            strict: make(MissingKey::Error)?,
            lenient: make(MissingKey::Invalid)?,
        })
    }

    /// Fills in `value`. `unknown` says what is wrong with an unknown field,
    /// in the words of the kind of output.
    pub fn execute(
        &self,
        value: &Value,
        unknown: impl Fn(&str) -> String,
    ) -> Result<String, Failed> {
        match self.strict.execute_to_string(value) {
            // No key was missing: what has no value is a nil pointer, which Go
            // prints as one.
            Ok(text) if !self.source.contains(NO_VALUE) => Ok(text.replace(NO_VALUE, "<nil>")),
            Err(TemplateError::MissingKey { key }) => {
                let Some(at) = find_field(&self.source, &key) else {
                    return Err(Failed::Failed(format!("template: :1: {}", unknown(&key))));
                };
                if self.behind_dictionary(at) {
                    let lenient = self.lenient.execute_to_string(value);
                    return lenient.map_err(|e| Failed::from(&e));
                }
                let (line, column) = position(&self.source, at);
                Err(Failed::Failed(format!(
                    "template: :{line}:{column}: executing \"\" at <{}>: {}",
                    self.chain(at, &key),
                    unknown(&key)
                )))
            }
            other => other.map_err(|e| Failed::from(&e)),
        }
    }

    fn behind_dictionary(&self, at: usize) -> bool {
        let before = &self.source[..at];
        DICTIONARIES.iter().any(|name| {
            before
                .strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.'))
        })
    }

    /// The whole expression of which the field at `at` is a part: `.State.Foo`.
    fn chain(&self, at: usize, key: &str) -> &str {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
        let start = self.source[..at]
            .char_indices()
            .rev()
            .take_while(|(_, c)| part(*c))
            .last()
            .map_or(at, |(i, _)| i);
        &self.source[start..at + 1 + key.len()]
    }
}

/// Where `.KEY` stands in the source, as a whole word.
fn find_field(source: &str, key: &str) -> Option<usize> {
    let wanted = format!(".{key}");
    source.match_indices(&wanted).map(|(at, _)| at).find(|at| {
        let rest = &source[at + wanted.len()..];
        !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// Line from 1, column from 0, as Go counts in execution errors.
fn position(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |i| i + 1);
    (line, column)
}

/// Go's wording where the library has its own.
fn go_text(error: &TemplateError) -> String {
    match error {
        TemplateError::UndefinedFunction(name) => {
            format!("template: :1: function \"{name}\" not defined")
        }
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: :{line}: {message}")
        }
        TemplateError::Exec(text) => format!("template: :1: {text}"),
        other => format!("template: :1: {other}"),
    }
}

/// `.Label "x"` is a method call, which the library does not know: it becomes
/// the function call `label $ "x"`.
fn label_calls(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(".Label") {
        let (before, after) = rest.split_at(at);
        let tail = &after[".Label".len()..];
        out.push_str(before);
        let inside = out.rfind("{{") > out.rfind("}}");
        if inside && tail.trim_start().starts_with(['"', '`']) && tail.starts_with([' ', '\t']) {
            out.push_str("label $");
        } else {
            out.push_str(".Label");
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Docker's functions that need nothing but their arguments.
fn docker_functions() -> FuncMap {
    let mut map = FuncMap::new();
    let mut add = |name: &str, f: fn(&[Value]) -> Outcome| {
        map.insert(name.to_owned(), Arc::new(f));
    };
    add("json", |a| Ok(text(&plain(one("json", a)?).to_string())));
    add("split", |a| {
        let [s, sep] = exactly("split", a)?;
        let (s, sep) = (s.to_string(), sep.to_string());
        let parts: Vec<Value> = if sep.is_empty() {
            s.chars().map(|c| text(&c.to_string())).collect()
        } else {
            s.split(&sep).map(text).collect()
        };
        Ok(Value::List(parts.into()))
    });
    add("join", |a| {
        let [list, sep] = exactly("join", a)?;
        let Value::List(items) = list else {
            return Err(TemplateError::Exec(format!(
                "wrong type for value; expected []string; got {}",
                list.type_name()
            )));
        };
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        Ok(text(&items.join(&sep.to_string())))
    });
    add("title", |a| {
        let mut start = true;
        let out: String = string(one("title", a)?)?
            .chars()
            .map(|c| {
                let up = start && c.is_alphabetic();
                start = !c.is_alphanumeric() && c != '_' && c != '\'';
                if up { c.to_ascii_uppercase() } else { c }
            })
            .collect();
        Ok(text(&out))
    });
    add("lower", |a| {
        Ok(text(&string(one("lower", a)?)?.to_lowercase()))
    });
    add("upper", |a| {
        Ok(text(&string(one("upper", a)?)?.to_uppercase()))
    });
    add("pad", |a| {
        let [s, before, after] = exactly("pad", a)?;
        let s = string(s)?;
        if s.is_empty() {
            return Ok(text(""));
        }
        let blanks = |n: &Value| " ".repeat(count(n));
        Ok(text(&format!("{}{s}{}", blanks(before), blanks(after))))
    });
    add("truncate", |a| {
        let [s, n] = exactly("truncate", a)?;
        let short: String = string(s)?.chars().take(count(n)).collect();
        Ok(text(&short))
    });
    add("label", |a| {
        let [row, name] = exactly("label", a)?;
        let labels = row.field("\0labels").cloned().unwrap_or(Value::Nil);
        Ok(match labels.field(&name.to_string()) {
            Some(value) => value.clone(),
            None => text(""),
        })
    });
    add("index", |a| {
        let Some((of, keys)) = a.split_first() else {
            return Err(count_error("index", 1, 0));
        };
        keys.iter().try_fold(of.clone(), |value, key| {
            // A dictionary of strings gives its zero value for what it lacks.
            Ok(match (value.index(key)?, &value) {
                (Value::Nil, Value::Map(map))
                    if !matches!(key, Value::String(k) if map.contains_key(k)) =>
                {
                    text("")
                }
                (found, _) => found,
            })
        })
    });
    map
}

/// `json` that keeps the order of keys of the document it prints a part of.
/// `html` escapes `<`, `>` and `&` as Go's encoder does in list rows.
pub fn json_function(document: Arc<Ordered>, html: bool) -> FuncMap {
    let mut map = FuncMap::new();
    map.insert(
        "json".to_owned(),
        Arc::new(move |args: &[Value]| {
            let value = one("json", args)?;
            let json = match document.find(value) {
                Some(part) => serde_json::to_string(part),
                None => serde_json::to_string(&plain(value)),
            };
            let json = json.map_err(|e| TemplateError::Exec(e.to_string()))?;
            Ok(text(&if html { escape_html(&json) } else { json }))
        }),
    );
    map
}

/// In the header row of a table every function gives its argument back, as
/// Docker's do: `{{upper .Names}}` is headed NAMES.
pub fn header_functions() -> FuncMap {
    let mut map = FuncMap::new();
    for name in [
        "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
    ] {
        map.insert(
            name.to_owned(),
            Arc::new(|args: &[Value]| Ok(args.first().cloned().unwrap_or(Value::Nil))),
        );
    }
    map.insert(
        "label".to_owned(),
        Arc::new(|args: &[Value]| Ok(args.get(1).cloned().unwrap_or(Value::Nil))),
    );
    map
}

/// JSON in which no character means anything in HTML.
pub fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// `\t` and `\n` typed with a backslash, as a shell passes them on.
pub fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

pub fn text(s: &str) -> Value {
    Value::String(s.into())
}

fn string(value: &Value) -> gotmpl::Result<&str> {
    value.as_str().ok_or_else(|| {
        TemplateError::Exec(format!(
            "wrong type for value; expected string; got {}",
            value.type_name()
        ))
    })
}

fn count(value: &Value) -> usize {
    let n = match value {
        Value::Uint(n) => i64::try_from(*n).unwrap_or(i64::MAX),
        other => other.as_int().unwrap_or(0),
    };
    // A template can ask for anything; a terminal has no use for more.
    usize::try_from(n).unwrap_or(0).min(4096)
}

fn one<'a>(name: &str, args: &'a [Value]) -> gotmpl::Result<&'a Value> {
    let [value] = exactly(name, args)?;
    Ok(value)
}

fn exactly<'a, const N: usize>(name: &str, args: &'a [Value]) -> gotmpl::Result<&'a [Value; N]> {
    args.try_into()
        .map_err(|_| count_error(name, N, args.len()))
}

fn count_error(name: &str, want: usize, got: usize) -> TemplateError {
    TemplateError::Exec(format!(
        "wrong number of args for {name}: want {want} got {got}"
    ))
}

/// A template that cannot be used, as an error of the command line.
pub fn refused(prefix: &str, text: &str) -> Error {
    Error::invalid(format!("{prefix}{text}"))
}

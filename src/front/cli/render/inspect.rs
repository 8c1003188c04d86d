//! `inspect` and `network inspect`: JSON arrays, or a template an object.

use std::sync::Arc;

use gotmpl::Value;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::ordered::Ordered;
use super::template::{Failed, Parsed, json_function, refused, unescape};
use crate::base::{Error, Result};

/// Everything as one text. An empty `format` is indented JSON, `json` compact.
pub fn inspect<T: Serialize>(objects: &[T], format: &str) -> Result<String> {
    let broken = |e: serde_json::Error| Error::parse("write", "JSON", e);
    match format {
        "" => {
            let mut out = Vec::new();
            let indent = PrettyFormatter::with_indent(b"    ");
            let mut serializer = Serializer::with_formatter(&mut out, indent);
            objects.serialize(&mut serializer).map_err(broken)?;
            out.push(b'\n');
            Ok(String::from_utf8_lossy(&out).into_owned())
        }
        "json" => Ok(serde_json::to_string(objects).map_err(broken)? + "\n"),
        template => objects
            .iter()
            .map(|object| one(object, template, "template parsing error: "))
            .collect(),
    }
}

/// Refuses a template that cannot be read, whatever it would be filled with.
pub fn check(format: &str) -> Result<()> {
    if matches!(format, "" | "json") {
        return Ok(());
    }
    let refused = |text: &str| refused("template parsing error: ", text);
    let functions = json_function(Arc::new(Ordered::Map(Vec::new())), false);
    let parsed = Parsed::new(&unescape(format), &functions).map_err(|e| refused(&e))?;
    match parsed.execute(&Value::Nil, str::to_owned) {
        Err(Failed::Unparsed(text)) => Err(refused(&text)),
        _ => Ok(()),
    }
}

/// One object through a template, with the newline that ends it.
pub fn one<T: Serialize>(object: &T, template: &str, prefix: &str) -> Result<String> {
    let mut document = Ordered::of(object).map_err(|e| Error::parse("write", "JSON", e))?;
    document.fill("", &left_out);
    document.type_nulls();
    let value = document.value();
    let functions = json_function(Arc::new(document), false);
    let parsed = Parsed::new(&unescape(template), &functions).map_err(|e| refused(prefix, &e))?;
    let out = parsed
        .execute(&value, |key| format!("map has no entry for key \"{key}\""))
        .map_err(|e| refused(prefix, e.text()))?;
    Ok(out + "\n")
}

/// What the views leave out of the JSON when it is empty.
fn left_out(path: &str) -> Vec<(&'static str, Ordered)> {
    let text = || Ordered::Scalar("".into());
    let null = || Ordered::Scalar(serde_json::Value::Null);
    let off = || Ordered::Scalar(false.into());
    let dictionary = || Ordered::Map(Vec::new());
    let list = || Ordered::List(Vec::new());
    match path {
        "" => vec![
            ("GraphDriver", null()),
            ("ImageManifestDescriptor", null()),
            ("SizeRw", null()),
            ("SizeRootFs", null()),
            ("Status", null()),
        ],
        ".State" => vec![("Health", null())],
        ".Config" => vec![
            ("ArgsEscaped", off()),
            ("ExposedPorts", dictionary()),
            ("Healthcheck", null()),
            ("NetworkDisabled", off()),
            ("OnBuild", list()),
            ("Shell", list()),
            ("StopSignal", text()),
            ("StopTimeout", null()),
        ],
        ".HostConfig" => vec![
            ("Annotations", dictionary()),
            ("Init", null()),
            ("Mounts", list()),
            ("StorageOpt", dictionary()),
            ("Sysctls", dictionary()),
            ("Tmpfs", dictionary()),
        ],
        ".Mounts" => vec![("Type", text()), ("Name", text()), ("Driver", text())],
        ".IPAM.Config" => vec![
            ("Subnet", text()),
            ("IPRange", text()),
            ("Gateway", text()),
            ("AuxiliaryAddresses", dictionary()),
        ],
        path if path.starts_with(".NetworkSettings.Networks.") && path.ends_with(".IPAMConfig") => {
            vec![
                ("IPv4Address", text()),
                ("IPv6Address", text()),
                ("LinkLocalIPs", list()),
            ]
        }
        _ => Vec::new(),
    }
}

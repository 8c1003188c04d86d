//! `run`: flags to a [`RunRequest`].

use std::path::Path;

use super::{World, conflict, env, given, hosts, keys, network, not_yet, pairs, ports};
use crate::base::{Error, Result};
use crate::engine::{Acd, ImageRequest, Rule, RunRequest, Via};
use crate::front::cli::args::run::Run;

pub fn run(a: &Run, world: &dyn World) -> Result<RunRequest> {
    unsupported_values(a)?;
    if let Some(path) = &a.cidfile {
        check_cidfile(path, world)?;
    }
    let (image, cmd) = image(a);
    let mut publish = Vec::new();
    for spec in &a.publish {
        publish.extend(ports::publish(spec)?);
    }
    let mut expose = Vec::new();
    for spec in &a.expose {
        expose.extend(ports::expose(spec)?);
    }
    let labels = env::labels(&a.label_file, &a.label, world)?;
    Ok(RunRequest {
        image,
        cmd,
        entrypoint: a.entrypoint.clone(),
        name: given(a.name.as_ref()).map(str::to_owned),
        hostname: given(a.hostname.as_ref()).map(str::to_owned),
        networks: network::endpoints(a)?,
        publish,
        publish_via: via(a.publish_via.as_deref())?,
        expose,
        env: env::variables(&a.env_file, &a.env, world)?,
        workdir: workdir(a.workdir.as_ref())?,
        user: given(a.user.as_ref()).map(str::to_owned),
        labels: pairs(&labels),
        interactive: a.interactive,
        tty: a.tty,
        init: a.init,
        auto_remove: a.rm,
        detach: a.detach,
        stop_signal: given(a.stop_signal.as_ref()).map(str::to_owned),
        stop_timeout: a.stop_timeout,
        // Whoever has to take it back may be in another folder.
        cidfile: a
            .cidfile
            .as_deref()
            .and_then(|path| std::path::absolute(path).ok()),
        sig_proxy: a.sig_proxy.unwrap_or(true),
        detach_keys: keys::detach(a.detach_keys.as_deref())?,
        log_options: log_options(&a.log_opt)?,
        dns: each(&a.dns, hosts::server)?,
        dns_search: each(&a.dns_search, hosts::search)?,
        dns_options: each(&a.dns_option, hosts::option)?,
        extra_hosts: each(&a.add_host, hosts::extra_host)?,
        rules: a
            .rules
            .0
            .iter()
            .map(|(verdict, text)| Rule::new(*verdict, text))
            .collect::<Result<_>>()?,
        acd: a.acd.as_deref().map(acd).transpose()?,
        ip_reserve: reserve(a.ip_reserve.as_deref())?,
        mdns: a.mdns,
        replace: a.replace,
    })
}

fn each<T>(list: &[String], parse: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    list.iter().map(|text| parse(text)).collect()
}

/// With `--rootfs DIR` every argument belongs to the command.
fn image(a: &Run) -> (ImageRequest, Vec<String>) {
    match &a.rootfs {
        Some(dir) => (ImageRequest::Folder(dir.clone()), a.rest.clone()),
        None => {
            let (first, rest) = a.rest.split_first().map_or(("", &[][..]), |(f, r)| (f, r));
            (ImageRequest::Name(first.to_owned()), rest.to_vec())
        }
    }
}

/// Flags of which dockless has only Docker's default so far.
fn unsupported_values(a: &Run) -> Result<()> {
    match given(a.restart.as_ref()) {
        None | Some("no") => {}
        Some(_) if a.rm => {
            return Err(conflict("cannot specify both --restart and --rm"));
        }
        Some(other) => return Err(not_yet(&format!("--restart {other}"))),
    }
    match given(a.log_driver.as_ref()) {
        None | Some("json-file") => {}
        Some(other) => return Err(not_yet(&format!("--log-driver {other}"))),
    }
    match a.pull.as_deref() {
        None | Some("always" | "missing" | "never") => {}
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    }
    match a.disable_content_trust {
        None | Some(true) => Ok(()),
        Some(false) => Err(not_yet("--disable-content-trust=false")),
    }
}

fn via(text: Option<&str>) -> Result<Via> {
    match text {
        None | Some("auto") => Ok(Via::Auto),
        Some("proxy") => Ok(Via::Proxy),
        Some(other) => Err(Error::invalid(format!(
            "invalid value for \"publish-via\": '{other}': must be \"auto\" or \"proxy\""
        ))),
    }
}

fn reserve(text: Option<&str>) -> Result<bool> {
    match text {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Error::invalid(format!(
            "invalid value for \"ip-reserve\": '{other}': must be \"on\" or \"off\""
        ))),
    }
}

fn acd(text: &str) -> Result<Acd> {
    match text {
        "fast" => Ok(Acd::Fast),
        "strict" => Ok(Acd::Strict),
        "off" => Ok(Acd::Off),
        other => Err(Error::invalid(format!(
            "invalid value for \"acd\": '{other}': must be \"fast\", \"strict\" or \"off\""
        ))),
    }
}

fn check_cidfile(path: &Path, world: &dyn World) -> Result<()> {
    if world.exists(path) {
        return Err(Error::invalid(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )));
    }
    Ok(())
}

pub(super) fn workdir(text: Option<&String>) -> Result<Option<String>> {
    match given(text) {
        Some(dir) if !dir.starts_with('/') => Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        ))),
        dir => Ok(dir.map(str::to_owned)),
    }
}

/// Those of json-file that change what is kept.
fn log_options(list: &[String]) -> Result<std::collections::BTreeMap<String, String>> {
    let options = pairs(list);
    match options
        .keys()
        .find(|k| !matches!(k.as_str(), "max-size" | "max-file"))
    {
        Some(other) => Err(Error::invalid(format!(
            "unknown log opt '{other}' for json-file log driver"
        ))),
        None => Ok(options),
    }
}

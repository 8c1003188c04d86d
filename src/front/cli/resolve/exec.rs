//! `exec` and `logs`.

use std::time::SystemTime;

use super::{World, env, given, keys, time};
use crate::base::Result;
use crate::engine::{ExecRequest, LogsRequest};
use crate::front::cli::args::container as args;

pub fn exec(a: &args::Exec, world: &dyn World) -> Result<ExecRequest> {
    Ok(ExecRequest {
        argv: a.rest.get(1..).unwrap_or_default().to_vec(),
        env: env::variables(&a.env_file, &a.env, world)?,
        workdir: super::run::workdir(a.workdir.as_ref())?,
        user: given(a.user.as_ref()).map(str::to_owned),
        interactive: a.interactive,
        tty: a.tty,
        detach: a.detach,
        detach_keys: keys::detach(a.detach_keys.as_deref())?,
    })
}

pub fn logs(a: &args::Logs, now: SystemTime) -> Result<LogsRequest> {
    let at = |option: &str, text: &Option<String>| {
        given(text.as_ref())
            .map(|t| time::moment(option, t, now))
            .transpose()
    };
    Ok(LogsRequest {
        follow: a.follow,
        // What is no count, and a negative one, means all, as in Docker.
        tail: a.tail.as_deref().and_then(|n| n.parse().ok()),
        since: at("since", &a.since)?,
        until: at("until", &a.until)?,
        timestamps: a.timestamps,
    })
}

//! Commands on containers that exist.

use std::path::PathBuf;

use clap::Parser;

use super::values;

pub(super) const FORMAT_LIST: &str = "Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

pub(super) const FORMAT_ONE: &str = "Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// `ps`
#[derive(Debug, Parser)]
pub struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = values::filter)]
    pub filter: Vec<(String, String)>,
    #[arg(long, value_name = "string", help = FORMAT_LIST)]
    pub format: Option<String>,
    /// Show n last created containers (includes all states) (default -1)
    #[arg(short = 'n', long, value_name = "int", value_parser = values::int)]
    pub last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    pub latest: bool,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    pub size: bool,
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `stats`
#[derive(Debug, Parser)]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    #[arg(long, value_name = "string", help = FORMAT_LIST)]
    pub format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    pub no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `inspect`
#[derive(Debug, Parser)]
pub struct Inspect {
    #[arg(short, long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    pub size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "string")]
    pub kind: Option<String>,
    #[arg(value_name = "NAME|ID")]
    pub names: Vec<String>,
}

/// `container inspect`
#[derive(Debug, Parser)]
pub struct InspectContainer {
    #[arg(short, long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    pub size: bool,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `logs`
#[derive(Debug, Parser)]
pub struct Logs {
    /// Follow log output
    #[arg(short, long)]
    pub follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(short = 'n', long, value_name = "string")]
    pub tail: Option<String>,
    /// Show timestamps
    #[arg(short, long)]
    pub timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `exec`
#[derive(Debug, Parser)]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = values::env)]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "string")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    pub workdir: Option<String>,
    // The container and the command: flags end at the first of them.
    #[arg(value_name = "CONTAINER", trailing_var_arg = true)]
    pub rest: Vec<String>,
}

/// `stop` and `restart`
#[derive(Debug, Parser)]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    pub signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, value_name = "int", value_parser = values::int)]
    pub timeout: Option<i64>,
    /// What --timeout was called
    #[arg(long, hide = true, value_name = "int", value_parser = values::int)]
    pub time: Option<i64>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `kill`
#[derive(Debug, Parser)]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    pub signal: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `start`
#[derive(Debug, Parser)]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    pub attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short, long)]
    pub interactive: bool,
    /// Wait so many seconds (60 if none are given) for a parent interface that
    /// is not there yet
    #[arg(long, value_name = "seconds", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    pub parent_wait: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `attach`
#[derive(Debug, Parser)]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    pub no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::switch)]
    pub sig_proxy: Option<bool>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `rm`
#[derive(Debug, Parser)]
pub struct Rm {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    pub volumes: bool,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// Commands without flags: `wait`, `pause`, `unpause`, `rename`, `port`.
#[derive(Debug, Parser)]
pub struct Names {
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

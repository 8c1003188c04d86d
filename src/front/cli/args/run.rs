//! `run`

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser};

use super::values;
use crate::engine::Verdict;

// Help texts are Docker's; the order is the alphabet's, as in Docker's help.
#[derive(Debug, Parser)]
pub struct Run {
    /// Ask the LAN whether an IPv4 address is free: "fast" while the container
    /// starts (default), "strict" for the 4 to 7 s of RFC 5227 before, or "off"
    #[arg(long, value_name = "string")]
    pub acd: Option<String>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "list")]
    pub add_host: Vec<String>,
    #[command(flatten)]
    pub rules: Rules,
    /// Write the container ID to the file
    #[arg(long, value_name = "string")]
    pub cidfile: Option<PathBuf>,
    /// Run container in background and print container ID
    #[arg(short, long)]
    pub detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Skip image verification
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::switch)]
    pub disable_content_trust: Option<bool>,
    /// Set custom DNS servers
    #[arg(long, value_name = "list")]
    pub dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt", value_name = "list")]
    pub dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list")]
    pub dns_search: Vec<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "string")]
    pub entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = values::env)]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub env_file: Vec<PathBuf>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "list")]
    pub expose: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "string")]
    pub hostname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "string")]
    pub ip: Option<String>,
    /// IPv6 address (e.g., 2001:db8::33), or "slaac" (by the LAN's routers), "dhcp"
    /// (by its DHCPv6 server) or "off"
    #[arg(long, value_name = "string")]
    pub ip6: Option<String>,
    /// Keep the addresses for the container while it does not run: "on"
    /// (default) or "off"
    #[arg(long, value_name = "string")]
    pub ip_reserve: Option<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long, value_name = "list")]
    pub link_local_ip: Vec<String>,
    /// Set meta data on a container
    #[arg(short, long, value_name = "list", value_parser = values::label)]
    pub label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    pub label_file: Vec<PathBuf>,
    /// Logging driver for the container (json-file)
    #[arg(long, value_name = "string")]
    pub log_driver: Option<String>,
    /// Log driver options (max-size, max-file)
    #[arg(long, value_name = "list")]
    pub log_opt: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "string")]
    pub mac_address: Option<String>,
    /// Tell the LAN the container's name, NAME.local (multicast DNS)
    #[arg(long)]
    pub mdns: bool,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Limit the first network's link (up=20mbit,down=100mbit)
    #[arg(long, value_name = "list")]
    pub net_rate: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net", value_name = "network")]
    pub network: Vec<String>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias", value_name = "list")]
    pub network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Wait so many seconds (60 if none are given) for a parent interface that
    /// is not there yet
    #[arg(long, value_name = "seconds", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    pub parent_wait: Option<String>,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "list")]
    pub publish: Vec<String>,
    /// How published ports are served: "auto" rewrites in the parent's hooks
    /// and proxies for the rest, "proxy" proxies for all
    #[arg(long, value_name = "string")]
    pub publish_via: Option<String>,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, value_name = "string")]
    pub pull: Option<String>,
    /// Suppress the pull output
    #[arg(short, long)]
    pub quiet: bool,
    /// Take the place of the container with this --name, and its addresses
    #[arg(long, requires = "name")]
    pub replace: bool,
    /// Restart policy to apply when a container exits (only "no" so far)
    #[arg(long, value_name = "string")]
    pub restart: Option<String>,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub rm: bool,
    /// Run this directory, read-only, in place of an image
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Proxy received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::switch)]
    pub sig_proxy: Option<bool>,
    /// Signal to stop the container
    #[arg(long, value_name = "string")]
    pub stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "int", value_parser = values::int)]
    pub stop_timeout: Option<i64>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, value_name = "string")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    pub workdir: Option<String>,
    // The image and what to run in it: flags end at the first of them.
    #[arg(value_name = "IMAGE", trailing_var_arg = true)]
    pub rest: Vec<String>,
}

/// `--allow` and `--deny` in the order in which they were typed, which clap
/// keeps for each flag alone.
#[derive(Debug, Default)]
pub struct Rules(pub Vec<(Verdict, String)>);

const FLAGS: [(&str, Verdict, &str); 2] = [
    (
        "allow",
        Verdict::Allow,
        "Allow connections ([in:|out:]all, ADDRESS, SUBNET, PORT[/PROTO], icmp, ADDRESS:PORT); the first rule that fits decides",
    ),
    (
        "deny",
        Verdict::Deny,
        "Deny connections (as --allow); after a last --allow the rest is denied",
    ),
];

impl Args for Rules {
    fn augment_args(command: Command) -> Command {
        let flag = |(name, _, help)| {
            let arg = Arg::new(name).long(name).action(ArgAction::Append);
            arg.value_name("list").help(help)
        };
        command.args(FLAGS.map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all: Vec<(usize, Verdict, String)> = Vec::new();
        for (name, verdict, _) in FLAGS {
            let texts = matches.get_many::<String>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            all.extend(
                places
                    .zip(texts)
                    .map(|(at, text)| (at, verdict, text.clone())),
            );
        }
        all.sort_by_key(|(at, ..)| *at);
        Ok(Self(
            all.into_iter().map(|(_, v, text)| (v, text)).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

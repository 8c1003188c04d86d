//! `network …`

use clap::Parser;

use super::container::{FORMAT_LIST, FORMAT_ONE};
use super::values;

/// `network create`
#[derive(Debug, Parser)]
pub struct Create {
    /// Enable manual container attachment
    #[arg(long)]
    pub attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])
    #[arg(long, value_name = "map")]
    pub aux_address: Vec<String>,
    /// Driver to manage the Network
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    pub driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub gateway: Vec<String>,
    /// Let the host and the network's containers talk to each other; with an
    /// address, the host-side link gets it as its own
    #[arg(long, value_name = "IP", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub host_access: Option<String>,
    /// Restrict external access to the network
    #[arg(long)]
    pub internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub ip_range: Vec<String>,
    /// IP Address Management Driver: "default", or "dhcp" for the LAN's server
    #[arg(long, value_name = "string", default_value = "default")]
    pub ipam_driver: String,
    /// Set IPAM driver specific options (default map[])
    #[arg(long, value_name = "map")]
    pub ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::switch)]
    pub ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::switch)]
    pub ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "list", value_parser = values::label)]
    pub label: Vec<String>,
    /// Set driver specific options (default map[])
    #[arg(short, long, value_name = "map")]
    pub opt: Vec<String>,
    /// Static route of each of its containers, through a machine on the network
    #[arg(long, value_name = "DEST,GATEWAY[,METRIC]")]
    pub route: Vec<String>,
    /// Control the network's scope (only "local")
    #[arg(long, value_name = "string")]
    pub scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub subnet: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `network ls`
#[derive(Debug, Parser)]
pub struct Ls {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "filter", value_parser = values::filter)]
    pub filter: Vec<(String, String)>,
    #[arg(long, value_name = "string", help = FORMAT_LIST)]
    pub format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `network inspect`
#[derive(Debug, Parser)]
pub struct Inspect {
    #[arg(short, long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    /// Verbose output for diagnostics (a local network has none)
    #[arg(short, long)]
    pub verbose: bool,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `network rm`
#[derive(Debug, Parser)]
pub struct Rm {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `network prune`
#[derive(Debug, Parser)]
pub struct Prune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = values::filter)]
    pub filter: Vec<(String, String)>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `network connect`
#[derive(Debug, Parser)]
pub struct Connect {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub alias: Vec<String>,
    /// driver options for the network
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values
    #[arg(long, value_name = "int", value_parser = values::int)]
    pub gw_priority: Option<i64>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "string")]
    pub ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33"), or "slaac" (by the LAN's routers), "dhcp"
    /// (by its DHCPv6 server) or "off"
    #[arg(long, value_name = "string")]
    pub ip6: Option<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub link_local_ip: Vec<String>,
    /// Wait so many seconds (60 if none are given) for a parent interface that
    /// is not there yet
    #[arg(long, value_name = "seconds", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    pub parent_wait: Option<String>,
    /// Limit the link (up=20mbit,down=100mbit)
    #[arg(long, value_name = "list")]
    pub net_rate: Option<String>,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `network disconnect`
#[derive(Debug, Parser)]
pub struct Disconnect {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `network set`
#[derive(Debug, Parser)]
pub struct Set {
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `network explain`
#[derive(Debug, Parser)]
pub struct Explain {
    #[arg(short, long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    /// Ask for packets from this address, instead of the one the kernel chooses
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `network host-access`
#[derive(Debug, Parser)]
pub struct HostAccess {
    /// Address of its own for the host-side link
    #[arg(long, value_name = "string")]
    pub ip: Option<String>,
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,
}

//! `network ls`: one row a network.

use super::containers::id;
use super::durations::stamp;
use super::format::{Kind, Row, label_list};
use crate::engine::view::Network;

pub const KIND: Kind = Kind {
    go_type: "*network.networkContext",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    unparsed: "template parsing error: ",
    failed: "template parsing error: ",
    whole: false,
};

pub fn row(n: &Network, no_trunc: bool) -> Row {
    Row::new(&n.labels)
        .with("ID", id(&n.id, no_trunc))
        .with("Name", n.name.clone())
        .with("Driver", n.driver.clone())
        .with("Scope", n.scope.clone())
        .with("IPv4", n.enable_ipv4.to_string())
        .with("IPv6", n.enable_ipv6.to_string())
        .with("Internal", n.internal.to_string())
        .with("Labels", label_list(&n.labels))
        .with("CreatedAt", stamp(&n.created, true))
}

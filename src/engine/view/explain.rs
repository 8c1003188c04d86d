//! `network explain`; Docker has nothing like it.

use serde::Serialize;

/// Which way a container's packets go, and why. All routes as ip(8) writes
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Explanation {
    pub container: String,
    /// What is, read from the kernel; else what the next start would make.
    pub running: bool,
    /// IPv4, IPv6
    pub defaults: Vec<DefaultRoute>,
    /// In the order of its interfaces.
    pub networks: Vec<NetworkRouting>,
    /// The main table.
    pub main: Vec<String>,
    /// Rules that are neither the kernel's nor dockless's.
    pub other_rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DefaultRoute {
    /// `IPv4`, `IPv6`
    pub family: String,
    /// Empty: there is none.
    pub network: String,
    pub interface: String,
    /// Empty on an ipvlan in l3: its host routes.
    pub gateway: String,
    pub why: String,
    /// `not lan: it is internal`
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkRouting {
    pub network: String,
    pub interface: String,
    /// With prefix lengths; of a stopped container a subnet where the address
    /// is chosen at the start.
    pub addresses: Vec<String>,
    /// `1000: from 10.0.2.5 lookup 1002`
    pub rules: Vec<String>,
    /// Its own table's routes.
    pub table: Vec<String>,
    /// The network's `--route`s, and what has become of each.
    pub static_routes: Vec<String>,
    /// In plain words, where there is more to say.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Goes {
    Out,
    Inside,
    Everybody,
    #[default]
    Nowhere,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    pub to: String,
    /// `out`; `inside`: one of its own; `everybody` on the link; `nowhere`.
    pub goes: Goes,
    /// Chosen by the kernel, unless it was asked for.
    pub from: String,
    /// Empty: there is no way.
    pub network: String,
    pub interface: String,
    /// Empty: on the link.
    pub gateway: String,
    /// The table's entry that matched.
    pub route: String,
    /// 254 is main.
    pub table: u32,
    pub why: String,
}

//! One element of `network inspect`'s array.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A network, as `docker network inspect` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    pub name: String,
    pub id: String,
    pub created: String,
    /// `local`
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigFrom,
    pub config_only: bool,
    /// Exactly the `-o` pairs given: defaults are not added.
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Running containers, by id.
    pub containers: BTreeMap<String, NetworkMember>,
    /// Left out for `none` and `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<NetworkStatus>,
    pub dockless: NetworkExtra,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            name: String::new(),
            id: String::new(),
            created: String::new(),
            scope: "local".into(),
            driver: String::new(),
            enable_ipv4: true,
            enable_ipv6: false,
            ipam: Ipam::default(),
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            containers: BTreeMap::new(),
            status: None,
            dockless: NetworkExtra::default(),
        }
    }
}

impl Network {
    /// `none` and `host`, which are always there and cannot be removed.
    pub fn is_predefined(&self) -> bool {
        matches!(self.driver.as_str(), "null" | "host")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    pub driver: String,
    /// `null` for `none` and `host`.
    pub options: Option<BTreeMap<String, String>>,
    /// IPv4 before IPv6; `null` for `none` and `host`.
    pub config: Option<Vec<Pool>>,
}

impl Default for Ipam {
    fn default() -> Self {
        Self {
            driver: "default".into(),
            options: Some(BTreeMap::new()),
            config: Some(Vec::new()),
        }
    }
}

/// One subnet; what was not given is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pool {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    pub network: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkMember {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    /// With prefix length: `10.0.2.5/24`.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkStatus {
    #[serde(rename = "IPAM")]
    pub ipam: IpamStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamStatus {
    /// By subnet.
    pub subnets: BTreeMap<String, SubnetStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetStatus {
    /// Network, broadcast, gateway and auxiliary addresses count too.
    #[serde(rename = "IPsInUse")]
    pub ips_in_use: u64,
    /// Still free inside the ip-range.
    #[serde(rename = "DynamicIPsAvailable")]
    pub dynamic_ips_available: u64,
}

/// What Docker has no key for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkExtra {
    /// Only of one network that is asked for by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    pub host_access: HostAccessView,
    /// `--route`: `10.9.0.0/16 via 10.0.2.77 metric 50`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
}

/// What `-o parent` comes to now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ParentView {
    /// As it was written; empty: none was.
    pub written: String,
    /// The link that the next container would stand on; empty: there is none.
    pub interface: String,
    /// `up`, `no carrier`, `missing`, or why it cannot be told
    pub state: String,
}

/// `network host-access`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostAccessView {
    pub enabled: bool,
    /// The host-side link, and its own address where it has one.
    pub interface: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
}

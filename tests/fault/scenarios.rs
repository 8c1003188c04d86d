//! The commands under test, and what must be there before each.

use crate::harness::Verdict;
use crate::world::World;

/// A command and its world.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Makes what the command needs.
    pub(crate) before: fn(&mut World) -> Verdict,
    pub(crate) argv: &'static [&'static str],
    /// The container whose supervisor takes part.
    pub(crate) supervisor: Option<&'static str>,
    /// The exit code when it fails.
    pub(crate) code: i32,
    /// A failure leaves nothing of what it has begun, at once.
    pub(crate) makes: bool,
    /// Takes the same names, addresses, ports and MACs as before.
    pub(crate) again: &'static [&'static str],
    /// Takes away what is in the way of that, if it is still there.
    pub(crate) away: &'static [&'static str],
}

/// `network create` on the host's `eth1`.
macro_rules! network {
    ($name:literal, $subnet:literal $(, $more:literal)*) => {
        &[
            "network", "create", "-d", "macvlan", concat!("--subnet=", $subnet),
            "-o", "parent=eth1", $($more,)* $name,
        ]
    };
}

/// `run` of a container that takes a name, an address, a MAC and a port.
macro_rules! run {
    ($how:literal $(, $argument:literal)*) => {
        &[
            "run", $how, "--name", "c1", "--network", "n1", "--ip", "10.0.2.9",
            "--mac-address", "02:42:0a:00:02:09", "-p", "8080:80", "--cidfile", CIDFILE,
            "tester", $($argument,)*
        ]
    };
}

pub(crate) const CIDFILE: &str = "/run/tmp/cid";
const N1: &[&str] = network!("n1", "10.0.2.0/24");
const N1_WITH_HOST: &[&str] = network!("n1", "10.0.2.0/24", "--host-access");
const N2_WITH_HOST: &[&str] = network!("n2", "10.0.3.0/24", "--host-access");
const RUN: &[&str] = run!("-d");
const CONNECT: &[&str] = &["network", "connect", "--ip", "10.0.3.9", "n2", "c1"];

const NEW: Scenario = Scenario {
    name: "",
    before: |_| Ok(()),
    argv: &[],
    supervisor: None,
    code: 1,
    makes: false,
    again: RUN,
    away: &["rm", "-f", "c1"],
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "network_create",
        argv: N1_WITH_HOST,
        makes: true,
        again: N1_WITH_HOST,
        away: &["network", "rm", "n1"],
        ..NEW
    },
    Scenario {
        name: "network_rm",
        before: network_with_host,
        argv: &["network", "rm", "n1"],
        again: N1_WITH_HOST,
        away: &["network", "rm", "n1"],
        ..NEW
    },
    Scenario {
        name: "host_access",
        before: |world| {
            network(world)?;
            world.ok(RUN).map(drop)
        },
        argv: &["network", "host-access", "n1", "on"],
        again: &["network", "host-access", "n1", "on"],
        away: &["network", "host-access", "n1", "off"],
        ..NEW
    },
    Scenario {
        name: "run",
        before: network,
        argv: RUN,
        code: 125,
        makes: true,
        ..NEW
    },
    Scenario {
        name: "run_with_host_access",
        before: network_with_host,
        argv: RUN,
        code: 125,
        makes: true,
        ..NEW
    },
    Scenario {
        name: "run_to_its_end",
        before: network,
        argv: run!("--rm", "ip", "link"),
        code: 125,
        makes: true,
        ..NEW
    },
    Scenario {
        name: "start",
        before: |world| {
            network(world)?;
            world.ok(RUN)?;
            world.ok(&["stop", "c1"]).map(drop)
        },
        argv: &["start", "c1"],
        ..NEW
    },
    Scenario {
        name: "connect",
        before: two_networks,
        argv: CONNECT,
        supervisor: Some("c1"),
        makes: true,
        ..NEW
    },
    Scenario {
        name: "disconnect",
        before: |world| {
            two_networks(world)?;
            world.ok(CONNECT).map(drop)
        },
        argv: &["network", "disconnect", "n2", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "network_set",
        before: running,
        argv: &[
            "network",
            "set",
            "c1",
            "n1",
            "ip=10.0.2.19",
            "rate-up=20mbit",
            "rate-down=20mbit",
        ],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "stop",
        before: running,
        argv: &["stop", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "restart",
        before: running,
        argv: &["restart", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "rename",
        before: running,
        argv: &["rename", "c1", "c2"],
        supervisor: Some("c1"),
        again: &["rename", "c1", "c3"],
        away: &["rename", "c2", "c1"],
        ..NEW
    },
    Scenario {
        name: "rm_force",
        before: running,
        argv: &["rm", "-f", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
];

fn network(world: &mut World) -> Verdict {
    world.ok(N1).map(drop)
}

fn network_with_host(world: &mut World) -> Verdict {
    world.ok(N1_WITH_HOST).map(drop)
}

fn running(world: &mut World) -> Verdict {
    network_with_host(world)?;
    world.ok(RUN).map(drop)
}

fn two_networks(world: &mut World) -> Verdict {
    running(world)?;
    world.ok(N2_WITH_HOST).map(drop)
}

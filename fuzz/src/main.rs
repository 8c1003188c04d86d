//! The fuzz targets (`docs/fuzzing.md`) in one program: `FUZZ_TARGET` says which.
//!
//! The layers are compiled as parts of it, not linked as the library `dockless`:
//! of a program only what its entry reaches becomes machine code, of a library all
//! that is public. That is most of the build's time, and of the counters that
//! libFuzzer looks through after each execution.
#![no_main]
#![allow(dead_code, unused_imports, reason = "what no target reaches")]

use std::sync::OnceLock;

#[path = "../../src/base/mod.rs"]
mod base;
#[path = "../../src/container/mod.rs"]
mod container;
#[path = "../../src/engine/mod.rs"]
mod engine;
#[path = "../../src/image/mod.rs"]
mod image;
#[path = "../../src/net/mod.rs"]
mod net;
#[path = "../../src/netlink/mod.rs"]
mod netlink;
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/sys/mod.rs"]
mod sys;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("arp", net::fuzzing::arp),
    ("dhcp4", net::dhcp::fuzzing::dhcp4),
    ("dhcp6", net::dhcp6::fuzzing::dhcp6),
    ("dns_query", net::dns::fuzzing::query),
    ("dns_stream", net::dns::fuzzing::stream),
    ("dns_upstream", net::dns::fuzzing::upstream),
    ("mdns", net::mdns::fuzzing::mdns),
    ("nd", net::fuzzing::nd),
    ("netlink", netlink::fuzzing::netlink),
    ("netlink_exchange", netlink::fuzzing::exchange),
    ("state", engine::fuzzing::state),
];

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(target, _)| *target == name) {
        Some((_, run)) => *run,
        None => {
            eprintln!("FUZZ_TARGET is {name:?}, which is no target: scripts/fuzz --list");
            std::process::exit(2);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));

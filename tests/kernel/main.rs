//! Kernel tests: our netlink, namespaces, mounts and processes on the running
//! kernel, judged by `ip -j`, `nft -j` and /proc, never by our own reader
//! alone.
//!
//! # Theory of operation
//! Every test runs in a process of its own, inside namespaces of its own, so
//! tests run side by side, touch nothing of the machine, and a test may kill,
//! `setns` or leak what it likes. This program re-executes itself three deep
//! (`harness.rs`):
//!
//! 1. *enter*: unshares mount, pid, net, uts, ipc and, when not root, user
//!    namespaces (uid and gid 0 mapped to the caller's);
//! 2. *init*: pid 1 there; own /proc and /run (so `/run/dockless` is private),
//!    watches the time limit, reaps, and afterwards looks for what the test
//!    left behind (processes, mounts);
//! 3. *test*: the function itself, whose network namespace is empty until it
//!    makes itself the host of a LAN with `Lab::here`.
//!
//! A test passes, fails, or is *skipped with a reason*. Skips are printed and
//! counted; `DOCKLESS_REQUIRE` names the tests for which a skip is a failure:
//! a comma list of names, `prefix*`, `*`, and exceptions that start with `!`
//! (`DOCKLESS_REQUIRE='*,!netlink::vlan*'`). The last line of the output is
//! `N passed, N failed, N skipped`.
//! On a slow machine `DOCKLESS_TEST_SLOW=4` lets all that must come about, and
//! each test, take four times as long.
//! As root, `DOCKLESS_TEST_USERNS=1` runs the tests as an ordinary user would.
//!
//! # Adding tests
//! Put them into the module of your layer and name each in `tests()`:
//!
//! ```ignore
//! pub(crate) fn tests() -> Vec<Test> {
//!     vec![
//!         Test::new(address_is_set).needs(&["ip", "ping"]),
//!         Test::new(slow_one).limit_s(120),
//!     ]
//! }
//!
//! fn address_is_set() -> Verdict {            // or no return value: then only panics fail
//!     need_root()?;                           // real root (cgroups): else skipped
//!     let lan = Lab::here(1)?;                // this process is now the host, 10.0.2.4
//!     let mut rtnl = Rtnl::host()?;           // any error: failed
//!     …
//!     let links = judge::ip(&["link", "show", "eth1"])?;    // no ip(8): skipped
//!     assert_eq!(links[0]["mtu"], 1500);                    // a panic: failed
//!     judge::on(&lan.gateway, &["ping", "-c1", "-W2", "10.0.2.5"])?.success()?;
//!     Ok(())
//! }
//! ```
//! `needs` skips a test that starts programs by itself; `judge` skips by
//! itself. The built program is `judge::dockless()`; its state is private to
//! the test (`DOCKLESS_ROOT`, `DOCKLESS_STATE`, `TMPDIR` are set). One test by
//! name: `cargo test --test kernel -- address_is_set`.
#![allow(clippy::unwrap_used)]

mod harness;
mod judge;

mod acd;
mod dhcp;
mod dhcp6;
mod dns;
mod doctor;
mod events;
mod generic;
mod guard;
mod host_access;
mod ip6_lan;
mod ipv6;
mod links;
mod mdns;
mod netlink;
mod nft;
mod parents;
mod process;
mod publish;
mod rates;
mod refusals;
mod reserve;
mod routes;
mod run;
mod selfcheck;
mod supervisor;
mod sys;
mod tester;
mod wifi;

use std::process::ExitCode;

use harness::Test;

fn main() -> ExitCode {
    let tests: Vec<Test> = [
        selfcheck::tests(),
        acd::tests(),
        dhcp::tests(),
        dhcp6::tests(),
        ip6_lan::tests(),
        dns::tests(),
        doctor::tests(),
        guard::tests(),
        events::tests(),
        host_access::tests(),
        ipv6::tests(),
        links::tests(),
        mdns::tests(),
        netlink::tests(),
        nft::tests(),
        parents::tests(),
        process::tests(),
        publish::tests(),
        rates::tests(),
        refusals::tests(),
        reserve::tests(),
        routes::tests(),
        run::tests(),
        supervisor::tests(),
        sys::tests(),
        tester::tests(),
        wifi::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    // They wait more than they compute.
    harness::main(tests, 3, |_| {})
}

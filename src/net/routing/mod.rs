//! Which way a container's packets go: the choice of default routes, rules by
//! source address, static routes of networks. Pure: what is planned here is
//! written by [`netlink::policy`](crate::netlink::policy).
//!
//! # Theory of operation
//!
//! A container on one network has Docker's routes and nothing else: no rule, no
//! table. With a second one, each of its addresses gets a rule,
//!
//! ```text
//! 1000: from 10.0.2.5 lookup 1002      table 1002: 10.0.2.0/24 dev eth0
//! 1000: from 10.0.3.5 lookup 1003                  default via 10.0.2.1 dev eth0
//! ```
//!
//! so that an answer, whose source is the address that was asked, leaves by the
//! link of that address. With the main table alone it would leave by the default
//! route's link: the guard drops it there (it is not that link's address), and
//! so does many a router (RFC 2827).
//!
//! Order. `local` (0) stays first: the resolver at 127.0.0.11, the container's
//! own addresses and published ports' proxy are found as before. The rules come
//! before `main` (32766) as a whole. A rule `lookup main suppress_prefixlength 0`
//! before them, as VPNs have it, would find main's more specific routes first,
//! and among them the *other* networks' subnets: a machine on network b's LAN
//! that asks the address on network a, through its router, would be answered
//! by b's link with a's address. So a network's table has to have whatever main
//! has for that link, and has it: the subnets of its addresses (link-local ones
//! too), what else is on the link (l3, a lease's routes), static routes, the
//! default route unless the network is internal. What is in none of these is
//! looked up in main, as ever.
//!
//! What is not bound to an address (connect(2) of a fresh socket) is looked up
//! without a source first: main decides, by Docker's choice of the default
//! route, and gives the source address; with that, the kernel looks again, and
//! the rule leads out by the same link, since main's routes for a link are in
//! the link's table too. A route that somebody adds to main by hand is not:
//! `--route` on the network is, and `-o source_routing=off` leaves a network
//! without rule and table.
//!
//! The packets of published ports' fast path have the default network's link
//! and an alias as their source, for which there is no rule: main, whose default
//! route is that network's. The host's own route to a container (host access)
//! is in the host's namespace.
//!
//! Rules live and die with the namespace; there is nothing to undo after a
//! crash. What is there is kept as a [`Plan`]; a change of networks or of a
//! lease makes the next one, and [`Plan::changes_to`] what lies between, one
//! datagram. Routes go with their link or its last IPv4 address by themselves.

pub mod choice;
pub mod fixed;

use std::net::{IpAddr, Ipv6Addr};

use crate::base::{Cidr, Family, PerFamily};
use crate::netlink::policy::{Change, Found, MAIN, SourceRule, TableRoute};
use fixed::StaticRoute;

/// Of all our rules: what `ip rule add` adds without a priority comes before.
pub const PRIORITY: u32 = 1000;
/// A link's table: this and its index in the container's namespace.
const FIRST_TABLE: u32 = 1000;

/// The table of a link.
pub fn table_of(ifindex: u32) -> u32 {
    FIRST_TABLE.saturating_add(ifindex)
}

/// How a family's default route leaves by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    Via(IpAddr),
    /// ipvlan l3: the host routes.
    Link,
}

/// One interface of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub ifindex: u32,
    pub addrs: PerFamily<Cidr>,
    /// On the link besides the subnets of `addrs`.
    pub near: Vec<Cidr>,
    /// Through machines on the link, but for default and static routes.
    pub far: Vec<(Cidr, IpAddr)>,
    pub out: PerFamily<Out>,
    /// Its network's.
    pub fixed: Vec<StaticRoute>,
    /// Whether it has a rule and a table, if it is not the only one.
    pub ruled: bool,
}

/// Rules and routes beside those that an interface comes with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub routes: Vec<TableRoute>,
    pub rules: Vec<SourceRule>,
    /// Of what is there: a change broke off, and some of it may not be.
    doubtful: bool,
}

/// fe80::/64, as the kernel has it on each link with IPv6.
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

impl Way {
    /// What is on the link, each once.
    fn on_link(&self) -> Vec<Cidr> {
        let local = self
            .addrs
            .ipv6()
            .and_then(|_| Cidr::new(LINK_LOCAL, 64).ok());
        let own = self.addrs.values().map(Cidr::network);
        let mut all = Vec::new();
        for net in own
            .chain(self.near.iter().map(|c| c.network()))
            .chain(local)
        {
            if !all.contains(&net) {
                all.push(net);
            }
        }
        all
    }

    fn route(&self, table: u32, dst: Cidr, via: Option<IpAddr>) -> TableRoute {
        TableRoute {
            table,
            dst,
            via,
            oif: self.ifindex,
            metric: None,
        }
    }

    /// Those that can be set here.
    fn usable(&self) -> impl Iterator<Item = &StaticRoute> {
        let usable = |r: &&StaticRoute| r.obstacle(&self.addrs).is_none();
        self.fixed.iter().filter(usable)
    }

    fn fixed_route(&self, table: u32, route: &StaticRoute) -> TableRoute {
        TableRoute {
            metric: route.metric,
            ..self.route(table, route.dst, Some(route.gateway))
        }
    }

    fn own_table(&self) -> Vec<TableRoute> {
        let table = table_of(self.ifindex);
        // Others may lead through them.
        let mut routes: Vec<TableRoute> = self
            .on_link()
            .into_iter()
            .map(|net| self.route(table, net, None))
            .collect();
        for family in Family::BOTH {
            let default = Cidr::default_of(family);
            match self.out.of(family) {
                Some(Out::Via(gateway)) => routes.push(self.route(table, default, Some(gateway))),
                Some(Out::Link) => routes.push(self.route(table, default, None)),
                None => {}
            }
        }
        let far = self.far.iter();
        routes.extend(far.map(|(dst, via)| self.route(table, *dst, Some(*via))));
        routes.extend(self.usable().map(|r| self.fixed_route(table, r)));
        // A lease may say a thing twice, or what a static route says.
        let mut once: Vec<TableRoute> = Vec::with_capacity(routes.len());
        for route in routes {
            if !once.iter().any(|known| is_same_place(known, &route)) {
                once.push(route);
            }
        }
        once
    }
}

/// The kernel takes one of them only.
fn is_same_place(a: &TableRoute, b: &TableRoute) -> bool {
    (a.table, a.dst, a.priority()) == (b.table, b.dst, b.priority())
}

impl Plan {
    /// For the interfaces in their order of preference: where two networks
    /// have a static route to one destination, main has the first one's.
    pub fn new(ways: &[Way]) -> Self {
        let mut plan = Self::default();
        let links: Vec<Cidr> = ways.iter().flat_map(Way::on_link).collect();
        for way in ways {
            for route in way.usable().filter(|r| !links.contains(&r.dst)) {
                let route = way.fixed_route(MAIN, route);
                if !plan.routes.iter().any(|r| is_same_place(r, &route)) {
                    plan.routes.push(route);
                }
            }
        }
        let is_ruled = |way: &&Way| way.ruled && !way.addrs.is_empty() && ways.len() > 1;
        for way in ways.iter().filter(is_ruled) {
            plan.routes.extend(way.own_table());
            plan.rules.extend(way.addrs.values().map(|addr| SourceRule {
                from: addr.addr(),
                table: table_of(way.ifindex),
                priority: PRIORITY,
            }));
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.rules.is_empty()
    }

    /// A rule is the last to come and the first to go: it never leads into a
    /// table that is half made.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let gone = self.rules.iter().filter(|r| !next.rules.contains(r));
        changes.extend(gone.copied().map(Change::DelRule));
        let gone = self.routes.iter().filter(|r| !next.routes.contains(r));
        changes.extend(gone.copied().map(Change::DelRoute));
        // To add what is there does no harm.
        let again = self.doubtful;
        let new = next
            .routes
            .iter()
            .filter(|r| again || !self.routes.contains(r));
        changes.extend(new.copied().map(Change::AddRoute));
        let new = next
            .rules
            .iter()
            .filter(|r| again || !self.rules.contains(r));
        changes.extend(new.copied().map(Change::AddRule));
        changes
    }

    /// The change to `next` broke off: all of both may be there.
    pub fn doubt(&mut self, next: Self) {
        self.routes.extend(next.routes);
        self.rules.extend(next.rules);
        self.doubtful = true;
    }

    /// What the kernel has refused to add.
    pub fn forget(&mut self, refused: Change) {
        match refused {
            Change::AddRoute(route) => self.routes.retain(|r| *r != route),
            Change::AddRule(rule) => self.rules.retain(|r| *r != rule),
            Change::DelRoute(_) | Change::DelRule(_) => {}
        }
    }

    /// Forgets what the kernel has taken with a link's last IPv4 address.
    pub fn forget_ipv4_of(&mut self, ifindex: u32) {
        let is_kept = |r: &TableRoute| r.oif != ifindex || !r.dst.is_ipv4();
        self.routes.retain(is_kept);
    }

    /// What the kernel would answer, had it these routes and `main` beside:
    /// the longest prefix of the first table with any, the lowest metric.
    fn lookup(&self, main: &[TableRoute], to: IpAddr, from: Option<IpAddr>) -> Option<TableRoute> {
        let best = |table: u32| {
            let all = self.routes.iter().chain(main).copied();
            let fits = all.filter(|r| r.table == table && r.dst.contains(to));
            fits.max_by_key(|r| (r.dst.prefix(), std::cmp::Reverse(r.priority())))
        };
        let ruled = self.rules.iter().find(|rule| Some(rule.from) == from);
        ruled
            .and_then(|rule| best(rule.table))
            .or_else(|| best(MAIN))
    }

    /// The same as the kernel tells it, but for the source address that it
    /// chooses.
    pub fn found(&self, main: &[TableRoute], to: IpAddr, from: Option<IpAddr>) -> Found {
        let route = self.lookup(main, to, from).map(|route| route.as_read());
        Found {
            from,
            route,
            refusal: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::OfFamily;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn way(ifindex: u32, addr: &str, gateway: &str) -> Way {
        let gateway: IpAddr = gateway.parse().unwrap();
        Way {
            ifindex,
            addrs: cidr(addr).into(),
            near: Vec::new(),
            far: Vec::new(),
            out: PerFamily::each(|f| (f == gateway.family()).then_some(Out::Via(gateway))),
            fixed: Vec::new(),
            ruled: true,
        }
    }

    fn said(plan: &Plan) -> Vec<String> {
        let routes = plan.routes.iter().map(|r| {
            let via = r.via.map(|via| format!(" via {via}")).unwrap_or_default();
            format!("{} {}{via} dev {}", r.table, r.dst, r.oif)
        });
        let rules = plan.rules.iter();
        routes
            .chain(rules.map(|r| format!("from {} lookup {}", r.from, r.table)))
            .collect()
    }

    #[test]
    fn one_network_has_none() {
        let mut alone = way(2, "10.0.2.5/24", "10.0.2.1");
        assert!(Plan::new(&[alone.clone()]).is_empty());
        alone.fixed.push("10.9.0.0/16,10.0.2.77".parse().unwrap());
        let plan = Plan::new(&[alone]);
        assert_eq!(said(&plan), ["254 10.9.0.0/16 via 10.0.2.77 dev 2"]);
    }

    #[test]
    fn two_networks() {
        let mut a = way(2, "10.0.2.5/24", "10.0.2.1");
        a.fixed.push("10.9.0.0/16,10.0.2.77,5".parse().unwrap());
        let mut b = way(3, "fd00:3::5/64", "fd00:3::1");
        b.out = PerFamily::NONE;
        let plan = Plan::new(&[a, b]);
        assert_eq!(
            said(&plan),
            [
                "254 10.9.0.0/16 via 10.0.2.77 dev 2",
                "1002 10.0.2.0/24 dev 2",
                "1002 0.0.0.0/0 via 10.0.2.1 dev 2",
                "1002 10.9.0.0/16 via 10.0.2.77 dev 2",
                "1003 fd00:3::/64 dev 3",
                "1003 fe80::/64 dev 3",
                "from 10.0.2.5 lookup 1002",
                "from fd00:3::5 lookup 1003",
            ]
        );
    }

    #[test]
    fn main_has_the_first_one_s_and_no_link_s() {
        let mut a = way(2, "10.0.2.5/24", "10.0.2.1");
        let mut b = way(3, "10.0.3.5/24", "10.0.3.1");
        a.fixed.push("10.9.0.0/16,10.0.2.77".parse().unwrap());
        a.fixed.push("10.0.3.0/24,10.0.2.77".parse().unwrap());
        b.fixed.push("10.9.0.0/16,10.0.3.77".parse().unwrap());
        let plan = Plan::new(&[a, b]);
        let of = |table: &str| {
            let all = said(&plan).into_iter();
            all.filter(|l| l.starts_with(table) && l.contains("77"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("254"), ["254 10.9.0.0/16 via 10.0.2.77 dev 2"]);
        assert_eq!(of("1002").len(), 2);
        assert_eq!(of("1003"), ["1003 10.9.0.0/16 via 10.0.3.77 dev 3"]);
    }

    #[test]
    fn without_its_rule() {
        let a = way(2, "10.0.2.5/24", "10.0.2.1");
        let mut b = way(3, "10.0.3.5/24", "10.0.3.1");
        b.ruled = false;
        let plan = Plan::new(&[a, b]);
        assert_eq!(plan.rules.len(), 1);
        assert!(plan.routes.iter().all(|r| r.table == 1002));
    }

    #[test]
    fn a_change_is_what_lies_between() {
        let a = way(2, "10.0.2.5/24", "10.0.2.1");
        let b = way(3, "10.0.3.5/24", "10.0.3.1");
        let one = Plan::new(std::slice::from_ref(&a));
        let two = Plan::new(&[a, b]);
        let there = one.changes_to(&two);
        assert!(matches!(there.first(), Some(Change::AddRoute(_))));
        assert!(matches!(there.last(), Some(Change::AddRule(_))));
        assert_eq!(there.len(), 6);
        let back = two.changes_to(&one);
        assert!(matches!(back.first(), Some(Change::DelRule(_))));
        assert_eq!(back.len(), 6);
        assert!(two.changes_to(&two).is_empty());
    }

    #[test]
    fn after_a_change_that_broke_off() {
        let a = way(2, "10.0.2.5/24", "10.0.2.1");
        let b = way(3, "10.0.3.5/24", "10.0.3.1");
        let one = Plan::new(std::slice::from_ref(&a));
        let two = Plan::new(&[a, b]);
        let mut there = one.clone();
        there.doubt(two.clone());
        assert_eq!(there.changes_to(&one), two.changes_to(&one));
        assert_eq!(there.changes_to(&two), one.changes_to(&two));
    }

    /// IPv6's own metric is 1024: said or not, it is one place, and 50 is less.
    #[test]
    fn metrics_of_both_families() {
        let mut a = way(2, "fd00:2::5/64", "fd00:2::1");
        let fixed = ["fd00:2::7", "fd00:2::8,1024", "fd00:2::9,50"];
        let fixed = fixed.map(|via| format!("fd09::/16,{via}").parse::<StaticRoute>());
        a.fixed.extend(fixed.map(Result::unwrap));
        let plan = Plan::new(&[a]);
        let vias: Vec<IpAddr> = plan.routes.iter().filter_map(|r| r.via).collect();
        let kept = ["fd00:2::7", "fd00:2::9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(vias, kept);
        let found = plan.lookup(&[], "fd09::1".parse().unwrap(), None);
        assert_eq!(found.and_then(|r| r.via), Some(kept[1]));
    }

    #[test]
    fn looked_up_as_the_kernel_does() {
        let a = way(2, "10.0.2.5/24", "10.0.2.1");
        let b = way(3, "10.0.3.5/24", "10.0.3.1");
        let main = [a.route(MAIN, Cidr::DEFAULT_V4, Some("10.0.2.1".parse().unwrap()))];
        let plan = Plan::new(&[a, b]);
        let oif = |to: &str, from: Option<&str>| {
            let from = from.map(|ip| ip.parse().unwrap());
            let found = plan.lookup(&main, to.parse().unwrap(), from);
            found.map(|r| r.oif)
        };
        assert_eq!(oif("192.0.2.1", None), Some(2));
        assert_eq!(oif("192.0.2.1", Some("10.0.3.5")), Some(3));
        assert_eq!(oif("fd00::1", None), None);
    }
}

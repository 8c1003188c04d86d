//! Which network a container's default routes go by: Docker's order, and the
//! reason in words.

use std::cmp::Reverse;

use crate::base::Family;

/// One network of a container, as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub name: &'a str,
    /// `gw-priority`
    pub priority: i32,
    pub internal: bool,
    /// Whether it gives an address of IPv4, of IPv6.
    pub addressed: [bool; 2],
    /// Whether a default route can go by it.
    pub leads_out: [bool; 2],
}

/// Least first.
pub type Rank<'a> = (Reverse<i32>, bool, Reverse<usize>, &'a str);

fn place(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

impl<'a> Candidate<'a> {
    pub fn leads_out(&self, family: Family) -> bool {
        self.leads_out[place(family)]
    }

    fn ways(&self) -> usize {
        self.leads_out.iter().filter(|leads| **leads).count()
    }

    /// The least is preferred: by priority, external before internal, by how
    /// many families it leads out in, by name.
    pub fn rank(&self) -> Rank<'a> {
        (
            Reverse(self.priority),
            self.internal,
            Reverse(self.ways()),
            self.name,
        )
    }

    /// Why a family's default route does not go by this one.
    fn loses_to(&self, best: &Self, family: Family) -> String {
        if let Some(why) = self.unfit(family) {
            return why;
        }
        if self.priority != best.priority {
            return format!("its gw-priority is {}", self.priority);
        }
        if self.ways() != best.ways() {
            return "it has a gateway in one family only".to_owned();
        }
        "its name comes later".to_owned()
    }

    fn unfit(&self, family: Family) -> Option<String> {
        if !self.addressed[place(family)] {
            return Some(format!("it gives no {family} address"));
        }
        if self.internal {
            return Some("it is internal".to_owned());
        }
        if !self.leads_out(family) {
            return Some(format!("it has no {family} gateway"));
        }
        None
    }

    /// Why it goes by this one, which is the best of `all`.
    fn wins(&self, all: &[Self], family: Family) -> String {
        let rivals = all
            .iter()
            .filter(|c| c.name != self.name && c.leads_out(family));
        match rivals.min_by(|a, b| a.rank().cmp(&b.rank())) {
            None if all.len() == 1 => "it is the only network".to_owned(),
            None => format!("no other network has an {family} gateway that leads out"),
            Some(next) if next.priority != self.priority => {
                format!("its gw-priority, {}, is the highest", self.priority)
            }
            Some(next) if next.ways() != self.ways() => {
                "it has gateways of both families".to_owned()
            }
            Some(_) => "its name comes first; nothing else tells them apart".to_owned(),
        }
    }
}

/// The network of a family's default route.
pub fn choose(all: &[Candidate<'_>], family: Family) -> Option<usize> {
    (0..all.len())
        .filter(|at| all[*at].leads_out(family))
        .min_by(|a, b| all[*a].rank().cmp(&all[*b].rank()))
}

/// Why it is that one, and of each of the others why it is not.
pub fn reasons(all: &[Candidate<'_>], family: Family) -> (Option<String>, Vec<String>) {
    let best = choose(all, family).and_then(|at| all.get(at));
    let others = all.iter().filter(|c| best.is_none_or(|b| b.name != c.name));
    let not = others.map(|c| {
        let why = match best {
            Some(best) => c.loses_to(best, family),
            None => c.unfit(family).unwrap_or_default(),
        };
        format!("not {}: {why}", c.name)
    });
    (best.map(|best| best.wins(all, family)), not.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, priority: i32, leads_out: [bool; 2]) -> Candidate<'_> {
        Candidate {
            name,
            priority,
            internal: false,
            addressed: [true, true],
            leads_out,
        }
    }

    fn said(all: &[Candidate<'_>], family: Family) -> (String, String) {
        let (why, not) = reasons(all, family);
        (why.unwrap_or_default(), not.join("; "))
    }

    #[test]
    fn each_step_of_docker_s_order() {
        let v4 = Family::Ipv4;
        let both = [of("a", 0, [true, false]), of("b", 1, [true, false])];
        assert_eq!(choose(&both, v4), Some(1));
        let (why, not) = said(&both, v4);
        assert_eq!(why, "its gw-priority, 1, is the highest");
        assert_eq!(not, "not a: its gw-priority is 0");
        let both = [of("a", 0, [true, false]), of("b", 0, [true, true])];
        assert_eq!(choose(&both, v4), Some(1));
        assert!(said(&both, v4).1.contains("one family only"));
        let both = [of("b", 0, [true, false]), of("a", 0, [true, false])];
        assert_eq!(choose(&both, v4), Some(1));
        assert!(said(&both, v4).1.contains("its name comes later"));
        assert_eq!(choose(&both, Family::Ipv6), None);
        assert_eq!(said(&both, Family::Ipv6).0, "");
    }

    #[test]
    fn what_cannot_lead_out() {
        let mut inside = of("a", 9, [false, false]);
        inside.internal = true;
        let mut bare = of("c", 0, [false, false]);
        bare.addressed = [false, true];
        let all = [
            inside,
            of("b", 0, [true, false]),
            bare,
            of("d", 0, [false; 2]),
        ];
        let (why, not) = said(&all, Family::Ipv4);
        assert_eq!(why, "no other network has an IPv4 gateway that leads out");
        assert_eq!(
            not,
            "not a: it is internal; not c: it gives no IPv4 address; not d: it has no IPv4 gateway"
        );
        let (why, _) = said(&[of("x", 0, [true, false])], Family::Ipv4);
        assert_eq!(why, "it is the only network");
    }
}

//! What `doctor` has found, as text.

use std::fmt::Write as _;

use super::safe;
use crate::engine::view::{Check, Diagnosis, Verdict};

pub fn diagnosis(d: &Diagnosis) -> String {
    let mut out = String::from("this machine\n");
    checks(&mut out, &d.machine);
    for link in &d.links {
        let networks = match link.networks.as_slice() {
            [] => String::new(),
            names => format!(", parent of {}", names.join(", ")),
        };
        let _ = writeln!(out, "\n{}{networks}", link.link);
        checks(&mut out, &link.checks);
    }
    let _ = writeln!(out, "\n{}", sum(d));
    // Names and error texts are other people's.
    safe::lines(&out).into_owned()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unknown => "unknown",
        Verdict::Warning => "warning",
        Verdict::Problem => "PROBLEM",
    }
}

fn checks(out: &mut String, checks: &[Check]) {
    for check in checks {
        let _ = writeln!(
            out,
            "  {:<8} {:<18} {}",
            word(check.verdict),
            check.name,
            check.found
        );
        if let Some(advice) = &check.advice {
            let _ = writeln!(out, "{:29} to do: {advice}", "");
        }
    }
}

fn sum(d: &Diagnosis) -> String {
    let all = || d.links.iter().flat_map(|l| &l.checks).chain(&d.machine);
    let counted = |verdict, one: &str, many: &str| {
        let n = all().filter(|c| c.verdict == verdict).count();
        format!("{n} {}", if n == 1 { one } else { many })
    };
    [
        counted(Verdict::Problem, "problem", "problems"),
        counted(Verdict::Warning, "warning", "warnings"),
        counted(Verdict::Unknown, "unknown", "unknown"),
    ]
    .join(", ")
}

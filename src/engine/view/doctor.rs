//! `doctor`; Docker has nothing like it.

use serde::Serialize;

pub use crate::net::doctor::{Check, Verdict};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Diagnosis {
    /// The worst of all checks: `ok`, `unknown`, `warning` or `problem`.
    pub verdict: Verdict,
    pub machine: Vec<Check>,
    pub links: Vec<LinkDiagnosis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LinkDiagnosis {
    pub link: String,
    /// Names of the networks that have it as their parent.
    pub networks: Vec<String>,
    pub checks: Vec<Check>,
}

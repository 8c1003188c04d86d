//! Read models that every front prints from: Docker's JSON, key by key.

use serde::Serialize;

/// One element of `inspect`'s array (to be written by the front's author).
#[derive(Clone, Debug, Serialize)]
pub struct Container {}
/// One element of `network inspect`'s array.
#[derive(Clone, Debug, Serialize)]
pub struct Network {}
/// `info`
#[derive(Clone, Debug, Serialize)]
pub struct Info {}

//! flock(2) on a file: held by the kernel for whoever has the open file
//! description, a forked supervisor included, and gone when they are.

#[derive(Debug)]
pub struct Lock {}

//! Images: the embedded tester and plain folders.

pub mod tester;

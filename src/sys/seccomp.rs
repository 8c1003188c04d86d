//! Docker's default system call filter, compiled to a binary search.

//! Policy routing rules.

//! The stateless fast path in the parent's netdev hooks.

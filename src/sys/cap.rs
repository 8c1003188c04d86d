//! Capabilities: the sets of a container process.

//! Docker's default profile: capabilities, masked and read-only paths.

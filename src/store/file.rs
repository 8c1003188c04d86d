//! Files replaced atomically.

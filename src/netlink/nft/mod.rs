//! nf_tables messages.

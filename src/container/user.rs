//! `user[:group]` looked up in the container's own /etc.

//! Mounts through fds: the new mount API, pivot_root, masks.

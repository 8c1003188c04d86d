//! The root file system: overlay, API file systems, devices, pivot.

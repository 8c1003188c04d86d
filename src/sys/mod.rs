//! Typed kernel primitives. `raw` holds the only unsafe code of the program.

pub mod apparmor;
pub mod arp;
pub mod boottime;
pub mod cap;
pub mod cgroup;
pub mod epoll;
pub mod fd;
pub mod features;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod mount;
pub mod nd;
pub mod netns;
pub mod own_file;
pub mod process;
pub mod random;
pub mod raw;
pub mod rooted;
pub mod seccomp;
pub mod sysctl;
pub mod usage;

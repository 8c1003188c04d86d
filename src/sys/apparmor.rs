//! AppArmor: the profile in which containers' programs run.
//!
//! # Theory of operation
//! Docker writes its profile, `docker-default`, and loads it with another
//! program. We use it where it is loaded already, and load nothing. Which
//! profile a program gets is decided at its exec, by a word that the process
//! leaves in its own /proc before. Elsewhere the one question is whether the
//! module's switch is there.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;

use crate::base::{Error, Result};

pub const PROFILE: &str = "docker-default";

/// Whether the machine has the profile. To be asked before the process leaves
/// the machine's /sys; the answer is remembered.
pub fn has_profile() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| is_loaded(Path::new("/sys")))
}

fn is_loaded(sys: &Path) -> bool {
    let read = |path: &str| fs::read_to_string(sys.join(path)).unwrap_or_default();
    // `docker-default (enforce)`; only root may read it.
    let names = |line: &str| line.split(' ').next() == Some(PROFILE);
    read("module/apparmor/parameters/enabled").starts_with('Y')
        && read("kernel/security/apparmor/profiles").lines().any(names)
}

/// The calling process's next exec enters the profile, if there is one.
pub fn confine_exec() -> Result<()> {
    if !has_profile() {
        return Ok(());
    }
    // The second is that of kernels before 5.1, which had one module's only.
    let own = Path::new("/proc/thread-self/attr/apparmor/exec");
    match ask(own) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let shared = Path::new("/proc/thread-self/attr/exec");
            ask(shared).map_err(|e| Error::sys("set AppArmor profile", shared, e))
        }
        other => other.map_err(|e| Error::sys("set AppArmor profile", own, e)),
    }
}

fn ask(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(format!("exec {PROFILE}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_used_where_it_is_loaded() {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let (switch, list) = (
            "module/apparmor/parameters/enabled",
            "kernel/security/apparmor/profiles",
        );
        assert!(!is_loaded(sys.path()));
        put(switch, "Y\n");
        assert!(!is_loaded(sys.path()));
        put(list, "docker-default2 (enforce)\nman (enforce)\n");
        assert!(!is_loaded(sys.path()));
        put(list, "man (enforce)\ndocker-default (enforce)\n");
        assert!(is_loaded(sys.path()));
        put(switch, "N\n");
        assert!(!is_loaded(sys.path()));
    }
}

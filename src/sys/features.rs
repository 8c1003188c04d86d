//! What this kernel and this user may do.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::base::{Error, Subject};

/// Whether this process lives in a user namespace of its own: there, root is
/// root over its own namespaces only.
pub fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // The first namespace maps the whole range onto itself.
        fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
    })
}

/// What helps a user who may not do what root may.
pub const NOT_ROOT: &str = "not root: use sudo, or user and network namespaces of your own \
    (`unshare -Urn`) with folders of your own (DOCKLESS_ROOT, DOCKLESS_STATE)";

/// Whether cgroup v2 is the machine's only hierarchy.
pub fn cgroup_v2_only() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Whether the kernel has time namespaces.
pub fn time_namespaces() -> bool {
    Path::new("/proc/self/ns/time_for_children").exists()
}

/// By its release, for what is dear to try out.
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    static RELEASE: OnceLock<(u32, u32)> = OnceLock::new();
    let release = RELEASE.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        parse_release(&text).unwrap_or_default()
    });
    *release >= (major, minor)
}

/// `6.12.43+deb13-cloud-amd64`
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The error for a user namespace that was refused with `errno`: which switch
/// of this system forbids it, and what to do.
pub fn why_no_userns(errno: i32) -> Error {
    Error::sys("create user namespace", Subject::None, errno)
        .hint(reason(Path::new("/proc"), errno))
}

fn reason(proc: &Path, errno: i32) -> &'static str {
    let read = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
    let is = |path: &str, value: &str| read(path).trim() == value;
    if !proc.join("self/ns/user").exists() {
        return "this kernel is built without user namespaces: run as root";
    }
    if is("sys/kernel/unprivileged_userns_clone", "0") {
        return "kernel.unprivileged_userns_clone=0 forbids it to ordinary users: \
                run as root, or `sysctl kernel.unprivileged_userns_clone=1`";
    }
    if is("sys/user/max_user_namespaces", "0") || errno == libc::ENOSPC {
        return "user.max_user_namespaces allows no (more) user namespaces: \
                run as root, or `sysctl user.max_user_namespaces=15000`";
    }
    if is("sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "kernel.apparmor_restrict_unprivileged_userns=1 forbids it to programs \
                without an AppArmor profile: run as root, or \
                `sysctl kernel.apparmor_restrict_unprivileged_userns=0`";
    }
    if errno == libc::EUSERS {
        return "32 user namespaces are nested already: go on in an outer one";
    }
    let status = read("self/status");
    let field = |name| {
        status
            .lines()
            .find_map(|line: &str| line.strip_prefix(name))
            .map_or("", str::trim)
    };
    if errno == libc::EINVAL && field("Threads:") != "1" {
        return "the process has more than one thread";
    }
    if field("Seccomp:") == "2" {
        return "a seccomp filter forbids it, as in a Docker container: run outside of it, \
                or give that container `--security-opt seccomp=unconfined`";
    }
    // A process in a chroot does not see the mount that is its namespace's
    // root; the kernel refuses it a user namespace.
    let mounts = read("self/mountinfo");
    if !mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/"))
    {
        return "the process is in a chroot, where the kernel refuses it";
    }
    "no known switch forbids it; a security module may: run as root"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_numbers() {
        assert_eq!(parse_release("6.12.43+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(parse_release("5.9-rc1"), Some((5, 9)));
        assert_eq!(parse_release(""), None);
        assert!(kernel_is_at_least(4, 0) && !kernel_is_at_least(99, 0));
    }

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let healthy = [
            ("self/ns/user", ""),
            ("self/status", "Threads:\t1\nSeccomp:\t0\n"),
            ("self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda rw\n"),
            ("sys/user/max_user_namespaces", "31024\n"),
        ];
        for (path, text) in healthy.iter().chain(files) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_switch_that_forbids_user_namespaces_is_named() {
        for (file, text, expected) in [
            (
                "sys/kernel/unprivileged_userns_clone",
                "0\n",
                "unprivileged_userns_clone=1",
            ),
            ("sys/user/max_user_namespaces", "0\n", "max_user_namespaces"),
            (
                "sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "AppArmor",
            ),
            ("self/status", "Threads:\t1\nSeccomp:\t2\n", "seccomp"),
            (
                "self/mountinfo",
                "21 1 8:1 / /x rw - ext4 /dev/sda rw\n",
                "chroot",
            ),
            ("unrelated", "", "no known switch"),
        ] {
            let proc = machine(&[(file, text)]);
            let reason = reason(proc.path(), libc::EPERM);
            assert!(reason.contains(expected), "{file}: {reason}");
        }
        let proc = machine(&[("self/status", "Threads:\t2\nSeccomp:\t0\n")]);
        assert!(reason(proc.path(), libc::EINVAL).contains("thread"));
        assert!(reason(proc.path(), libc::ENOSPC).contains("max_user_namespaces"));
    }
}

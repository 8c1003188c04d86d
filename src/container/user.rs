//! `user[:group]` looked up in the container's own /etc/passwd and /etc/group,
//! with Docker's rules and Docker's error texts.
//!
//! The image is untrusted: a FIFO or a device in the place of one of these
//! files must not hang the start, and a broken line is skipped, never read as
//! "uid 0".

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::{Error, Result};

/// Ids that a process runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups. The primary one comes first: a list without it
    /// would let the process drop a group that denies it something.
    pub groups: Vec<u32>,
    /// For `HOME`, when the environment has none.
    pub home: String,
}

/// What a passwd line says that matters here.
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// A file larger than this is not a passwd file.
const MAX_FILE: u64 = 16 << 20;

/// Looks `spec` up in /etc of the root that the caller lives in.
pub fn lookup(spec: &str) -> Result<Identity> {
    let passwd = read(Path::new("/etc/passwd"));
    let group = read(Path::new("/etc/group"));
    resolve(spec, &passwd, &group)
}

/// The file's text; empty when it is missing, unreadable or no regular file,
/// which is the same to Docker: no entry matches.
fn read(path: &Path) -> String {
    let open = || -> std::io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(std::io::ErrorKind::InvalidInput.into())
        }
    };
    let mut bytes = Vec::with_capacity(4096);
    match open().and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
        Err(_) => String::new(),
    }
}

/// Docker's rules: a number is always an id and needs no entry; a name needs
/// one; the first match wins; groups beside the primary one are added only
/// when no group was asked for.
fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user, wanted_group) = spec.split_once(':').unwrap_or((spec, ""));
    let entry = if user.is_empty() {
        passwd_lines(passwd).find(|p| p.uid == 0)
    } else if let Some(uid) = number(user) {
        let uid = in_range(uid)?;
        passwd_lines(passwd).find(|p| p.uid == uid)
    } else {
        Some(
            passwd_lines(passwd)
                .find(|p| p.name == user)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "unable to find user {user}: no matching entries in passwd file"
                    ))
                })?,
        )
    };

    let uid = match (&entry, number(user)) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => in_range(uid)?,
        (None, None) => 0,
    };
    let mut gid = entry.as_ref().map_or(0, |e| e.gid);
    let mut groups = Vec::new();
    if !wanted_group.is_empty() {
        gid = explicit_group(wanted_group, group)?;
    } else if let Some(entry) = &entry {
        groups.extend(
            group_lines(group)
                .filter(|g| g.members.split(',').any(|m| m == entry.name))
                .map(|g| g.gid),
        );
    }
    groups.insert(0, gid);

    // Docker hands the runtime a number, which finds HOME by it: the first
    // entry with that uid, also when the user was named by another one.
    let home = passwd_lines(passwd)
        .find(|p| p.uid == uid)
        .map_or("", |p| p.home);
    Ok(Identity {
        uid,
        gid,
        groups,
        home: if home.is_empty() { "/" } else { home }.to_owned(),
    })
}

fn explicit_group(wanted: &str, group: &str) -> Result<u32> {
    if let Some(gid) = number(wanted) {
        return in_range(gid);
    }
    group_lines(group)
        .find(|g| g.name == wanted)
        .map(|g| g.gid)
        .ok_or_else(|| {
            Error::invalid(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))
        })
}

/// Anything that reads as a number is one, as in Docker, however large.
fn number(text: &str) -> Option<i128> {
    text.parse().ok()
}

fn in_range(id: i128) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|id| i32::try_from(*id).is_ok())
        .ok_or_else(|| Error::invalid("uids and gids must be in range 0-2147483647"))
}

fn passwd_lines(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(Passwd {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("");
        Some(Group { name, gid, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken:x:zero:0::/broken:\n\
        \n\
        www:x:33:33:www:/var/www:/bin/false\n\
        alias:x:33:44:www:/elsewhere:/bin/false\n\
        bare:x:50:50\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,www\nwww:x:33:\nmail:x:8:www,other\nbad:x:-:www\n";

    fn id(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        }
    }

    #[test]
    fn users_as_docker_finds_them() {
        for (spec, want) in [
            ("", id(0, 0, &[0, 4], "/root")),
            ("root", id(0, 0, &[0, 4], "/root")),
            ("0", id(0, 0, &[0, 4], "/root")),
            ("www", id(33, 33, &[33, 4, 8], "/var/www")),
            ("33", id(33, 33, &[33, 4, 8], "/var/www")),
            // Home by number, groups by name.
            ("alias", id(33, 44, &[44], "/var/www")),
            ("www:mail", id(33, 8, &[8], "/var/www")),
            ("www:77", id(33, 77, &[77], "/var/www")),
            (":4", id(0, 4, &[4], "/root")),
            ("1000", id(1000, 0, &[0], "/")),
            ("1000:1000", id(1000, 1000, &[1000], "/")),
            ("bare", id(50, 50, &[50], "/")),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP).unwrap(), want, "{spec}");
        }
        assert_eq!(resolve("", "", "").unwrap(), id(0, 0, &[0], "/"));
    }

    #[test]
    fn errors_in_dockers_words() {
        for (spec, want) in [
            (
                "nobody",
                "unable to find user nobody: no matching entries in passwd file",
            ),
            (
                "broken",
                "unable to find user broken: no matching entries in passwd file",
            ),
            (
                "www:nogroup",
                "unable to find group nogroup: no matching entries in group file",
            ),
            ("-1", "uids and gids must be in range 0-2147483647"),
            ("4294967295", "uids and gids must be in range 0-2147483647"),
            (
                "0:99999999999999999999",
                "uids and gids must be in range 0-2147483647",
            ),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn what_is_no_regular_file_is_no_file() {
        assert_eq!(read(Path::new("/dev/zero")), "");
        assert_eq!(read(Path::new("/")), "");
        assert_eq!(read(Path::new("/no/such/file")), "");
    }
}

//! This program's own file, kept out of reach of what it starts in containers.
//!
//! # Theory of operation
//! A container whose program is `/proc/self/exe` (or a script with that as its
//! interpreter) runs *us*: the link is looked up while the process is still
//! dockless. Whoever is root in there may then open `/proc/PID/exe`, which is
//! the host's file on the host's mount, and write to it (CVE-2019-5736).
//!
//! *A process beside others* (`exec`) cannot be checked first: a container's
//! files can change between the check and the exec. So the command runs itself
//! once more from a file that nobody can write to ([`protect`]): the same one
//! through a read-only mount of our own, or where it cannot be mounted, a
//! sealed copy in memory. *The first process* is looked at after its exec
//! ([`is_run_by`]), which is late: until then it may have started others, and
//! they may have opened its file. So what of us starts programs of a
//! container's from within it, the `--init`, does so only from a file that
//! nobody can write to ([`must_be_protected`]), as the one that we mount is. A
//! first process that has ended by the time it is looked at could tell nothing
//! any more, but it has taken all others of its container along, and no other
//! of our programs starts one.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::execveat;

use super::mount::{Attrs, Mount};
use super::process;
use crate::base::{Error, Result};

const OWN: &str = "/proc/self/exe";

fn fail(op: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::sys(op, Path::new(OWN), e)
}

/// Comes back at once when this process already runs from a file that cannot
/// be written to; else executes that file with the same arguments. To be
/// called before anything has been done that a second run would do again.
pub fn protect() -> Result<()> {
    let own = File::open(OWN).map_err(fail("open"))?;
    if is_protected(&own) {
        return process::set_name(c"dockless");
    }
    let file: OwnedFd = match read_only_mount() {
        // Not allowed; or the file's mount is another namespace's, as it is
        // after unshare(2) (the demo).
        Err(e) if e.is_errno(libc::EPERM) || e.is_errno(libc::EINVAL) => sealed_copy(own)?,
        other => other?.into(),
    };
    let list = |items: Vec<Vec<u8>>| -> Vec<CString> {
        items
            .into_iter()
            .filter_map(|item| CString::new(item).ok())
            .collect()
    };
    let args = list(std::env::args_os().map(OsStringExt::into_vec).collect());
    let env = list(
        std::env::vars_os()
            .map(|(name, value)| [&name.into_vec()[..], b"=", &value.into_vec()].concat())
            .collect(),
    );
    match execveat(&file, c"", &args, &env, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(e) => Err(fail("execute")(e.into())),
    }
}

/// Refuses unless this process runs from a file that cannot be written to.
pub fn must_be_protected() -> Result<()> {
    let own = File::open(OWN).map_err(fail("open"))?;
    if is_protected(&own) {
        return Ok(());
    }
    Err(Error::state(
        "run",
        Path::new(OWN),
        "its file can be written to",
    ))
}

/// Whether process `pid` runs this process's own file. Of one that has ended
/// nobody can say, nor is there anything left that it could harm: no.
pub fn is_run_by(pid: i32) -> Result<bool> {
    let own = std::fs::metadata(OWN).map_err(fail("stat"))?;
    Ok(std::fs::metadata(format!("/proc/{pid}/exe"))
        .is_ok_and(|its| (its.dev(), its.ino()) == (own.dev(), own.ino())))
}

fn is_protected(own: &File) -> bool {
    let read_only = fstatvfs(own).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    let sealed = fcntl(own, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE));
    read_only || sealed
}

fn read_only_mount() -> Result<Mount> {
    let mount = Mount::bind_path(Path::new(OWN), false)?;
    mount.set(Attrs::READ_ONLY, false)?;
    Ok(mount)
}

fn sealed_copy(mut own: File) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = memfd_create(c"dockless", flags).map_err(|e| fail("copy")(e.into()))?;
    let mut copy = File::from(copy);
    io::copy(&mut own, &mut copy).map_err(fail("copy"))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(copy.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(|e| fail("seal")(e.into()))?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_is_the_same_file_and_protected() {
        let own = File::open(OWN).unwrap();
        assert!(!is_protected(&own));
        assert!(must_be_protected().is_err());
        let copy = File::from(sealed_copy(own).unwrap());
        assert!(is_protected(&copy));
        let length = std::fs::metadata(OWN).unwrap().len();
        assert_eq!(copy.metadata().unwrap().len(), length);
        assert!(io::Write::write(&mut &copy, b"x").is_err());
    }

    #[test]
    fn own_file_is_told_from_others() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_run_by(own).unwrap());
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(!is_run_by(i32::try_from(sleep.id()).unwrap()).unwrap());
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert!(!is_run_by(i32::MAX).unwrap());
    }
}

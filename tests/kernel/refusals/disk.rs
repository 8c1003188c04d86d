//! A full disk: whatever is the first thing that finds no room, the command
//! says so, nothing of it stays, and everything can still be stopped and
//! removed.

use std::fs;
use std::path::{Path, PathBuf};

use dockless::lab::Lab;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

use super::play::{World, differences, steady, words};
use crate::harness::{Test, Verdict, failed};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(no_room_for_what_stays)
            .needs(super::PLAYERS)
            .limit_s(180),
        Test::new(no_room_for_what_the_boot_ends)
            .needs(super::PLAYERS)
            .limit_s(180),
        Test::new(no_room_for_the_image).needs(super::PLAYERS),
    ]
}

/// Where the small file system is.
const FULL: &str = "/run/tmp/full";

/// What of a file system runs out.
#[derive(Clone, Copy, Debug)]
enum Room {
    Pages,
    Inodes,
}

/// A small file system.
struct Disk;

impl Disk {
    fn mount(world: &World) -> Verdict<Self> {
        let make = format!("mkdir -p {FULL}; mount -t tmpfs -o size=1m,nr_inodes=999 none {FULL}");
        // Of no size at all would be of any size.
        done(world.shell(&format!("{make}; echo > {FULL}/ballast"))?)?;
        Ok(Self)
    }

    /// Leaves room for so many pages or inodes more.
    fn leave(&self, room: Room, free: u64) -> Verdict {
        let now = statvfs(FULL)?;
        let option = match room {
            Room::Pages => {
                let used = now.blocks() - now.blocks_free();
                format!("size={}", (used + free) * now.fragment_size())
            }
            Room::Inodes => format!("nr_inodes={}", now.files() - now.files_free() + free),
        };
        // mount(8) would repeat the owner too, by a number that a user
        // namespace does not know.
        let none = None::<&str>;
        mount(none, FULL, none, MsFlags::MS_REMOUNT, Some(option.as_str()))?;
        Ok(())
    }

    fn unmount(self, world: &World) -> Verdict {
        // The last files of a container go after its command has returned.
        let retry = format!("for i in $(seq 200); do umount {FULL} && exit; sleep 0.01; done");
        done(world.shell(&format!("{retry} 2> /dev/null; umount {FULL}"))?)
    }
}

fn done(complaint: Option<String>) -> Verdict {
    complaint.map_or(Ok(()), failed)
}

/// The unpacked image, which needs no room any more.
fn image() -> Verdict<PathBuf> {
    let images = Path::new(&std::env::var("DOCKLESS_ROOT")?).join("images");
    for entry in fs::read_dir(images)? {
        let rootfs = entry?.path().join("rootfs");
        if rootfs.exists() {
            return Ok(rootfs);
        }
    }
    failed("no image is unpacked")
}

fn no_room_for_what_stays() -> Verdict {
    no_room("DOCKLESS_ROOT")
}

fn no_room_for_what_the_boot_ends() -> Verdict {
    no_room("DOCKLESS_STATE")
}

fn no_room(folder: &str) -> Verdict {
    let _lan = Lab::here(0)?;
    let mut world = World::new()?;
    let image = image()?;
    world.env.insert(folder.to_owned(), format!("{FULL}/x"));
    for room in [Room::Pages, Room::Inodes] {
        let mut refused = 0;
        for free in 0.. {
            let disk = Disk::mount(&world)?;
            command(&world, "gc", 0)?;
            let before = world.look()?;
            disk.leave(room, free)?;
            let all_went_well = walk(&world, &image.display().to_string())
                .map_err(|stop| located(stop, folder, room, free))?;
            let left = differences(&steady(before), &steady(world.look()?));
            if !left.is_empty() {
                return failed(format!("{folder}, {room:?}, {free} free: left\n{left}"));
            }
            disk.unmount(&world)?;
            if all_went_well {
                break;
            }
            refused += 1;
        }
        assert!(refused > 2, "{folder}, {room:?}: {refused} refusals");
    }
    world.leave()
}

fn located(
    stop: crate::harness::Stop,
    folder: &str,
    room: Room,
    free: u64,
) -> crate::harness::Stop {
    match stop {
        crate::harness::Stop::Failed(why) => {
            crate::harness::Stop::Failed(format!("{folder}, {room:?}, {free} free: {why}"))
        }
        skipped @ crate::harness::Stop::Skipped(_) => skipped,
    }
}

/// Makes, starts, stops and removes; did nothing find the disk full?
fn walk(world: &World, image: &str) -> Verdict<bool> {
    let create = "network create -d macvlan -o parent=eth1 --subnet 10.0.2.0/24 n";
    if !tried(world, create, 1)? {
        return Ok(false);
    }
    let tail = format!("--network n --ip 10.0.2.5 --rootfs {image} /bin/tester");
    let kept = format!("run -d --name c1 {tail}");
    let mut well = tried(world, &format!("run -d --rm {tail}"), 125)?;
    remove_all(world)?;
    well &= tried(world, &kept, 125)?;
    if well {
        command(world, "stop -t 0 c1", 0)?;
        well &= tried(world, "start c1", 1)?;
    }
    remove_all(world)?;
    command(world, "network rm n", 0)?;
    Ok(well)
}

/// Stops and removes what there is; that needs no room.
fn remove_all(world: &World) -> Verdict {
    // One whose end could not be recorded is complained about.
    let (_, all, _) = world.dockless(&words("ps -aq --no-trunc"))?;
    for id in all.lines() {
        command(world, &format!("rm -f {id}"), 0)?;
    }
    assert_eq!(command(world, "ps -aq", 0)?, "");
    Ok(())
}

/// Did it succeed? Else it says why and what helps.
fn tried(world: &World, line: &str, code: i32) -> Verdict<bool> {
    let (is, _, err) = world.dockless(&words(line))?;
    if is == Some(0) {
        return Ok(true);
    }
    // Or overlayfs has silently done without.
    let why = ["no space left on device", "overlayfs made it read-only"];
    let said = why.iter().any(|why| err.contains(why)) && err.contains("free some space");
    if is == Some(code) && said {
        return Ok(false);
    }
    failed(format!("$ {line}\n{err}exit {is:?}"))
}

fn command(world: &World, line: &str, code: i32) -> Verdict<String> {
    let (is, out, err) = world.dockless(&words(line))?;
    if is == Some(code) && err.is_empty() {
        return Ok(out);
    }
    failed(format!("$ {line}\n{out}{err}exit {is:?}"))
}

/// Unpacking leaves no half.
fn no_room_for_the_image() -> Verdict {
    let _lan = Lab::here(0)?;
    let mut world = World::new()?;
    let name = "DOCKLESS_ROOT".to_owned();
    world.env.insert(name, format!("{FULL}/x"));
    let disk = Disk::mount(&world)?;
    command(&world, "gc", 0)?;
    assert!(!tried(&world, "run --rm --network none tester", 125)?);
    let left: Vec<_> = fs::read_dir(format!("{FULL}/x/images"))?.collect();
    assert!(left.is_empty(), "{left:?}");
    disk.unmount(&world)?;
    world.leave()
}

//! The filter, run by a small interpreter of classic BPF, against the profile
//! read row by row and against seccompiler's filter from the same rules.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// Runs (code, if_true, if_false, k) instructions on one system call; the
/// answer and how many instructions it took.
fn run(
    program: impl Fn(usize) -> (u16, u8, u8, u32),
    arch: u32,
    number: u32,
    arg0: u64,
) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0, 0);
    loop {
        let (code, if_true, if_false, k) = program(at);
        let skip = |yes: bool| usize::from(if yes { if_true } else { if_false });
        at += 1;
        steps += 1;
        match code {
            LOAD => {
                let low = u32::try_from(arg0 & 0xffff_ffff).unwrap();
                let high = u32::try_from(arg0 >> 32).unwrap();
                a = match k {
                    NUMBER => number,
                    ARCH => arch,
                    ARG0_LOW => low,
                    ARG0_HIGH => high,
                    _ => panic!("load of {k}"),
                };
            }
            JUMP => at += usize::try_from(k).unwrap(),
            IF_EQ => at += skip(a == k),
            IF_GE => at += skip(a >= k),
            0x25 => at += skip(a > k),
            IF_SET => at += skip(a & k != 0),
            0x54 => a &= k,
            RETURN => return (k, steps),
            _ => panic!("code {code:#x}"),
        }
    }
}

fn ours(program: &Program, arch: u32, number: u32, arg0: u64) -> u32 {
    let at = |i: usize| {
        let Instruction {
            code,
            if_true,
            if_false,
            k,
        } = program.instructions()[i];
        (code, if_true, if_false, k)
    };
    run(at, arch, number, arg0).0
}

/// The profile in words.
fn expected(column: Column, number: u32, arg0: u64) -> u32 {
    let numbers = || SYSCALLS.iter().map(|row| row.2[column as usize]);
    let last = numbers().filter(|n| *n != NO).max().unwrap();
    let allowed = match numbers().position(|n| n == number) {
        None if number > last => return ENOSYS,
        None => false,
        Some(row) => match SYSCALLS[row].1 {
            Verdict::Allow => true,
            Verdict::Refuse => false,
            Verdict::Missing => return ENOSYS,
            Verdict::NoNamespaces => arg0 & 0x7e02_0000 == 0,
            Verdict::Personality => [0, 8, 0x20000, 0x20008, 0xffff_ffff].contains(&arg0),
            Verdict::Socket => !matches!(arg0 & 0xffff_ffff, 38 | 40 | 44),
        },
    };
    if allowed { ALLOW } else { EPERM }
}

fn args() -> impl Iterator<Item = u64> {
    let small = 0..64;
    let bits = (0..64).map(|bit| 1 << bit);
    let near = [0x2_0000, 0x2_0008, 0xffff_ffff, 0x7e02_0000]
        .into_iter()
        .flat_map(|n: u64| [n - 1, n, n + 1, n | 1 << 40]);
    small
        .chain(bits)
        .chain(near)
        .chain([u64::MAX, 38 | 1 << 32, 40 | 1 << 63, 44 | 1 << 32])
}

/// All of them where they count, a few where they must not.
fn args_for(column: Column, number: u32) -> Vec<u64> {
    let row = SYSCALLS.iter().find(|r| r.2[column as usize] == number);
    match row.map(|r| r.1) {
        Some(Verdict::NoNamespaces | Verdict::Personality | Verdict::Socket) => args().collect(),
        _ => vec![0, 38, u64::MAX],
    }
}

#[test]
fn every_number_of_every_architecture_gets_the_profiles_verdict() {
    let (x86, arm) = (compile(&X86), compile(&ARM));
    for (program, arch, column, base) in [
        (&x86, X86_64, Column::X86_64, 0),
        (&x86, X86_64, Column::X32, X32_BIT),
        (&x86, I386, Column::I386, 0),
        (&arm, 0xc000_00b7, Column::Aarch64, 0),
        (&arm, 0x4000_0028, Column::Arm, 0),
    ] {
        let numbers = (0..1200).chain(0xeffff..0xf0010).chain([0x3fff_ffff]);
        for number in numbers {
            for arg0 in args_for(column, number) {
                assert_eq!(
                    ours(program, arch, base + number, arg0),
                    expected(column, number, arg0),
                    "{column:?} {number} {arg0:#x}"
                );
            }
        }
    }
    assert_eq!(ours(&x86, 0xc000_00b7, 0, 0), KILL);
    assert_eq!(ours(&x86, X86_64, u32::MAX, 0), ENOSYS);
}

/// Docker's rules (and AF_XDP refused) as seccompiler's users would write them.
fn seccompilers() -> BpfProgram {
    let when = |op, value| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, op, value).unwrap();
        SeccompRule::new(vec![condition]).unwrap()
    };
    let between = |low, high| {
        let of = |op, value| SeccompCondition::new(0, SeccompCmpArgLen::Qword, op, value).unwrap();
        let both = vec![of(SeccompCmpOp::Gt, low), of(SeccompCmpOp::Lt, high)];
        SeccompRule::new(both).unwrap()
    };
    let mut rules = BTreeMap::new();
    for (_, verdict, numbers) in SYSCALLS {
        let number = numbers[Column::X86_64 as usize];
        let chain = match verdict {
            _ if number == NO => continue,
            Verdict::Allow => vec![],
            Verdict::Refuse | Verdict::Missing => continue,
            Verdict::NoNamespaces => vec![when(SeccompCmpOp::MaskedEq(0x7e02_0000), 0)],
            Verdict::Personality => PERSONALITIES
                .map(|p| when(SeccompCmpOp::Eq, p.into()))
                .into(),
            Verdict::Socket => vec![
                when(SeccompCmpOp::Lt, 38),
                when(SeccompCmpOp::Eq, 39),
                between(40, 44),
                when(SeccompCmpOp::Gt, 44),
            ],
        };
        rules.insert(number.into(), chain);
    }
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(1),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .unwrap()
    .try_into()
    .unwrap()
}

#[test]
fn seccompiler_agrees() {
    let (program, oracle) = (compile(&X86), seccompilers());
    let theirs = |number, arg0| {
        let at = |i: usize| {
            let ins = &oracle[i];
            (ins.code, ins.jt, ins.jf, ins.k)
        };
        run(at, X86_64, number, arg0).0
    };
    let last = 466;
    for number in 0..=last {
        for arg0 in args() {
            let ours = ours(&program, X86_64, number, arg0);
            let clone3 = number == 435;
            let truncated = number == 41 && arg0 >> 32 != 0;
            if clone3 {
                assert_eq!(ours, ENOSYS);
            } else if !truncated {
                assert_eq!(ours, theirs(number, arg0), "{number} {arg0:#x}");
            }
        }
    }
}

#[test]
fn the_search_is_short() {
    let program = compile(&X86);
    let steps: Vec<usize> = (0..470)
        .map(|number| {
            let at = |i: usize| {
                let ins = program.instructions()[i];
                (ins.code, ins.if_true, ins.if_false, ins.k)
            };
            run(at, X86_64, number, 0).1
        })
        .collect();
    let mean = steps.iter().sum::<usize>() / steps.len();
    assert!(mean <= 11, "{mean}");
    assert!(program.len < 400, "{}", program.len);
}

#[test]
fn the_numbers_are_the_kernels() {
    for (name, number) in [
        ("accept4", libc::SYS_accept4),
        ("chroot", libc::SYS_chroot),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("rseq", libc::SYS_rseq),
        ("socket", libc::SYS_socket),
        ("statx", libc::SYS_statx),
        ("write", libc::SYS_write),
    ] {
        let row = SYSCALLS.iter().find(|row| row.0 == name).unwrap();
        let column = if cfg!(target_arch = "aarch64") {
            Column::Aarch64
        } else {
            Column::X86_64
        };
        assert_eq!(libc::c_long::from(row.2[column as usize]), number, "{name}");
    }
    for refused in [
        "mount",
        "unshare",
        "keyctl",
        "bpf",
        "io_uring_setup",
        "reboot",
    ] {
        assert!(SYSCALLS.iter().all(|row| row.0 != refused));
    }
}

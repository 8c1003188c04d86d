//! Classic BPF as the kernel runs it (the instructions that are used here), to
//! try socket filters without a socket. Only in builds for tests and for the
//! fuzzer.

/// Whether a filter lets a frame through. A load from behind the frame's end
/// drops it.
pub fn passes(program: &[libc::sock_filter], frame: &[u8]) -> bool {
    run(program, frame).is_some_and(|length| length != 0)
}

fn run(program: &[libc::sock_filter], frame: &[u8]) -> Option<u32> {
    let load = |at: usize, size: usize| {
        let bytes = frame.get(at..at + size)?.iter();
        Some(bytes.fold(0, |n, byte| n << 8 | u32::from(*byte)))
    };
    let (mut pc, mut a, mut x) = (0, 0, 0);
    loop {
        let libc::sock_filter { code, jt, jf, k } = program[pc];
        let at = k as usize;
        let jump = |taken: bool| usize::from(if taken { jt } else { jf });
        pc += 1;
        match code {
            0x20 => a = load(at, 4)?,
            0x28 => a = load(at, 2)?,
            0x30 => a = load(at, 1)?,
            0x40 => a = load(x + at, 4)?,
            0x48 => a = load(x + at, 2)?,
            0xb1 => x = (load(at, 1)? as usize & 15) * 4,
            0x15 => pc += jump(a == k),
            0x45 => pc += jump(a & k != 0),
            0x06 => return Some(k),
            other => panic!("instruction {other:#x}"),
        }
    }
}

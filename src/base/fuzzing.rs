//! What the fuzz targets share (`docs/fuzzing.md`). Only in builds for tests
//! and for the fuzzer.

/// Input in parts, read from its beginning. Behind its end there are zeros.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to so many bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// A part behind its length (two bytes).
    pub fn part(&mut self) -> &'a [u8] {
        let length = self.short();
        self.take(length.into())
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Runs a target on each file of its corpus: what was once found stays found,
/// in `cargo test` too.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap();
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        // Shown when the target panics.
        eprintln!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

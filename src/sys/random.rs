//! Random bytes from getrandom(2).

use nix::errno::Errno;

use super::raw;
use crate::base::{Error, Result, Subject};

pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    let mut done = 0;
    while done < N {
        match raw::random(&mut out[done..]) {
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::sys("read random bytes", Subject::None, e)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        let (a, b): ([u8; 32], [u8; 32]) = (super::bytes().unwrap(), super::bytes().unwrap());
        assert_ne!(a, b);
    }
}

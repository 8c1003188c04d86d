//! Random bytes from getrandom(2).

use crate::base::Result;

pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    todo!()
}

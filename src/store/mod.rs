//! State on disk: folders, atomic replace, locks that die with their holder,
//! the undo journal.

pub mod dirs;
pub mod file;
pub mod journal;
pub mod lock;
pub mod roll;

pub use dirs::Dirs;
pub use journal::FileJournal;
pub use lock::{Held, Lock};
pub use roll::Roll;

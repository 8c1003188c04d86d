//! The undo journal as a file.

#[derive(Debug)]
pub struct FileJournal {}

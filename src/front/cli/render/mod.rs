//! From views to text: columns, templates, JSON, in Docker's layout. Pure; the
//! caller says what time it is and whether the reader is a terminal.

pub mod align;
pub mod containers;
pub mod doctor;
pub mod durations;
pub mod events;
pub mod explain;
pub mod format;
pub mod inspect;
pub mod machine;
pub mod networks;
pub mod ordered;
pub mod ports;
pub mod safe;
pub mod stats;
mod syntax;
pub mod template;

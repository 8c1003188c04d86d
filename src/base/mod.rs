//! Vocabulary of the whole program: validated names, addresses, errors and
//! undo steps. Pure values; nothing here touches the machine.

pub mod addr;
pub mod error;
pub mod family;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod id;
pub mod ifname;
pub mod undo;

pub use addr::{Cidr, HostPort, MacAddr, PortMap, Proto, fnv1a};
pub use error::{Cause, Error, Result, Subject};
pub use family::{Family, OfFamily, PerFamily};
pub use id::{ContainerId, ContainerName, NetworkId, NetworkName};
pub use ifname::IfName;
pub use undo::{Journal, Step};

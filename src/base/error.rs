//! The one error of the library: what was attempted, on what, and why it did
//! not work. The errno stays a number until a front prints it or chooses an
//! exit code, also when the error crosses from the supervisor to the command.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an operation was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    #[default]
    None,
    /// A network interface, by name.
    Link(String),
    Path(PathBuf),
    Container(String),
    Network(String),
    /// An IP, MAC or socket address, printed.
    Addr(String),
    /// Anything else, already printable.
    Text(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Path(p) => write!(f, "{}", p.display()),
            Self::Link(s)
            | Self::Container(s)
            | Self::Network(s)
            | Self::Addr(s)
            | Self::Text(s) => f.write_str(s),
        }
    }
}

impl From<&Path> for Subject {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&PathBuf> for Subject {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl From<&super::IfName> for Subject {
    fn from(name: &super::IfName) -> Self {
        Self::Link(name.to_string())
    }
}

impl From<&str> for Subject {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Subject {
    fn from(text: String) -> Self {
        match text.is_empty() {
            true => Self::None,
            false => Self::Text(text),
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A system call's errno.
    Errno(i32),
    /// The kernel's answer to a netlink request, with its extended ACK.
    Netlink {
        errno: i32,
        ext_ack: Option<String>,
        attr_offset: Option<u32>,
    },
    /// Bytes or text that do not have the shape they should.
    Parse(String),
    /// The user's input breaks a rule; the text is the whole message.
    Invalid(String),
    /// A named thing does not exist; the text is the whole message.
    NotFound(String),
    /// The request does not fit the present state; the text is the whole message.
    Conflict(String),
    /// State on disk or in another process is not what it must be.
    State(String),
    /// The container's program could not be run: 126 or 127 comes from here.
    /// The text is the whole message, in Docker's words.
    Exec { errno: i32, text: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// A verb phrase: "create link".
    pub op: Cow<'static, str>,
    pub subject: Subject,
    pub cause: Cause,
    /// What the user can do next.
    pub hint: Option<Cow<'static, str>>,
    /// What else went wrong while undoing.
    pub undo: Vec<Error>,
}

impl Error {
    pub fn new(op: &'static str, subject: impl Into<Subject>, cause: Cause) -> Self {
        Self {
            op: Cow::Borrowed(op),
            subject: subject.into(),
            cause,
            hint: None,
            undo: Vec::new(),
        }
    }

    /// A failed system call. Takes `nix::Error`, `io::Error` or a plain errno
    /// through [`IntoErrno`].
    pub fn sys(op: &'static str, subject: impl Into<Subject>, errno: impl IntoErrno) -> Self {
        Self::new(op, subject, Cause::Errno(errno.into_errno()))
    }

    pub fn parse(op: &'static str, subject: impl Into<Subject>, why: impl fmt::Display) -> Self {
        Self::new(op, subject, Cause::Parse(why.to_string()))
    }

    pub fn state(op: &'static str, subject: impl Into<Subject>, why: impl Into<String>) -> Self {
        Self::new(op, subject, Cause::State(why.into()))
    }

    fn message(cause: Cause) -> Self {
        Self::new("", Subject::None, cause)
    }

    /// Input that breaks a rule; `text` is the whole message (Docker's phrase
    /// where Docker has one).
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::message(Cause::Invalid(text.into()))
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self::message(Cause::NotFound(text.into()))
    }

    pub fn conflict(text: impl Into<String>) -> Self {
        Self::message(Cause::Conflict(text.into()))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what went wrong while undoing.
    #[must_use]
    pub fn with_undo(mut self, errors: Vec<Error>) -> Self {
        self.undo.extend(errors);
        self
    }

    /// The errno behind this error, if a kernel call failed.
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Errno(e) | Cause::Netlink { errno: e, .. } | Cause::Exec { errno: e, .. } => {
                Some(e)
            }
            _ => None,
        }
    }

    pub fn is_errno(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}

/// Turns the error types of the libraries below into a plain errno.
pub trait IntoErrno {
    fn into_errno(self) -> i32;
}

impl IntoErrno for i32 {
    fn into_errno(self) -> i32 {
        self
    }
}

impl IntoErrno for nix::Error {
    fn into_errno(self) -> i32 {
        self as i32
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

impl IntoErrno for &std::io::Error {
    fn into_errno(self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

/// The C library's text for an errno, in Go's spelling (lower case), which is
/// what Docker's users know.
pub fn errno_text(errno: i32) -> String {
    if errno == libc::EOPNOTSUPP {
        // Go's table has the kernel's meaning, not that of sockets.
        return "operation not supported".to_owned();
    }
    let text = nix::errno::Errno::from_raw(errno).desc();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // An acronym such as "I/O error" keeps its capitals.
        (Some(a), Some(b)) if b.is_lowercase() || b == ' ' => {
            a.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(e) => f.write_str(&errno_text(*e)),
            Self::Netlink {
                errno,
                ext_ack,
                attr_offset,
            } => {
                f.write_str(&errno_text(*errno))?;
                match (ext_ack, attr_offset) {
                    (Some(text), _) => write!(f, ": {text}"),
                    (None, Some(at)) => write!(f, " (attribute at byte {at})"),
                    (None, None) => Ok(()),
                }
            }
            Self::Parse(s)
            | Self::Invalid(s)
            | Self::NotFound(s)
            | Self::Conflict(s)
            | Self::State(s)
            | Self::Exec { text: s, .. } => f.write_str(s),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.op.is_empty() {
            f.write_str(&self.op)?;
            if self.subject != Subject::None {
                write!(f, " {}", self.subject)?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}", self.cause)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        for error in &self.undo {
            write!(f, "\nwhile undoing: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_op_subject_cause_and_hint() {
        let e = Error::sys("create link", Subject::Link("eth0".into()), libc::EBUSY)
            .hint("eth1 is a bridge port");
        assert_eq!(
            e.to_string(),
            "create link eth0: device or resource busy (eth1 is a bridge port)"
        );
        assert_eq!(e.errno(), Some(libc::EBUSY));
        assert_eq!(
            Error::not_found("network x not found").to_string(),
            "network x not found"
        );
        assert_eq!(errno_text(libc::EIO), "I/O error");
        assert_eq!(
            Error::sys("create socket", "", libc::EMFILE).to_string(),
            "create socket: too many open files"
        );
        assert_eq!(errno_text(libc::EOPNOTSUPP), "operation not supported");
    }

    #[test]
    fn crosses_a_process_border_with_its_errno() {
        let e = Error::new(
            "add route",
            "default",
            Cause::Netlink {
                errno: libc::ENETUNREACH,
                ext_ack: Some("Nexthop has invalid gateway".into()),
                attr_offset: None,
            },
        )
        .with_undo(vec![Error::sys("remove", Subject::None, libc::EPERM)]);
        let back: Error = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
        assert_eq!(back, e);
        assert!(
            e.to_string()
                .contains("network is unreachable: Nexthop has invalid gateway")
        );
    }
}

//! Images: the embedded tester and plain folders.

pub mod folder;
pub mod tester;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where a container's files and defaults come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What the user wrote: `tester`, or the folder of `--rootfs`.
    pub reference: String,
    /// 64 hex digits, stable for the same content (tester: of the binary).
    pub id: String,
    /// The read-only folder.
    pub lower: PathBuf,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub exposed: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub stop_signal: Option<String>,
}

impl Image {
    /// What to run: the image's own program, or the one the user gave. Docker's
    /// rule: `--entrypoint` clears the image's command as well, and arguments
    /// replace the command. Nothing at all is Docker's `no command specified`.
    pub fn argv(
        &self,
        entrypoint: Option<&str>,
        args: &[String],
    ) -> crate::base::Result<Vec<String>> {
        let mut argv = match entrypoint {
            None => self.entrypoint.clone(),
            Some("") => Vec::new(),
            Some(program) => vec![program.to_owned()],
        };
        if !args.is_empty() {
            argv.extend_from_slice(args);
        } else if entrypoint.is_none() {
            argv.extend_from_slice(&self.cmd);
        }
        if argv.is_empty() {
            return Err(crate::base::Error::invalid("no command specified"));
        }
        Ok(argv)
    }
}

/// SHA-256 in 64 hex digits.
fn hex_digest(hash: Sha256) -> String {
    use std::fmt::Write;
    hash.finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> Image {
        let own = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        Image {
            reference: "x".into(),
            id: String::new(),
            lower: PathBuf::new(),
            entrypoint: own(entrypoint),
            cmd: own(cmd),
            env: vec![],
            exposed: vec![],
            cwd: "/".into(),
            user: String::new(),
            stop_signal: None,
        }
    }

    #[test]
    fn argv_follows_dockers_rules() {
        let both = image(&["/e"], &["c1", "c2"]);
        let args = ["a".to_owned()];
        assert_eq!(both.argv(None, &[]).unwrap(), ["/e", "c1", "c2"]);
        assert_eq!(both.argv(None, &args).unwrap(), ["/e", "a"]);
        assert_eq!(both.argv(Some("/x"), &[]).unwrap(), ["/x"]);
        assert_eq!(both.argv(Some("/x"), &args).unwrap(), ["/x", "a"]);
        assert_eq!(both.argv(Some(""), &args).unwrap(), ["a"]);
        let none = image(&[], &[]);
        assert_eq!(
            none.argv(None, &[]).unwrap_err().to_string(),
            "no command specified"
        );
        assert!(both.argv(Some(""), &[]).is_err());
    }
}

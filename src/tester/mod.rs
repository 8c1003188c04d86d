//! The programs of the `tester` image: the web page, `ping` and `ip`. The
//! image's files are this same binary under these names.

pub mod hosts;
pub mod http;
pub mod interfaces;
pub mod ip;
pub mod ping;
mod resolver;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Runs the applet that `argv[0]`'s base name names, if it names one.
///
/// Called by another name (`exec -a`), a file of the tester image still does
/// not turn into the command line of dockless: `None` is for a binary that is
/// not called tester, ping or ip on disk either.
pub fn dispatch(argv: &[OsString]) -> Option<ExitCode> {
    let args = argv.get(1..).unwrap_or_default();
    if let Some(applet) = argv.first().and_then(|name| applet(name)) {
        return Some(applet(args));
    }
    let file = std::fs::read_link("/proc/self/exe").ok()?;
    applet(file.as_os_str())?;
    eprintln!("this is the tester image's program: run it as tester, ping or ip");
    Some(ExitCode::from(127))
}

type Applet = fn(&[OsString]) -> ExitCode;

fn applet(name: &OsStr) -> Option<Applet> {
    match Path::new(name).file_name()?.to_str()? {
        "tester" => Some(http::main),
        "ping" => Some(ping::main),
        "ip" => Some(ip::main),
        _ => None,
    }
}

/// Arguments as text; what is not text is shown with replacement characters
/// in the message that refuses it.
fn texts(args: &[OsString]) -> Vec<String> {
    args.iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_names_are_applets() {
        for yes in ["tester", "/bin/ping", "./ip", "ip"] {
            assert!(applet(OsStr::new(yes)).is_some(), "{yes}");
        }
        for no in ["dockless", "", "/", "..", "iping", "/bin/ping/.."] {
            assert!(applet(OsStr::new(no)).is_none(), "{no}");
        }
    }
}

//! `ip addr|link|route`, read through our own netlink.
pub fn main(_args: &[std::ffi::OsString]) -> std::process::ExitCode {
    todo!()
}

//! The web page and /json.
pub fn main(_args: &[std::ffi::OsString]) -> std::process::ExitCode {
    todo!()
}

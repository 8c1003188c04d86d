//! Commands on the machine and on dockless itself.

use clap::Parser;

use super::container::FORMAT_ONE;
use super::values;

/// `version` and `info`
#[derive(Debug, Parser)]
pub struct Show {
    #[arg(short, long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `events`
#[derive(Debug, Parser)]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = values::filter)]
    pub filter: Vec<(String, String)>,
    #[arg(long, value_name = "string", help = FORMAT_ONE)]
    pub format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `gc`, `hosts` and `demo`
#[derive(Debug, Parser)]
pub struct Plain {
    #[arg(hide = true)]
    pub names: Vec<String>,
}

/// `doctor`
#[derive(Debug, Parser)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Only look: send nothing on the link, and make no trial link on it
    #[arg(long)]
    pub no_probe: bool,
    #[arg(value_name = "PARENT")]
    pub names: Vec<String>,
}

/// The hidden `__complete`: the words before the one that is completed.
#[derive(Debug, Parser)]
pub struct Complete {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// `completion SHELL`, and the hidden `man [COMMAND]`
#[derive(Debug, Parser)]
pub struct Generate {
    #[arg(value_name = "SHELL")]
    pub names: Vec<String>,
}

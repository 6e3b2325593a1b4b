//! Flags of the verbs that print something about memstock itself: they need no engine and no privilege.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Flags of `memstock completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Shell to print the script for
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Flags of `memstock man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Print the page of this verb instead of memstock's
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    pub verb: Option<String>,

    /// Write all pages to files in this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

//! Writes the reference of the command line from its clap types: `make docs`, `make man`.

mod manual;
mod markdown;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser};
use fcvm::{cli::Cli, exit};

/// Write the reference of fcvm's command line.
#[derive(Debug, Parser)]
struct Args {
    /// File to write as Markdown
    #[arg(long, value_name = "FILE", required_unless_present = "man")]
    markdown: Option<PathBuf>,
    /// Directory for a man page of each command
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(file) = args.markdown {
        fs_err::write(file, markdown::reference(Cli::command(), &exit::CODES))?;
    }
    if let Some(directory) = args.man {
        fs_err::create_dir_all(&directory)?;
        manual::write(Cli::command(), &exit::CODES, &directory)?;
    }
    Ok(())
}

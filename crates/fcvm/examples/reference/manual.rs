//! Man pages, one of each command.

use std::{io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// Writes the pages of a command and of all below it into a directory.
///
/// # Errors
/// Where a file cannot be written.
pub(crate) fn write(command: Command, codes: &[(&str, &str)], directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(&command, None, codes, directory)
}

fn pages(command: &Command, above: Option<&str>, codes: &[(&str, &str)], directory: &Path) -> io::Result<()> {
    let page = Man::new(command.clone());
    let name = page.get_filename();
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut more = Roff::new();
    more.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in codes {
        more.control("TP", []);
        more.text([bold(*code)]);
        more.text([roman(meaning.replace('`', ""))]);
    }
    if let Some(above) = above {
        more.control("SH", ["SEE ALSO"]);
        more.text([bold(above), roman("(1)")]);
    }
    more.to_writer(&mut text)?;
    fs_err::write(directory.join(&name), text)?;
    let own = name.trim_end_matches(".1");
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| pages(below, Some(own), codes, directory))
}

//! The reference of the command line is what the program is.

#[path = "../crates/fcvm/examples/reference/manual.rs"]
mod manual;
#[path = "../crates/fcvm/examples/reference/markdown.rs"]
mod markdown;

use std::{fs, path::Path};

use clap::CommandFactory as _;
use fcvm::{cli::Cli, exit};

#[test]
fn the_markdown_reference_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let written = fs::read_to_string(file).unwrap_or_default();
    let now = markdown::reference(Cli::command(), &exit::CODES);
    let line = written.lines().zip(now.lines()).position(|(old, new)| old != new);
    let line = line.unwrap_or(written.lines().count().min(now.lines().count()));
    assert!(
        written == now,
        "docs/reference/cli.md is stale: run `make docs`. Line {}:\n- {}\n+ {}",
        line + 1,
        written.lines().nth(line).unwrap_or("(end)"),
        now.lines().nth(line).unwrap_or("(end)"),
    );
}

#[test]
fn every_command_has_a_section_and_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    manual::write(Cli::command(), &exit::CODES, directory.path()).unwrap();
    let text = markdown::reference(Cli::command(), &exit::CODES);
    for name in ["fcvm podman run", "fcvm exec", "fcvm image prune", "fcvm setup"] {
        assert!(text.contains(&format!("\n## {name}\n\n```text\n{name} ")), "{name}");
        let page = fs::read_to_string(directory.path().join(name.replace(' ', "-") + ".1")).unwrap();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
            assert!(page.contains(section), "{name}: {section}");
        }
    }
    assert!(text.contains("| `FCVM_DATA_DIR` | `--data-dir` |"));
    assert!(text.contains("| `-i, --interactive` | Forward standard input |"));
    assert!(text.contains("| `-m, --memory MEMORY` | Memory, with a unit: b, k, m or g. Default: `1g` |"));
}

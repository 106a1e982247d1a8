//! The `fcvm` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fcvm::commands::main()
}

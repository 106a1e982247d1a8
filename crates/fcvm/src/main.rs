//! The `fcvm` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    if fcvm::volume::is_server() {
        fcvm::volume::serve()
    } else if fcvm::network::is_maker() {
        fcvm::network::make()
    } else {
        fcvm::commands::main()
    }
}

//! `fcvm logs`.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::{
    cli::logs::Args,
    output::{Printer, RawOutput},
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::log::{Selection, Show, Source},
};

/// Runs `fcvm logs`.
///
/// # Errors
/// Where there is no such VM, or its log cannot be read or written.
pub fn run(args: Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = registry.find(&args.vm)?;
    let now = Timestamp::now();
    let show = Show {
        selection: Selection {
            tail: args.tail,
            since: args.since.map(|since| since.resolve(now)),
            until: args.until.map(|until| until.resolve(now)),
        },
        timestamps: args.timestamps,
        name: args.names.then(|| vm.name.to_string()),
    };
    let follow = (args.follow && vm.is_alive()).then_some(&vm);
    let mut write = |source, bytes: &[u8]| {
        let output = match source {
            Source::Stdout => RawOutput::Stdout,
            Source::Stderr => RawOutput::Stderr,
        };
        printer.raw(output, bytes)
    };
    show.show(&registry.directory(&vm.id), follow, &mut write)?;
    Ok(ExitCode::SUCCESS)
}

//! `fcvm events`.

use std::{io, os::fd::AsFd as _, process::ExitCode};

use jiff::Timestamp;

use crate::{
    cli::events::{Args, Filter},
    output::{Printer, RawOutput},
    state::{Follow, Registry, RuntimeDir, VmEvent},
    storage::DataDir,
};

/// Runs `fcvm events`.
///
/// # Errors
/// Where the log of events cannot be read, or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let now = Timestamp::now();
    let until = args.until.map(|until| until.resolve(now));
    let stdout = io::stdout();
    let follow = (!args.no_stream && until.is_none_or(|until| until > now))
        .then(|| Follow { until, reader: stdout.as_fd() });
    // With an end in the past, or without one to wait for, all that there is.
    let since = match (args.since, &follow) {
        (Some(since), _) => since.resolve(now),
        (None, Some(_)) => now,
        (None, None) => Timestamp::MIN,
    };
    let mut see = |event: VmEvent| {
        let wanted = event.time >= since && until.is_none_or(|until| event.time <= until);
        if !wanted || !passes(&event, &args.filter) {
            return Ok(true);
        }
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        printer.raw(RawOutput::Stdout, &line)
    };
    registry.events().read(follow, &mut see)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an event has one of the values of each key that is filtered by.
fn passes(event: &VmEvent, filters: &[Filter]) -> bool {
    let matches = |filter: &Filter| match filter {
        Filter::Event(kind) => event.event == *kind,
        Filter::Vm(vm) => {
            event.name.as_str() == vm || (!vm.is_empty() && event.id.as_str().starts_with(vm.as_str()))
        }
        Filter::Image(image) => event.image == *image,
    };
    let same_key = |a: &Filter, b: &Filter| std::mem::discriminant(a) == std::mem::discriminant(b);
    filters.iter().all(|filter| filters.iter().any(|other| same_key(filter, other) && matches(other)))
}

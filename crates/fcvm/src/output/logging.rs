//! Log lines on standard error.

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, prelude::*};

use crate::cli::LogFormat;

/// What is logged: level and targets from `RUST_LOG` (default `warn`).
fn filter() -> EnvFilter {
    EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy()
}

/// Starts logging in a child of another fcvm, which logs the lines as its own.
pub fn init_child_logging() {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
    tracing_subscriber::registry().with(filter()).with(lines).init();
}

/// Starts logging: level and targets from `RUST_LOG` (default `warn`).
pub fn init_logging(format: LogFormat) {
    let filter = filter();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(super::printer::colours_on_stderr()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

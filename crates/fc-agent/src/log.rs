//! The agent's log: to the host over the link; fatal errors to the console.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    process::ExitCode,
};

use fcvm_proto::{LogLevel, LogRecord, ToHost};
use rustix::termios::tcdrain;
use tokio::sync::mpsc;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

/// Sends log events to the host. A full queue drops lines rather than stop the guest.
pub(crate) fn init(outbox: mpsc::Sender<ToHost>) {
    tracing_subscriber::registry().with(ToTheHost { outbox }).init();
}

struct ToTheHost {
    outbox: mpsc::Sender<ToHost>,
}

impl<S: Subscriber> Layer<S> for ToTheHost {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG if event.metadata().target().starts_with("fc_agent") => LogLevel::Debug,
            _ => return,
        };
        let mut line = Line(String::new());
        event.record(&mut line);
        drop(self.outbox.try_send(ToHost::Log(LogRecord { level, message: line.0 })));
    }
}

/// `message field=value …`
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        let written = if field.name() == "message" {
            write!(self.0, "{space}{value:?}")
        } else {
            write!(self.0, "{space}{}={value:?}", field.name())
        };
        written.expect("writing to a String cannot fail");
    }
}

/// Writes a line to the console, the place for what cannot be said over the link.
pub(crate) fn console(line: &str) -> ExitCode {
    let written = writeln!(std::io::stderr(), "{line}");
    // The kernel's last words, which may be next, overtake what has not gone out. No terminal has nothing to wait for.
    tcdrain(rustix::stdio::stderr()).ok();
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

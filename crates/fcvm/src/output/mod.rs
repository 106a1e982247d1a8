//! Everything that reaches the terminal: results, notes, progress, logs.
//!
//! Standard output is data; all else goes to standard error through one
//! [`Printer`]. Text from a guest, an image or a file passes [`sanitize`].

mod live;
mod logging;
mod printer;
mod progress;
mod prompt;
mod table;
mod template;
mod terminal;

pub use live::Live;
pub use logging::{init_child_logging, init_logging};
pub use printer::{Printer, RawOutput, sanitize};
pub use progress::{Progress, Unit};
pub use prompt::{PromptError, ask, ask_secret};
pub use table::{ago, table};
pub use template::{Template, TemplateError};
pub use terminal::{RawMode, SavedTerminal, USUAL_SIZE, terminal_size};

//! `fcvm events`.

use std::str::FromStr;

use super::logs::Moment;
use crate::state::EventKind;

/// Show what happens to VMs, as JSON lines.
///
/// Each has `time`, `event`, `id`, `name` and `image`; `exited` has `exit_code` or `error`, `renamed` has
/// `old_name`. Without --since, only what happens from now on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// From a time on, or from 10s, 5m, 2h, ... ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<Moment>,
    /// Until a time; one in the past ends the command at once
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<Moment>,
    /// Only what has happened so far
    #[arg(long)]
    pub no_stream: bool,
    /// Only some: event=KIND, vm=NAME|ID, image=NAME; of one key any, of several all
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<Filter>,
}

/// Which events are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Of a kind.
    Event(EventKind),
    /// Of a VM, by its name or the beginning of its id.
    Vm(String),
    /// Of an image, as its user wrote it.
    Image(String),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "a filter is event=KIND, vm=NAME|ID or image=NAME".to_owned();
        let (key, value) = text.split_once('=').ok_or_else(unknown)?;
        match key {
            "event" => {
                EventKind::ALL.into_iter().find(|kind| kind.name() == value).map(Self::Event).ok_or_else(
                    || format!("there are these events: {}", EventKind::ALL.map(EventKind::name).join(", ")),
                )
            }
            "vm" | "container" | "name" => Ok(Self::Vm(value.to_owned())),
            "image" => Ok(Self::Image(value.to_owned())),
            _ => Err(unknown()),
        }
    }
}

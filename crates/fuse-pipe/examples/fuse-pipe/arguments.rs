//! The command line.

use std::{num::NonZero, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fuse_pipe::{Spin, client, passthrough};

/// Show a directory elsewhere, by FUSE over Unix sockets
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// What to show
    #[arg(required = true)]
    pub(crate) directory: Option<PathBuf>,
    /// Where to show it
    #[arg(required = true)]
    pub(crate) mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: Serving,
    #[command(flatten)]
    pub(crate) mount: Mounting,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a directory to all who connect to a socket
    Serve {
        /// What to serve
        directory: PathBuf,
        /// Where to listen: made here, and removed at the end
        socket: PathBuf,
        #[command(flatten)]
        serve: Serving,
        #[command(flatten)]
        waiting: Waiting,
        #[command(flatten)]
        access: Access,
    },
    /// Mount what a socket's server has
    Mount {
        /// Where the server listens
        socket: PathBuf,
        /// Where to mount
        mountpoint: PathBuf,
        #[command(flatten)]
        mount: Mounting,
        #[command(flatten)]
        waiting: Waiting,
        #[command(flatten)]
        access: Access,
    },
}

/// How a directory is served.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Serving {
    /// What the client may keep, and for how long
    #[arg(long, value_enum, default_value_t)]
    cache: Cache,
}

/// How it is mounted.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Mounting {
    /// Connections to the server, and pairs of threads
    #[arg(long, default_value = "2")]
    pub(crate) lanes: NonZero<u16>,
}

/// How either end waits.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// How long a thread looks for more before it sleeps, in microseconds [default: the library's]
    #[arg(long)]
    spin: Option<u64>,
}

impl Waiting {
    pub(crate) fn spin(self) -> Spin {
        match self.spin {
            None => Spin::default(),
            Some(0) => Spin::Never,
            Some(limit) => Spin::UpTo(Duration::from_micros(limit)),
        }
    }
}

/// Whether anything may be changed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Access {
    /// Let nobody change anything
    #[arg(long)]
    ro: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Cache {
    /// For a second: changes of the directory are seen by then
    #[default]
    Auto,
    /// For ever: nobody changes the directory
    Always,
    /// Nothing
    Never,
    /// For ever, and writes are held back: only the client changes the directory
    Exclusive,
}

impl Serving {
    pub(crate) fn options(self, access: Access) -> passthrough::Options {
        let cache = match self.cache {
            Cache::Auto => passthrough::Cache::Auto,
            Cache::Always => passthrough::Cache::Always,
            Cache::Never => passthrough::Cache::Never,
            Cache::Exclusive => passthrough::Cache::Exclusive,
        };
        let access = if access.ro { passthrough::Access::ReadOnly } else { passthrough::Access::ReadWrite };
        passthrough::Options { cache, access, ..Default::default() }
    }
}

impl Mounting {
    pub(crate) fn options(self, access: Access, waiting: Waiting) -> client::Options {
        let audience = if rustix::process::geteuid().is_root() {
            client::Audience::Everyone
        } else {
            client::Audience::Owner
        };
        let access = if access.ro { client::Access::ReadOnly } else { client::Access::ReadWrite };
        client::Options { audience, access, spin: waiting.spin(), ..client::Options::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }
}

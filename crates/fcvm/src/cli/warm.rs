//! Options for warm starts.

use std::{str::FromStr, time::Duration};

use clap::builder::FalseyValueParser;

use super::size;
use crate::{snapshot::Moment, warm::Limits};

/// Options of `fcvm podman run` for starting from a prepared VM.
#[derive(Debug, Clone, clap::Args)]
pub struct Warm {
    /// Boot, and prepare nothing for later runs
    #[arg(long, env = "FCVM_NO_SNAPSHOT", value_parser = FalseyValueParser::new())]
    pub no_snapshot: bool,
    /// Start from a VM that was prepared, but prepare none for later runs: `fcvm podman prepare` does
    #[arg(long, env = "FCVM_NO_PREPARE", value_parser = FalseyValueParser::new())]
    pub no_prepare: bool,
    /// What is prepared, and started from: a VM whose container is made, or one whose container is healthy
    #[arg(long, value_enum, default_value = "created", env = "FCVM_CACHE_AT", value_name = "MOMENT")]
    pub cache_at: Moment,
    /// How much all prepared VMs may take of the disk: those go first that were used least recently
    #[arg(long, default_value = "4g", env = "FCVM_CACHE_SIZE", value_name = "SIZE")]
    pub cache_size: CacheSize,
    /// When a prepared VM goes that is not used
    #[arg(long, default_value = "14days", env = "FCVM_CACHE_AGE", value_name = "AGE", value_parser = humantime::parse_duration)]
    pub cache_age: Duration,
}

impl Warm {
    /// How much there may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { bytes: Some(self.cache_size.0), age: Some(self.cache_age) }
    }
}

/// An amount of disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize(pub u64);

impl FromStr for CacheSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        size::parse(text).map(Self).ok_or("a size is a number and a unit: 500m, 4g")
    }
}

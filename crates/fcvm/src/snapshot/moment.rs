//! When a machine is saved for others to go on from.

use serde::{Deserialize, Serialize};

/// When a machine is what others are to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// Once the container is made: what it runs is another run's to say
    Created,
    /// Once the container is healthy: for runs of the very same container
    Healthy,
}

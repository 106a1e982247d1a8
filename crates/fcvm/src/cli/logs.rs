//! `fcvm logs`.

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;

/// Print what a container has written.
///
/// Its standard output goes to standard output, its standard error to standard error, as it
/// was written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of an id
    #[arg(value_name = "VM")]
    pub vm: String,
    /// Go on with what comes, until the VM ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines, so many
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Only what came since a time, or in the last 10s, 5m, 2h, ...
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<Moment>,
    /// Only what came until a time, or until 10s, 5m, 2h, ... ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<Moment>,
    /// With times
    #[arg(short, long)]
    pub timestamps: bool,
    /// With the VM's name
    #[arg(short, long)]
    pub names: bool,
}

/// A time: RFC 3339, a local date or date and time, seconds since 1970, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A point in time.
    At(Timestamp),
    /// Before now.
    Ago(Duration),
}

impl Moment {
    /// When that is, as seen at `now`.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = || text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let local = || {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
        };
        if let Some(time) = text.parse().ok().or_else(seconds).or_else(local) {
            return Ok(Self::At(time));
        }
        let duration = humantime::parse_duration(text);
        duration.map(Self::Ago).map_err(|_| "a time is 2026-11-21T17:09:39Z, 2026-11-21, 10s, 5m, 2h, ...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_so_long_ago() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, second) in [
            ("1970-01-12T13:46:41Z", 1_000_001),
            ("5", 5),
            ("10s", 999_990),
            ("1h30m", 994_600),
            ("2h", 992_800),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().resolve(now).as_second(), second, "{text}");
        }
        assert!(matches!("2026-11-21".parse(), Ok(Moment::At(_))));
        for bad in ["", "x", "yesterday", "10"] {
            assert!(matches!(bad.parse::<Moment>(), Err(_) | Ok(Moment::At(_))), "{bad}");
        }
    }
}

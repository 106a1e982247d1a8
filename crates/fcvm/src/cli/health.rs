//! Options of health checks.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use crate::health::HttpCheck;

/// What tells that a container is well.
#[derive(Debug, Clone, clap::Args)]
pub struct Health {
    /// Check by a command in the container: a text for its shell, a JSON array, or none [default: the image's]
    #[arg(long, value_name = "COMMAND", conflicts_with = "health_check")]
    pub health_cmd: Option<String>,
    /// Check by a request in the guest: http://localhost:PORT/PATH
    #[arg(long, value_name = "URL")]
    pub health_check: Option<HttpCheck>,
    /// Statuses of an answer that is well: 200, or 200-299 [default: 200-399]
    #[arg(long, value_name = "CODE[-CODE]", requires = "health_check")]
    pub health_check_status: Option<Statuses>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub health_interval: Option<Time>,
    /// How many checks must fail one after the other [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_retries: Option<u32>,
    /// How long failures do not count at first [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub health_start_period: Option<Time>,
    /// How long a check may take [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<Time>,
    /// No check, also where the image has one
    #[arg(long, conflicts_with_all = ["health_cmd", "health_check"])]
    pub no_healthcheck: bool,
}

/// A length of time with units: 500ms, 30s, 1m30s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
        parsed.map(Self).map_err(|_| "a time is a number with a unit: 500ms, 30s, 1m30s")
    }
}

/// Statuses of an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub RangeInclusive<u16>);

impl FromStr for Statuses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err("statuses are a number from 100 to 599, or two: 200-299"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_statuses_are_parsed() {
        assert_eq!("1m30s".parse(), Ok(Time(Duration::from_secs(90))));
        assert_eq!("0".parse(), Ok(Time(Duration::ZERO)));
        assert_eq!("204".parse(), Ok(Statuses(204..=204)));
        assert_eq!("200-299".parse(), Ok(Statuses(200..=299)));
        for bad in ["", "30", "-1s", "x"] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
        for bad in ["", "99", "600", "299-200", "200-", "a-b"] {
            assert!(bad.parse::<Statuses>().is_err(), "{bad}");
        }
    }
}

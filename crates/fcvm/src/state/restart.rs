//! Whether a container that has ended runs again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Podman's `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Where its status is not 0; so many times, without a number always.
    OnFailure(Option<u32>),
    /// However it ended, unless a user ended it.
    Always,
}

impl RestartPolicy {
    /// Whether a container runs again that ended with a failure or without one, after so many restarts.
    #[must_use]
    pub fn applies(self, failed: bool, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(limit) => failed && limit.is_none_or(|limit| restarts < limit),
            Self::Always => true,
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "no" || text.is_empty() => Ok(Self::No),
            // Nothing starts VMs when the host boots: the two are the same.
            None if text == "always" || text == "unless-stopped" => Ok(Self::Always),
            None if text == "on-failure" => Ok(Self::OnFailure(None)),
            Some(("on-failure", limit)) => match limit.parse() {
                Ok(limit) => Ok(Self::OnFailure(Some(limit))),
                Err(_) => Err("the number of restarts is a number: on-failure:3"),
            },
            _ => Err("a restart policy is no, on-failure[:N], always or unless-stopped"),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(limit)) => write!(f, "on-failure:{limit}"),
            Self::Always => f.write_str("always"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_podmans() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3))),
            ("always", RestartPolicy::Always),
        ] {
            assert_eq!(text.parse(), Ok(policy));
            assert_eq!(policy.to_string(), text);
        }
        assert_eq!("unless-stopped".parse(), Ok(RestartPolicy::Always));
        for bad in ["never", "always:3", "on-failure:", "on-failure:-1", "on-failure:x", "ALWAYS"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn failures_are_counted() {
        let (some, all) = (RestartPolicy::OnFailure(Some(2)), RestartPolicy::OnFailure(None));
        assert!(some.applies(true, 0) && some.applies(true, 1) && !some.applies(true, 2));
        assert!(!some.applies(false, 0) && all.applies(true, 1000) && !all.applies(false, 0));
        assert!(RestartPolicy::Always.applies(false, 1000) && !RestartPolicy::No.applies(true, 0));
    }
}

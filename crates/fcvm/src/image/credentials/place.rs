//! What the user logs in to.

use std::{fmt, str::FromStr};

use super::key;
use crate::image::name::{ImageName, NameError, check_registry};

/// A registry, or a namespace or repository of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    registry: String,
    repository: String,
}

impl Place {
    /// The registry, with its port where it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The namespace or repository; empty where all of the registry is meant.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }
}

impl FromStr for Place {
    type Err = NameError;

    /// `HOST[:PORT][/PATH]`; of a URL, only the host counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = if key::is_url(text) { key::of_url(text) } else { text.trim_end_matches('/') };
        let (registry, repository) = text.split_once('/').unwrap_or((text, ""));
        check_registry(registry)?;
        if !repository.is_empty() && repository.parse::<ImageName>()?.has_reference() {
            return Err(NameError::Characters);
        }
        Ok(Self { registry: key::registry(registry).to_owned(), repository: repository.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        if !self.repository.is_empty() {
            write!(f, "/{}", self.repository)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_an_optional_path() {
        for (text, expected) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry.example:5000/", "registry.example:5000"),
            ("https://registry.example/v2/x", "registry.example"),
            ("registry.example/team/app", "registry.example/team/app"),
            ("host", "host"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "/", "a b", "registry.example/app:tag", "registry.example/UP", "https://"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}

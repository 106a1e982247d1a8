//! `--egress`: where a guest may go.

use std::{fmt, net::IpAddr, str::FromStr};

use super::Prefix;

/// `--egress`: where a guest may begin a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Egress {
    /// Anywhere.
    #[default]
    Allow,
    /// Nowhere.
    Deny,
    /// There only.
    Only(Vec<Destination>),
}

/// One place to which a guest may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A network.
    Network(Prefix),
    /// What DNS says of a name, in lower case; with a leading `*.`, of all names below it.
    Name(String),
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            list => Ok(Self::Only(list.split(',').map(str::parse).collect::<Result<_, _>>()?)),
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destinations = match self {
            Self::Allow => return f.write_str("allow"),
            Self::Deny => return f.write_str("deny"),
            Self::Only(destinations) => destinations,
        };
        for (index, destination) in destinations.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{destination}")?;
        }
        Ok(())
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "allow" | "deny") {
            return Err(format!("`{text}` stands alone, not in a list"));
        }
        if text.contains('/') {
            return text.parse().map(Self::Network);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(Prefix::of(address, u8::MAX)));
        }
        dns_name(text).map(Self::Name).ok_or_else(|| {
            format!(
                "`{text}` is no destination: write 10.0.0.0/8, 192.0.2.1, example.com or *.example.com \
                 (names as DNS has them: xn--… for letters beyond ASCII)"
            )
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(prefix) => fmt::Display::fmt(prefix, f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A name of DNS in lower case and without a dot at its end, where the text is one. The first label may be `*`.
fn dns_name(text: &str) -> Option<String> {
    const LONGEST: usize = 253;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let below = name.strip_prefix("*.").unwrap_or(&name);
    // What ends in a number is an address that was mistyped.
    let numeric = below.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= LONGEST && !numeric && below.split('.').all(is_label)).then_some(name)
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn egress_is_a_word_or_a_list() {
        for (text, shown) in [
            ("allow", "allow"),
            ("deny", "deny"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1,2001:db8::1", "192.0.2.1/32,2001:db8::1/128"),
            ("Example.COM.,*.example.org,_x.localhost", "example.com,*.example.org,_x.localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<Egress>().unwrap().to_string(), shown, "{text}");
        }
        for (bad, why) in [
            ("", "`` is no"),
            ("example.com,", "`` is no"),
            ("allow,example.com", "stands alone"),
            ("10.0.0.1/8", "bits of a host"),
            ("1.2.3", "no destination"),
            ("10.0.0.256", "no destination"),
            ("bücher.example", "xn--"),
            ("*", "no destination"),
            ("*.", "no destination"),
            ("a.*.example", "no destination"),
            ("-a.example", "no destination"),
            ("a..b", "no destination"),
            ("http://example.com", "no network"),
            ("a b", "no destination"),
            (&"a.".repeat(200), "no destination"),
            (&"a".repeat(64), "no destination"),
        ] {
            let error = bad.parse::<Egress>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn hostile_lists_are_refused_or_mean_what_they_show(
            text in prop_oneof![any::<String>(), r"[a-zA-Z0-9_.*:/,-]{0,60}"]
        ) {
            if let Ok(egress) = text.parse::<Egress>() {
                prop_assert_eq!(egress.to_string().parse::<Egress>(), Ok(egress));
            }
        }
    }
}

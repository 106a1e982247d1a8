//! Names of images, as written and in full, and ids.
//!
//! The grammar is that of <https://github.com/distribution/reference>: a
//! registry is told from the first part of a path by its dot, its port, or by
//! being `localhost`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::hash::Digest;

const DOCKER_HUB: &str = "docker.io";
const LOCALHOST: &str = "localhost";
const LATEST: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// A name as the user wrote it: the registry and the tag may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name that says everything: `docker.io/library/alpine:latest`, or with
/// `@sha256:...` in place of the tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FullName {
    registry: String,
    repository: String,
    reference: Reference,
}

/// Which of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// The one that has the tag now.
    Tag(String),
    /// The one with that digest, of its manifest or of an index.
    Digest(Digest),
}

/// How a name without a registry is completed, as `registries.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortNames {
    /// Repositories for names: `fedora` is `registry.example/fedora`.
    pub aliases: BTreeMap<String, ImageName>,
    /// Registries that may have it, best first.
    pub search: Vec<String>,
}

impl Default for ShortNames {
    fn default() -> Self {
        Self { aliases: BTreeMap::new(), search: vec![DOCKER_HUB.into()] }
    }
}

/// The beginning of an image's id or digest, in lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is none.
    #[error("the name is empty")]
    Empty,
    /// Something in it is no letter, digit or separator.
    #[error("the name has characters that names cannot have")]
    Characters,
    /// Repositories are lowercase.
    #[error("the name has uppercase letters")]
    Uppercase,
    /// `//`, `a.-b`, `.a`.
    #[error("the name has a misplaced separator")]
    Separator,
    /// Longer than registries take.
    #[error("the name is longer than {MAX_REPOSITORY} characters")]
    Long,
    /// The registry's name or port.
    #[error("the registry is not a host name with an optional port")]
    Registry,
    /// What follows the colon.
    #[error("the tag is not 1 to {MAX_TAG} letters, digits, `_`, `.` and `-`")]
    Tag,
    /// What follows the `@`.
    #[error("the digest is not of the form sha256:<64 hex digits>")]
    Digest,
    /// Such a name would be taken for an id everywhere.
    #[error("the name is 64 hex digits, as ids are")]
    Id,
    /// Of a short name.
    #[error("an alias is for a name without registry, tag and digest, and another without tag and digest")]
    Alias,
    /// A full name was needed.
    #[error("the name lacks its registry or tag, or has a digest where one cannot be chosen")]
    Partial,
}

impl NameError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Uppercase => "write the name in lowercase; only tags may have uppercase letters".into(),
            Self::Digest => "`fcvm image ls --json` shows digests in full".into(),
            _ => "names look like `hello`, `nginx:alpine` or `quay.io/team/app:1.2`; \
                  paths like `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`"
                .into(),
        })
    }
}

impl ImageName {
    /// The digest, where one was written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The registry, where one was written.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Whether a tag or digest was written.
    #[must_use]
    pub fn has_reference(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }

    /// What it may mean, best first: a name without registry is a local image,
    /// then its alias or else one of the registries to be searched. Where it has both a tag and a
    /// digest, the digest counts.
    #[must_use]
    pub fn candidates(&self, short_names: &ShortNames) -> Vec<FullName> {
        let mut candidates = vec![self.at(LOCALHOST)];
        if self.registry.is_some() {
            return candidates;
        }
        match short_names.aliases.get(&self.repository) {
            Some(alias) => {
                let of_alias = alias.at(DOCKER_HUB);
                candidates.push(FullName { reference: self.reference(), ..of_alias });
            }
            None => candidates.extend(short_names.search.iter().map(|registry| self.at(registry))),
        }
        candidates
    }

    /// The full name; one without a registry is of the one given.
    #[must_use]
    pub fn at(&self, registry: &str) -> FullName {
        let registry = match self.registry.as_deref().unwrap_or(registry) {
            "index.docker.io" => DOCKER_HUB,
            registry => registry,
        };
        // Docker Hub keeps its official images there.
        let official = registry == DOCKER_HUB && !self.repository.contains('/');
        let prefix = if official { "library/" } else { "" };
        FullName {
            registry: registry.to_owned(),
            repository: format!("{prefix}{}", self.repository),
            reference: self.reference(),
        }
    }

    /// The name as Docker takes it.
    #[must_use]
    pub fn of_docker(&self) -> FullName {
        self.at(DOCKER_HUB)
    }

    fn reference(&self) -> Reference {
        match self.digest {
            Some(digest) => Reference::Digest(digest),
            None => Reference::Tag(self.tag.clone().unwrap_or_else(|| LATEST.into())),
        }
    }

    /// The name of an image made here: `hello` is `localhost/hello:latest`.
    ///
    /// # Errors
    /// Where it has a digest, which is not chosen but computed.
    pub fn local(&self) -> Result<FullName, NameError> {
        if self.digest.is_some() {
            return Err(NameError::Partial);
        }
        Ok(self.at(LOCALHOST))
    }

    /// The name in full, where registry and tag or digest were written.
    #[must_use]
    pub fn full(&self) -> Option<FullName> {
        let said = self.registry.is_some() && self.has_reference();
        said.then(|| self.at(LOCALHOST))
    }

    /// Where the name may also be the beginning of an id: that.
    #[must_use]
    pub fn as_id(&self) -> Option<IdPrefix> {
        let bare = self.registry.is_none() && self.tag.is_none() && self.digest.is_none();
        IdPrefix::parse(&self.repository).filter(|_| bare)
    }
}

impl FullName {
    /// The registry, with its port where it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which of the repository's images.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The name of one image of the repository, whatever tags it has.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { reference: Reference::Digest(digest), ..self.clone() }
    }

    /// Whether the image is of this machine alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.registry == LOCALHOST
    }

    /// Whether both are of one repository.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }
}

impl fmt::Display for Reference {
    /// With the separator before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl IdPrefix {
    /// 1 to 64 hex digits.
    fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// What can be nothing but an id: all digits of one, or `sha256:` and some.
    pub(super) fn parse_certain(text: &str) -> Option<Self> {
        match text.strip_prefix("sha256:") {
            Some(digits) => Self::parse(digits),
            None => Self::parse(text).filter(|id| id.0.len() == 64),
        }
    }

    /// All of a digest.
    #[must_use]
    pub fn of(digest: &Digest) -> Self {
        Self(digest.hex())
    }

    /// The hex digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whether the digest begins so.
    #[must_use]
    pub fn matches(&self, digest: &Digest) -> bool {
        digest.hex().starts_with(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| NameError::Digest)?)),
            None => (text, None),
        };
        // A colon before the last slash is a port's.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, path),
        };
        if let Some(registry) = registry {
            check_registry(registry)?;
        }
        check_repository(repository)?;
        if text == repository && IdPrefix::parse_certain(text).is_some() {
            return Err(NameError::Id);
        }
        Ok(Self {
            registry: registry.map(ToOwned::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(ToOwned::to_owned),
            digest,
        })
    }
}

fn is_registry(first: &str) -> bool {
    first == LOCALHOST || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// # Errors
/// Where it is not a host with an optional port.
pub(super) fn check_registry(registry: &str) -> Result<(), NameError> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= MAX_REPOSITORY && host.split('.').all(label),
    };
    let port_is_valid = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host_is_valid && port_is_valid { Ok(()) } else { Err(NameError::Registry) }
}

fn check_repository(repository: &str) -> Result<(), NameError> {
    if repository.is_empty() {
        return Err(NameError::Empty);
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(NameError::Long);
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NameError::Uppercase);
    }
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !repository.bytes().all(|byte| word(byte) || b"._-/".contains(&byte)) {
        return Err(NameError::Characters);
    }
    for part in repository.split('/') {
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|text| !text.is_empty());
        let allowed = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
        let edges = part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
        if !edges || !separators.into_iter().all(allowed) {
            return Err(NameError::Separator);
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), NameError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if valid { Ok(()) } else { Err(NameError::Tag) }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for FullName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ImageName>()?.full().ok_or(NameError::Partial)
    }
}

impl TryFrom<String> for FullName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FullName> for String {
    fn from(name: FullName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.reference)
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_mean_what_podman_takes_them_for() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digested = format!("alpine@{digest}");
        let both = format!("alpine:3@{digest}");
        for (text, first, last) in [
            ("hello", "localhost/hello:latest", "docker.io/library/hello:latest"),
            ("nginx:alpine", "localhost/nginx:alpine", "docker.io/library/nginx:alpine"),
            ("team/app", "localhost/team/app:latest", "docker.io/team/app:latest"),
            ("localhost/hello", "localhost/hello:latest", "localhost/hello:latest"),
            ("docker.io/alpine:3", "docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "docker.io/a/b:latest"),
            ("quay.io/a/b:V1.2-x", "quay.io/a/b:V1.2-x", "quay.io/a/b:V1.2-x"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            (&digested, &format!("localhost/{digested}"), &format!("docker.io/library/{digested}")),
            (&both, &format!("localhost/{digested}"), &format!("docker.io/library/{digested}")),
        ] {
            let name = text.parse::<ImageName>().unwrap();
            assert_eq!(name.to_string(), text);
            let candidates: Vec<_> =
                name.candidates(&ShortNames::default()).iter().map(ToString::to_string).collect();
            assert_eq!((candidates[0].as_str(), candidates[candidates.len() - 1].as_str()), (first, last));
        }
        assert_eq!(digested.parse::<ImageName>().unwrap().digest(), digest.parse().ok());
        let short_names = ShortNames {
            aliases: [("hello".to_owned(), "quay.io/a/hello".parse().unwrap())].into(),
            search: vec!["one.example".into(), "docker.io".into()],
        };
        for (text, expected) in [
            ("hello:2", &["localhost/hello:2", "quay.io/a/hello:2"][..]),
            ("x", &["localhost/x:latest", "one.example/x:latest", "docker.io/library/x:latest"]),
            ("h.io/hello", &["h.io/hello:latest"]),
        ] {
            let candidates = text.parse::<ImageName>().unwrap().candidates(&short_names);
            assert_eq!(candidates.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn what_registries_refuse_is_refused() {
        let long = "a".repeat(256);
        for (text, error) in [
            ("", NameError::Empty),
            ("quay.io/", NameError::Empty),
            ("aB", NameError::Uppercase),
            ("a b", NameError::Characters),
            ("é", NameError::Characters),
            ("a..b", NameError::Separator),
            ("a___b", NameError::Separator),
            ("-a", NameError::Separator),
            ("a/", NameError::Separator),
            ("a/../b", NameError::Separator),
            (long.as_str(), NameError::Long),
            ("a:", NameError::Tag),
            ("a:-x", NameError::Tag),
            ("a:x y", NameError::Tag),
            ("a@sha256:00", NameError::Digest),
            ("h.io:0/x", NameError::Registry),
            ("h.io:99999/x", NameError::Registry),
            ("-h.io/x", NameError::Registry),
        ] {
            assert_eq!(text.parse::<ImageName>(), Err(error), "{text}");
        }
        assert!("a--b__c/d.e".parse::<ImageName>().is_ok());
    }

    /// <https://github.com/distribution/reference/blob/main/reference_test.go> and what people mistype.
    #[test]
    fn odd_names_are_read_as_docker_reads_them() {
        let hex = "ab".repeat(32);
        let longest = "a/".repeat(127) + "a";
        let tag = "t".repeat(128);
        for (text, registry, repository) in [
            ("host.io:5000/x", Some("host.io:5000"), "x"),
            ("host:5000/x:tag", Some("host:5000"), "x"),
            ("host:5000", None, "host"),
            ("host.io", None, "host.io"),
            ("localhost", None, "localhost"),
            ("[2001:db8::1]/x", Some("[2001:db8::1]"), "x"),
            ("xn--n3h.com/my_image/x", Some("xn--n3h.com"), "my_image/x"),
            ("UPPER/x", Some("UPPER"), "x"),
            ("a/b.c", None, "a/b.c"),
            ("a.b/c/d/e", Some("a.b"), "c/d/e"),
            ("host/x-y--z", None, "host/x-y--z"),
            (&format!("docker.io/{hex}"), Some("docker.io"), &hex),
            (&hex[1..], None, &hex[1..]),
            (&longest, None, &longest),
            (&format!("a:{tag}"), None, "a"),
        ] {
            let name = text.parse::<ImageName>().unwrap();
            assert_eq!((name.registry(), name.repository.as_str()), (registry, repository), "{text}");
            assert_eq!(name.to_string(), text);
        }
        let digest = Digest::of(b"");
        let both = format!("host.io/x:tag@{digest}").parse::<ImageName>().unwrap();
        assert_eq!((both.tag.as_deref(), both.digest), (Some("tag"), Some(digest)));
        for (text, error) in [
            ("a:b:c", NameError::Tag),
            ("host.io:5000:x/a", NameError::Registry),
            ("host.io:/x", NameError::Registry),
            ("host.io:5000/", NameError::Empty),
            ("host..io/x", NameError::Registry),
            ("https://host.io/x", NameError::Registry),
            ("[::1/x", NameError::Registry),
            ("[fe80::1%eth0]/x", NameError::Registry),
            ("::1/x", NameError::Registry),
            ("/x", NameError::Separator),
            ("x/", NameError::Separator),
            ("host.io/x/", NameError::Separator),
            ("host.io//x", NameError::Separator),
            ("_catalog", NameError::Separator),
            ("host.io/_catalog", NameError::Separator),
            ("x_", NameError::Separator),
            ("x.", NameError::Separator),
            ("a._b", NameError::Separator),
            ("host.io/X", NameError::Uppercase),
            ("x@", NameError::Digest),
            ("x@tag", NameError::Digest),
            ("@sha256:00", NameError::Digest),
            (&format!("@{digest}"), NameError::Empty),
            (&format!("x@{digest}:tag"), NameError::Digest),
            (&format!("x@{}", digest.to_string().to_uppercase()), NameError::Digest),
            (&hex, NameError::Id),
            (&format!("a:{tag}t"), NameError::Tag),
            (&format!("{longest}/a"), NameError::Long),
            (&"x".repeat(1 << 20), NameError::Long),
            ("a\nb", NameError::Characters),
            ("a\0", NameError::Characters),
        ] {
            assert_eq!(text.parse::<ImageName>(), Err(error), "{}", &text[..text.len().min(99)]);
            assert!(error.hint().is_some());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_name_is_displayed_as_it_was_written(
            any in "\\PC{0,40}",
            near in "[aB0./:@_\\[\\]-]{0,20}",
        ) {
            for text in [any, near] {
                let Ok(name) = text.parse::<ImageName>() else { continue };
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn full_names_survive_json(
            registry in "([a-z]{1,5}\\.io|localhost|\\[::1\\])(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,5}(/[a-z]{1,3}(__|[._-])[a-z]{1,3}){0,2}",
            reference in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}|@sha256:[0-9a-f]{64})",
        ) {
            let text = format!("{registry}/{repository}{reference}");
            let name: FullName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<FullName>(&json).unwrap(), name);
        }
    }

    #[test]
    fn full_names_say_everything() {
        for text in ["hello", "hello:x", "quay.io/x", "../x:y"] {
            assert!(text.parse::<FullName>().is_err(), "{text}");
        }
        let name = "docker.io/library/a:b".parse::<FullName>().unwrap();
        assert_eq!((name.registry(), name.repository()), ("docker.io", "library/a"));
        assert_eq!(name.reference(), &Reference::Tag("b".into()));
    }

    #[test]
    fn hex_words_may_be_ids() {
        let id = |text: &str| text.parse::<ImageName>().unwrap().as_id();
        let digest = Digest::of(b"");
        assert!(id("e3b0").unwrap().matches(&digest));
        assert!(!id("e3b1").unwrap().matches(&digest));
        assert_eq!(id("hello"), None);
        assert_eq!(id("e3b0:latest"), None);
    }
}

//! What a user may write for an image.
//!
//! ```text
//! oci:DIR[:TAG]             an OCI layout in a directory
//! oci-archive:FILE[:TAG]    an OCI layout in a tar file
//! docker-archive:FILE[:REF] what `docker save` and `podman save` write
//! containers-storage:NAME   what this user's Podman has, by name or id
//! docker-daemon:NAME        what a Docker engine has, by name or id
//! hello, nginx:alpine, quay.io/a/b@sha256:...   a name, as Podman and Docker read it
//! sha256:HEX, 64 hex digits                     an image's id
//! ```
//! As in other tools the first colon ends a path, since tags may hold colons:
//! a path that contains one cannot be named. A bare hex word is a name first
//! and then the beginning of an id, as for Podman.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    str::FromStr,
};

use super::name::{IdPrefix, ImageName, NameError};

/// An image as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// An OCI layout in a directory.
    OciLayout {
        /// The directory; contains no colon.
        dir: PathBuf,
        /// The tag, where the layout holds several images.
        tag: Option<String>,
    },
    /// An OCI layout in a tar file.
    OciArchive {
        /// The file; contains no colon.
        file: PathBuf,
        /// The tag, where the archive holds several images.
        tag: Option<String>,
    },
    /// An archive as `docker save` writes it.
    DockerArchive {
        /// The file; contains no colon.
        file: PathBuf,
        /// The image, where the archive holds several.
        reference: Option<ImageName>,
    },
    /// In the storage of this user's Podman.
    ContainersStorage(EngineName),
    /// In a Docker engine.
    DockerDaemon(EngineName),
    /// A name, in the store or in a registry.
    Name(ImageName),
    /// An id or digest, or its beginning.
    Id(IdPrefix),
}

/// What an engine on this machine has an image by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineName {
    /// A name, read as the engine reads it.
    Name(ImageName),
    /// An id, or its beginning.
    Id(IdPrefix),
}

/// The text names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceError {
    /// `oci:` and nothing more.
    #[error("no path after `{transport}:`")]
    NoPath {
        /// The transport.
        transport: &'static str,
    },
    /// `oci:DIR:` and nothing more, or bytes that are no text.
    #[error("`{text}` has no valid tag after the path")]
    BadTag {
        /// All of it.
        text: String,
    },
    /// Other tools read this, fcvm does not.
    #[error("images cannot be read from `{transport}:`")]
    Transport {
        /// The transport.
        transport: &'static str,
    },
    /// It is no name either.
    #[error("invalid image name `{text}`")]
    Name {
        /// All of it.
        text: String,
        /// What is wrong.
        source: NameError,
    },
}

impl ReferenceError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPath { transport } => format!("write `{transport}:PATH` or `{transport}:PATH:TAG`"),
            Self::BadTag { .. } => "leave the last colon away where the path holds one image; \
                                    a path itself cannot contain a colon"
                .into(),
            Self::Transport { .. } => "copy the image first: `skopeo copy TRANSPORT:NAME oci-archive:FILE`, \
                 then run `oci-archive:FILE`"
                .into(),
            Self::Name { source, .. } => return source.hint(),
        })
    }
}

const OCI: &str = "oci";
const OCI_ARCHIVE: &str = "oci-archive";
const DOCKER_ARCHIVE: &str = "docker-archive";
const CONTAINERS_STORAGE: &str = "containers-storage";
const DOCKER_DAEMON: &str = "docker-daemon";
/// Transports of other tools. A tool that reads them does so before it thinks of names.
const FOREIGN: [&str; 3] = ["dir", "ostree", "sif"];

impl ImageRef {
    /// Reads what the user wrote; paths need not be UTF-8.
    ///
    /// # Errors
    /// Where it is neither a path with its transport, a name nor an id.
    pub fn parse(text: &OsStr) -> Result<Self, ReferenceError> {
        let lossy = || text.to_string_lossy().into_owned();
        let after = |transport| strip(text, transport);
        if let Some(rest) = after(OCI) {
            let (dir, tag) = path_and_tag(rest, OCI)?;
            return Ok(Self::OciLayout { dir, tag });
        }
        if let Some(rest) = after(OCI_ARCHIVE) {
            let (file, tag) = path_and_tag(rest, OCI_ARCHIVE)?;
            return Ok(Self::OciArchive { file, tag });
        }
        if let Some(rest) = after(DOCKER_ARCHIVE) {
            let (file, tag) = path_and_tag(rest, DOCKER_ARCHIVE)?;
            let reference = tag.map(|tag| parse_name(&tag)).transpose()?;
            return Ok(Self::DockerArchive { file, reference });
        }
        if let Some(rest) = after(CONTAINERS_STORAGE) {
            return engine_name(rest, &lossy()).map(Self::ContainersStorage);
        }
        if let Some(rest) = after(DOCKER_DAEMON) {
            return engine_name(rest, &lossy()).map(Self::DockerDaemon);
        }
        if let Some(transport) = FOREIGN.into_iter().find(|transport| after(transport).is_some()) {
            return Err(ReferenceError::Transport { transport });
        }
        let utf8 = text
            .to_str()
            .ok_or_else(|| ReferenceError::Name { text: lossy(), source: NameError::Characters })?;
        if let Some(id) = IdPrefix::parse_certain(utf8) {
            return Ok(Self::Id(id));
        }
        parse_name(utf8.strip_prefix("docker://").unwrap_or(utf8)).map(Self::Name)
    }

    /// The text it was parsed from, or one that means the same.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        let join = |transport: &str, path: &PathBuf, tag: Option<String>| {
            let mut text = OsString::from(transport);
            text.push(":");
            text.push(path);
            if let Some(tag) = tag {
                text.push(":");
                text.push(tag);
            }
            text
        };
        match self {
            Self::OciLayout { dir, tag } => join(OCI, dir, tag.clone()),
            Self::OciArchive { file, tag } => join(OCI_ARCHIVE, file, tag.clone()),
            Self::DockerArchive { file, reference } => {
                join(DOCKER_ARCHIVE, file, reference.as_ref().map(ToString::to_string))
            }
            Self::ContainersStorage(name) => format!("{CONTAINERS_STORAGE}:{name}").into(),
            Self::DockerDaemon(name) => format!("{DOCKER_DAEMON}:{name}").into(),
            Self::Name(name) => name.to_string().into(),
            Self::Id(id) => id.to_string().into(),
        }
    }
}

fn strip<'a>(text: &'a OsStr, transport: &str) -> Option<&'a OsStr> {
    text.as_bytes()
        .strip_prefix(transport.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":"))
        .map(OsStr::from_bytes)
}

fn engine_name(rest: &OsStr, text: &str) -> Result<EngineName, ReferenceError> {
    let failed = |source| ReferenceError::Name { text: text.to_owned(), source };
    let rest = rest.to_str().ok_or_else(|| failed(NameError::Characters))?;
    match IdPrefix::parse_certain(rest) {
        Some(id) => Ok(EngineName::Id(id)),
        None => rest.parse().map(EngineName::Name).map_err(failed),
    }
}

fn parse_name(text: &str) -> Result<ImageName, ReferenceError> {
    text.parse().map_err(|source| ReferenceError::Name { text: text.to_owned(), source })
}

fn path_and_tag(rest: &OsStr, transport: &'static str) -> Result<(PathBuf, Option<String>), ReferenceError> {
    let mut parts = rest.as_bytes().splitn(2, |&byte| byte == b':');
    let path = parts.next().unwrap_or_default();
    if path.is_empty() {
        return Err(ReferenceError::NoPath { transport });
    }
    let tag = match parts.next() {
        None => None,
        Some(tag) => match std::str::from_utf8(tag) {
            Ok(tag) if !tag.is_empty() && !tag.chars().any(char::is_control) => Some(tag.to_owned()),
            _ => {
                return Err(ReferenceError::BadTag {
                    text: format!("{transport}:{}", rest.to_string_lossy()),
                });
            }
        },
    };
    Ok((PathBuf::from(OsString::from_vec(path.to_vec())), tag))
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(OsStr::new(text))
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_os_string().to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ImageRef, ReferenceError> {
        text.parse()
    }

    #[test]
    fn transports_are_told_from_names() {
        let oci = |dir: &str, tag: Option<&str>| ImageRef::OciLayout {
            dir: dir.into(),
            tag: tag.map(ToOwned::to_owned),
        };
        assert_eq!(parse("oci:/a/b"), Ok(oci("/a/b", None)));
        assert_eq!(parse("oci:b:v1"), Ok(oci("b", Some("v1"))));
        assert_eq!(parse("oci:b:quay.io/x:v1"), Ok(oci("b", Some("quay.io/x:v1"))));
        assert_eq!(
            parse("oci-archive:x.tar:v"),
            Ok(ImageRef::OciArchive { file: "x.tar".into(), tag: Some("v".into()) })
        );
        assert_eq!(
            parse("docker-archive:x.tar:alpine:3"),
            Ok(ImageRef::DockerArchive {
                file: "x.tar".into(),
                reference: Some("alpine:3".parse().unwrap())
            })
        );
        assert_eq!(parse("docker://alpine"), parse("alpine"));
        let name = EngineName::Name("localhost/x".parse().unwrap());
        assert_eq!(parse("containers-storage:localhost/x"), Ok(ImageRef::ContainersStorage(name)));
        let Ok(ImageRef::DockerDaemon(EngineName::Id(id))) = parse("docker-daemon:sha256:00ff") else {
            panic!("an id");
        };
        assert_eq!(id.digits(), "00ff");
        assert!(matches!(parse("ocicle:b"), Ok(ImageRef::Name(_))));
        assert!(matches!(parse("sha256:00ff"), Ok(ImageRef::Id(_))));
        assert!(matches!(parse(&"ab".repeat(32)), Ok(ImageRef::Id(_))));
        assert!(matches!(parse("deadbeef1234"), Ok(ImageRef::Name(_))), "a name until none is found");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse("oci:"), Err(ReferenceError::NoPath { transport: "oci" }));
        assert_eq!(parse("oci-archive::v"), Err(ReferenceError::NoPath { transport: "oci-archive" }));
        assert!(matches!(parse("oci:b:"), Err(ReferenceError::BadTag { .. })));
        assert_eq!(parse("dir:x"), Err(ReferenceError::Transport { transport: "dir" }));
        for text in ["docker-daemon:", "containers-storage:UP", "containers-storage:[vfs@/a+/b]x"] {
            assert!(matches!(parse(text), Err(ReferenceError::Name { .. })), "{text}");
        }
        assert!(matches!(parse("docker-archive:x:UP"), Err(ReferenceError::Name { .. })));
        for text in ["", ":", "@", "Hello", "a//b", "a:b:c/d"] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, ReferenceError::Name { .. }), "{text}: {error:?}");
            assert!(error.hint().is_some(), "{text}");
        }
    }

    #[test]
    fn paths_need_not_be_text() {
        let text = OsStr::from_bytes(b"oci:/a\xff:v");
        let parsed = ImageRef::parse(text).unwrap();
        assert_eq!(parsed.to_os_string(), text);
        assert!(matches!(
            ImageRef::parse(OsStr::from_bytes(b"a\xff")),
            Err(ReferenceError::Name { source: NameError::Characters, .. })
        ));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_parses_round_trips(text in "\\PC{0,40}") {
            if let Ok(parsed) = parse(&text) {
                prop_assert_eq!(ImageRef::parse(&parsed.to_os_string()), Ok(parsed));
            }
        }

        #[test]
        fn valid_references_round_trip(
            text in "(oci|oci-archive):[a-z/.]{1,9}(:[a-z0-9./:-]{1,9})?\
                     |(containers-storage|docker-daemon):([a-z]{1,5}/)?[a-z]{1,5}(:[a-z]{1,3})?\
                     |docker-archive:[a-z/.]{1,9}(:[a-z]{1,5}/[a-z]{1,5}:[A-Za-z0-9]{1,5})?\
                     |([a-z]{1,5}\\.io(:[1-9][0-9]{1,3})?/)?[a-z0-9]{1,5}(/[a-z]{1,3}[._-][a-z]{1,3}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?(@sha256:[0-9a-f]{64})?"
        ) {
            let parsed = parse(&text).unwrap();
            prop_assert_eq!(parsed.to_string(), text.as_str());
            prop_assert_eq!(ImageRef::parse(&parsed.to_os_string()), Ok(parsed));
        }
    }
}

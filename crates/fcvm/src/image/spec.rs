//! The JSON of OCI and Docker images, as far as fcvm reads and writes it.
//!
//! Own types rather than those of `oci-spec`: what is read must be lenient
//! (Docker writes `null` for empty lists), and what is written must be the same
//! bytes every time, since its digest is the image's identity; hence maps in order.
//! Formats: <https://github.com/opencontainers/image-spec/tree/v1.1.1> and
//! <https://distribution.github.io/distribution/spec/manifest-v2-2/>.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize};

use crate::hash::Digest;

/// Manifests, indexes and configurations larger than this are refused.
pub const MAX_JSON: u64 = 4 << 20;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
const NONDISTRIBUTABLE_LAYERS: [&str; 3] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// What a registry may answer with where an image is asked for.
pub(super) const MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// What a descriptor points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of manifests.
    Index,
    /// An image.
    Manifest,
    /// The image's configuration.
    Config,
    /// A layer.
    Layer,
    /// Nothing that is part of a container image.
    Other,
}

impl Kind {
    /// By its media type.
    #[must_use]
    pub fn of(media_type: &str) -> Self {
        match media_type {
            OCI_INDEX | DOCKER_LIST => Self::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => Self::Manifest,
            OCI_CONFIG | DOCKER_CONFIG => Self::Config,
            OCI_LAYER | OCI_LAYER_GZIP | OCI_LAYER_ZSTD => Self::Layer,
            other if DOCKER_LAYERS.contains(&other) || NONDISTRIBUTABLE_LAYERS.contains(&other) => {
                Self::Layer
            }
            _ => Self::Other,
        }
    }
}

/// Names a blob by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For an image in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Remarks; the tag is among them.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What machine an image runs on, as Go names it: `linux/amd64`, `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The processor.
    #[serde(default)]
    pub architecture: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A list of images.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2, as ever.
    pub schema_version: u32,
    /// The images, or further indexes.
    #[serde(default, deserialize_with = "or_null")]
    pub manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2, as ever.
    pub schema_version: u32,
    /// May be missing in OCI manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "or_null")]
    pub layers: Vec<Descriptor>,
}

/// What is in an image and how it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Where it runs.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it runs.
    #[serde(default, deserialize_with = "or_null")]
    pub config: RunConfig,
    /// What is in it.
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How a container of an image runs where the user does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `USER[:GROUP]`.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `KEY=VALUE`.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What is run.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or what is run where there is no entrypoint.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Remarks.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `PORT[/PROTOCOL]` that it listens on.
    #[serde(default, with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Directories whose content is not the image's: each container has its own.
    #[serde(default, with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// What asks it to end, by name or number.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to tell that it is well. Docker's; OCI leaves it undefined, and some write it there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What runs commands that are one text. Docker's.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// A command that tells whether a container is well. Times are in nanoseconds; 0 is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`; or `CMD` and words; or `CMD-SHELL` and a text for the shell.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two of them.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count at first.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two of them in that time.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many must fail one after the other.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers once uncompressed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the layers' tar streams, lowest first.
    #[serde(default, deserialize_with = "or_null")]
    pub diff_ids: Vec<Digest>,
}

/// A step of an image's making.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it left the files as they were: there is no layer of it.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Platform {
    /// What this machine runs.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// How well a machine of the `wanted` kind runs it: the least is best, `None` is not at all.
    ///
    /// Without a variant, what needs the least of the machine goes first; with one, the closest
    /// that is not above it.
    pub(super) fn rank_for(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let said = |platform: &Self| platform.variant.clone().filter(|variant| !variant.is_empty());
        // 32-bit ARM has no plainest level that all run: as elsewhere, it means v7.
        let limit = said(wanted).or_else(|| (wanted.architecture == "arm").then(|| "v7".into()));
        let level = |variant: Option<String>| match variant {
            Some(variant) => variant.strip_prefix('v').and_then(|level| level.parse::<u32>().ok()),
            None => Some(match self.architecture.as_str() {
                "amd64" => 1,
                "arm" => 7,
                "arm64" => 8,
                _ => 0,
            }),
        };
        match (limit, level(said(self))) {
            (None, level) => Some(level.unwrap_or(u32::MAX)),
            (Some(limit), Some(own)) => level(Some(limit))?.checked_sub(own),
            (Some(limit), None) => (said(self) == Some(limit)).then_some(0),
        }
    }
}

/// The text is not `OS/ARCH[/VARIANT]`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform of the form OS/ARCH or OS/ARCH/VARIANT")]
pub struct ParsePlatformError {
    text: String,
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePlatformError { text: text.to_owned() };
        let parts: Vec<_> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(error());
        }
        Ok(Self {
            os: parts[0].into(),
            architecture: parts[1].into(),
            variant: parts.get(2).map(|&variant| variant.into()),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_deref().filter(|text| !text.is_empty()).map_or(Ok(()), |text| write!(f, "/{text}"))
    }
}

/// Docker writes `null` where it means nothing.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Sets, which both formats write as maps whose values say nothing.
mod keys {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serializer, de::IgnoredAny};

    /// `{}`
    #[derive(serde::Serialize)]
    struct Nothing {}

    pub(super) fn serialize<S: Serializer>(keys: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(keys.iter().map(|key| (key, Nothing {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(from)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_nothing() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":["A=b"],"Labels":null,
                "ExposedPorts":null,"Volumes":null,"StopSignal":null,"Healthcheck":null,"OnBuild":["RUN x"]},
                "rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        )
        .unwrap();
        assert_eq!(config.config, RunConfig { env: vec!["A=b".into()], ..Default::default() });
        assert_eq!(config.platform.to_string(), "linux/amd64");
        let bare = r#"{"config":null,"rootfs":{"type":"layers"}}"#;
        assert!(serde_json::from_str::<ImageConfig>(bare).is_ok());
    }

    #[test]
    fn all_of_a_configuration_is_read_and_written_again() {
        let text = r#"{"User":"1:2","WorkingDir":"/w","ExposedPorts":{"53/udp":{},"80/tcp":{}},"Volumes":{"/d":{}},"StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":30000000000,"Timeout":1,"StartPeriod":2,"StartInterval":3,"Retries":4},"Shell":["/bin/ash","-c"]}"#;
        let config: RunConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.healthcheck.as_ref().unwrap().interval, 30_000_000_000);
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        let sparse: RunConfig =
            serde_json::from_str(r#"{"Volumes":{"/d":null},"Healthcheck":{"Test":["NONE"],"Retries":null}}"#)
                .unwrap();
        assert!(sparse.volumes.contains("/d"));
        assert_eq!(sparse.healthcheck.unwrap().test, ["NONE"]);
        let history: History = serde_json::from_str(r#"{"empty_layer":true,"comment":"c"}"#).unwrap();
        assert!(history.empty_layer && history.comment.as_deref() == Some("c"));
    }

    #[test]
    fn platforms_are_parsed_and_ranked() {
        assert_eq!("linux/arm64/v8".parse::<Platform>().unwrap().to_string(), "linux/arm64/v8");
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert!(Platform::host().rank_for(&Platform::host()).is_some());
        let best = |wanted: &str, offered: &[&str]| {
            let wanted = wanted.parse::<Platform>().unwrap();
            let offered = offered.iter().map(|text| text.parse::<Platform>().unwrap());
            let ranked =
                offered.filter_map(|platform| platform.rank_for(&wanted).map(|rank| (rank, platform)));
            ranked.min_by_key(|(rank, _)| *rank).map(|(_, platform)| platform.to_string())
        };
        let arms = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        for (wanted, offered, expected) in [
            ("linux/arm", &arms[..], Some("linux/arm/v7")),
            ("linux/arm/v6", &arms, Some("linux/arm/v6")),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm/v7", &arms[..2], Some("linux/arm/v6")),
            ("linux/arm64", &arms, Some("linux/arm64/v8")),
            ("linux/arm64/v8", &["linux/arm64"], Some("linux/arm64")),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v2"], Some("linux/amd64/v2")),
            ("linux/amd64/v3", &["linux/amd64/v4", "linux/amd64/v2", "linux/amd64"], Some("linux/amd64/v2")),
            ("linux/amd64", &["windows/amd64", "linux/s390x"], None),
        ] {
            assert_eq!(best(wanted, offered).as_deref(), expected, "{wanted} of {offered:?}");
        }
        assert_eq!("windows/amd64".parse::<Platform>().unwrap().rank_for(&Platform::host()), None);
        assert_eq!("linux/s390x".parse::<Platform>().unwrap().rank_for(&Platform::host()), None);
    }
}

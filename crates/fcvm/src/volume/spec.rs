//! `--volume`, `--map` and `--mount`: from texts to what is meant. Nothing is looked for here.

use std::{path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::VolumeName;

/// One thing that the container shall have beside its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A directory or file of the host.
    Host {
        /// Which one.
        source: Source,
        /// Where the container has it: absolute.
        target: String,
        /// How.
        options: Options,
    },
    /// A volume that lives on the VM's own disk, and goes with it.
    Anonymous {
        /// Where the container has it: absolute.
        target: String,
        /// Options of Podman's.
        podman: Vec<String>,
    },
    /// A tmpfs.
    Tmpfs {
        /// Where the container has it: absolute.
        target: String,
        /// The whole text, which the guest's Podman understands.
        text: String,
    },
}

impl Mount {
    /// Where the container has it.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Host { target, .. } | Self::Anonymous { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// What of the host is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What is at a path, which may be relative to the working directory.
    Path(PathBuf),
    /// A named volume, made where it is not there.
    Named(VolumeName),
}

/// How the container has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// Whether nobody in the guest may change it.
    pub read_only: bool,
    /// What the guest may keep.
    pub cache: Cache,
    /// Whose files they are.
    pub ids: Ids,
    /// Whether the guest hears of changes by the host at once.
    pub unwatched: bool,
    /// Whether a named volume without anything in it stays so.
    pub no_copy: bool,
    /// Options of Podman's, for its mount in the container.
    pub podman: Vec<String>,
}

/// How long the guest keeps what it knows of names, attributes and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Cache {
    /// As long as it is true: changes of the host are seen.
    #[default]
    Auto,
    /// For ever: nobody changes it.
    Always,
    /// Not at all.
    None,
    /// For ever, and writes when it suits: only this guest writes.
    Exclusive,
}

/// How the guest's users and groups relate to the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ids {
    /// As root one to one; as an ordinary user by their ranges of subordinate ids where they have them,
    /// else squashed.
    #[default]
    Auto,
    /// One to one: takes root.
    Same,
    /// The guest's root is the user, the others are of the user's ranges.
    Ranges,
    /// Whatever belongs to the user belongs to this one in the guest, and the other way round.
    Squash {
        /// In the guest.
        uid: u32,
        /// In the guest.
        gid: u32,
    },
}

/// A value of `--volume` and `--map`: `[SOURCE:]TARGET[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec(pub Mount);

/// A value of `--mount`: `type=TYPE,KEY=VALUE,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec(pub Mount);

impl FromStr for VolumeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = text.split(':');
        let (first, second) = (fields.next().unwrap_or_default(), fields.next());
        let options = fields.next().unwrap_or_default();
        if fields.next().is_some() {
            return Err(
                "it has more than SOURCE:TARGET:OPTIONS; a path with a `:` in it cannot be given".into()
            );
        }
        let Some(second) = second else {
            return Ok(Self(Mount::Anonymous { target: target(first)?, podman: Vec::new() }));
        };
        let mut builder = Builder::default();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            builder.option(option)?;
        }
        Ok(Self(Mount::Host { source: source(first)?, target: target(second)?, options: builder.options()? }))
    }
}

impl FromStr for MountSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = || text.split(',').map(|field| field.split_once('=').unwrap_or((field, "")));
        let kind = fields().find(|(key, _)| *key == "type").map_or("volume", |(_, value)| value);
        let mut builder = Builder::default();
        let (mut from, mut to) = (None, None);
        for (key, value) in fields() {
            match key {
                "type" => {}
                "source" | "src" => from = Some(value),
                "target" | "destination" | "dst" => to = Some(value),
                // Podman's own in the guest.
                _ if kind == "tmpfs" => {}
                "readonly" | "ro" => builder.options.read_only = flag(key, value)?,
                "rw" => builder.options.read_only = !flag(key, value)?,
                "bind-propagation" => builder.option(value)?,
                "U" | "chown" if flag(key, value)? => builder.option("U")?,
                "U" | "chown" => {}
                _ if value.is_empty() => builder.option(key)?,
                _ => builder.option(&format!("{key}={value}"))?,
            }
        }
        let target = target(to.ok_or("it has no target: target=/PATH")?)?;
        let mount = match (kind, from) {
            ("tmpfs", None) => Mount::Tmpfs { target, text: text.into() },
            ("tmpfs", Some(_)) => return Err("a tmpfs has no source".into()),
            ("bind", Some(path)) if !path.is_empty() => {
                Mount::Host { source: Source::Path(path.into()), target, options: builder.options()? }
            }
            ("bind", _) => return Err("it has no source: source=PATH".into()),
            ("volume", Some(name)) => {
                Mount::Host { source: Source::Named(name.parse()?), target, options: builder.options()? }
            }
            ("volume", None) => Mount::Anonymous { target, podman: builder.options()?.podman },
            (other, _) => return Err(format!("there is no type `{other}`: bind, volume or tmpfs")),
        };
        Ok(Self(mount))
    }
}

/// As Podman tells them apart: a path begins with `/` or `.`.
fn source(text: &str) -> Result<Source, String> {
    if text.starts_with(['/', '.']) {
        Ok(Source::Path(text.into()))
    } else {
        Ok(Source::Named(
            text.parse().map_err(|error| format!("{error}; a path begins with `/` or `.`: `./{text}`"))?,
        ))
    }
}

fn target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is no absolute path in the container"));
    }
    if text.contains([':', '\0']) {
        return Err("a path in the container cannot have a `:` in it".into());
    }
    // Written in another way, it is the same place.
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(format!("`{text}` leads upwards"));
    }
    if parts.is_empty() {
        return Err("the container's root cannot be replaced".into());
    }
    Ok(format!("/{}", parts.join("/")))
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{key} is true or false")),
    }
}

/// Options as they come.
#[derive(Debug, Default)]
struct Builder {
    options: Options,
    uid: Option<u32>,
    gid: Option<u32>,
    squash: bool,
}

impl Builder {
    fn option(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match (key, value) {
            ("ro" | "readonly", "") => self.options.read_only = true,
            ("rw", "") => self.options.read_only = false,
            // Labels of SELinux, which the guest does not have.
            ("z" | "Z", "") | ("copy", "") => {}
            ("nocopy", "") => self.options.no_copy = true,
            (
                "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "U" | "O" | "bind" | "rbind"
                | "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared",
                "",
            ) => self.options.podman.push(key.into()),
            ("cache", "auto") => self.options.cache = Cache::Auto,
            ("cache", "always") => self.options.cache = Cache::Always,
            ("cache", "none" | "never") => self.options.cache = Cache::None,
            ("cache", "exclusive") => self.options.cache = Cache::Exclusive,
            ("cache", _) => {
                return Err(format!("there is no cache `{value}`: auto, always, none or exclusive"));
            }
            ("watch", "on") => self.options.unwatched = false,
            ("watch", "off") => self.options.unwatched = true,
            ("watch", _) => return Err("watch is on or off".into()),
            ("idmap", "auto") => self.options.ids = Ids::Auto,
            ("idmap", "same") => self.options.ids = Ids::Same,
            ("idmap", "ranges") => self.options.ids = Ids::Ranges,
            ("idmap", "squash") => self.squash = true,
            ("idmap", _) => return Err(format!("there is no idmap `{value}`: auto, same, ranges or squash")),
            ("uid", _) => self.uid = Some(id(key, value)?),
            ("gid", _) => self.gid = Some(id(key, value)?),
            _ => return Err(format!("there is no option `{text}`")),
        }
        Ok(())
    }

    fn options(self) -> Result<Options, String> {
        let Self { mut options, uid, gid, squash } = self;
        if squash {
            options.ids = Ids::Squash { uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) };
        } else if uid.is_some() || gid.is_some() {
            return Err("uid and gid say whom idmap=squash makes the owner".into());
        }
        Ok(options)
    }
}

fn id(key: &str, value: &str) -> Result<u32, String> {
    // The last number stands for none.
    value.parse().ok().filter(|id| *id < u32::MAX).ok_or_else(|| format!("{key} is a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(source: Source, target: &str, options: Options) -> Mount {
        Mount::Host { source, target: target.into(), options }
    }

    fn path(path: &str) -> Source {
        Source::Path(path.into())
    }

    #[test]
    fn a_volume_is_a_path_or_a_name_and_a_target() {
        let ro = || Options { read_only: true, ..Options::default() };
        for (text, mount) in [
            ("./site:/srv", host(path("./site"), "/srv", Options::default())),
            ("/a b:/srv//x/:ro", host(path("/a b"), "/srv/x", ro())),
            ("..:/srv:ro,z", host(path(".."), "/srv", ro())),
            ("data:/var/lib", host(Source::Named("data".parse().unwrap()), "/var/lib", Options::default())),
            ("/var/cache", Mount::Anonymous { target: "/var/cache".into(), podman: Vec::new() }),
        ] {
            assert_eq!(text.parse(), Ok(VolumeSpec(mount)), "{text}");
        }
        let VolumeSpec(Mount::Host { options, .. }) =
            "/a:/b:cache=always,nosuid,idmap=squash,uid=7,watch=off,nocopy".parse().unwrap()
        else {
            panic!("no map")
        };
        let expected = Options {
            cache: Cache::Always,
            ids: Ids::Squash { uid: 7, gid: 0 },
            unwatched: true,
            no_copy: true,
            podman: vec!["nosuid".into()],
            ..Options::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn what_is_wrong_with_a_volume_is_said() {
        for (text, why) in [
            ("", "absolute"),
            (":/a", "name"),
            ("/a:b", "absolute"),
            ("a b:/x", "`./a b`"),
            ("/a:/", "root"),
            ("/a:/x/../y", "upwards"),
            ("/a:/b:ro:z", "more than"),
            ("/a:/b:read-only", "`read-only`"),
            ("/a:/b:cache=some", "`some`"),
            ("/a:/b:idmap=me", "`me`"),
            ("/a:/b:uid=1", "squash"),
            ("/a:/b:idmap=squash,uid=4294967295", "number"),
        ] {
            let error = text.parse::<VolumeSpec>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_mount_has_a_type_and_keys() {
        let mut options = Options { read_only: true, ..Options::default() };
        options.podman = vec!["rslave".into(), "U".into()];
        for (text, mount) in [
            ("type=bind,src=/a,dst=/b", host(path("/a"), "/b", Options::default())),
            (
                "type=bind,source=a,target=/b,ro=true,bind-propagation=rslave,U=true",
                host(path("a"), "/b", options),
            ),
            (
                "source=data,destination=/b",
                host(Source::Named("data".parse().unwrap()), "/b", Options::default()),
            ),
            ("type=volume,target=/b", Mount::Anonymous { target: "/b".into(), podman: Vec::new() }),
            (
                "type=tmpfs,target=/b,tmpfs-size=1m",
                Mount::Tmpfs { target: "/b".into(), text: "type=tmpfs,target=/b,tmpfs-size=1m".into() },
            ),
        ] {
            assert_eq!(text.parse(), Ok(MountSpec(mount)), "{text}");
        }
        for (text, why) in [
            ("type=bind,src=/a", "target"),
            ("type=bind,dst=/a", "source"),
            ("type=nfs,src=/a,dst=/b", "`nfs`"),
            ("type=tmpfs,src=/a,dst=/b", "tmpfs"),
            ("type=bind,src=/a,dst=/b,ro=maybe", "ro"),
            ("type=bind,src=/a,dst=/b,size=1", "`size=1`"),
        ] {
            let error = text.parse::<MountSpec>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

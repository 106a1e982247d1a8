//! `fcvm image`.

use std::{
    error::Error as _,
    path::PathBuf,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::registry::{Access, Connection};
use crate::image::{Filter, ImageName, ImageRef, PullPolicy, SaveFormat, Tarball, Words, spec::Platform};

/// Subcommands of `fcvm image`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Df(Df),
    History(History),
    Import(Box<Import>),
    Inspect(Inspect),
    Load(Load),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    Pull(Pull),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Save(Save),
    Tag(Tag),
    Verify(Verify),
}

/// Make an image of a root file system's tarball.
///
/// The tarball may be plain or compressed with gzip, zstd or xz. The same
/// tarball and options make the same image; it is dated by SOURCE_DATE_EPOCH,
/// or 1970-01-01. Prints the image's id.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Name of the image: `hello` is `localhost/hello:latest`
    pub name: ImageName,
    /// The tarball, or `-` for standard input
    #[arg(value_parser = OsStringValueParser::new().map(tarball))]
    pub tarball: Tarball,
    /// What a container runs: a JSON array, or words as a shell splits them; given again, more words
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub cmd: Vec<Words>,
    /// What a container's command is given to: as for --cmd
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub entrypoint: Vec<Words>,
    /// An environment variable of containers
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<String>,
    /// Directory a container starts in
    #[arg(short, long, value_name = "DIR", value_parser = absolute)]
    pub workdir: Option<String>,
    /// User a container runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// A label of the image
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<String>,
    /// What machine the image is for [default: this one]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
}

/// List images.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Fetch images, and make their disks.
///
/// Names are fetched from their registries, whatever is stored: layers that are here already are not
/// fetched again, and what was interrupted is gone on with. Prints the images' ids.
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// Names of images, or where else they are: oci:DIR, oci-archive:FILE, docker-archive:FILE,
    /// containers-storage:NAME, docker-daemon:NAME
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// Whether a stored image is fetched again
    #[arg(long, value_enum, default_value_t = PullPolicy::Always, value_name = "WHEN")]
    pub policy: PullPolicy,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub access: Access,
}

/// Remove images.
///
/// By name, the name goes, and the image with its last name. By id, the image
/// goes. An image that a running VM or a snapshot needs stays.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// By id, remove all names; ignore images that are not there
    #[arg(short, long)]
    pub force: bool,
}

/// Show what the store takes of the disk.
///
/// What can be reclaimed is what `fcvm image prune --all` removes, and the cache.
#[derive(Debug, clap::Args)]
pub struct Df {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show each image
    #[arg(short, long)]
    pub verbose: bool,
}

/// Show how an image was made, the last step first.
///
/// Sizes are those of layers as they are stored, compressed or not.
#[derive(Debug, clap::Args)]
pub struct History {
    /// Name or id of an image
    #[arg(value_parser = OsStringValueParser::new().try_map(image))]
    pub image: ImageRef,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show all that is known of images, as JSON.
///
/// Fields are named as Podman names them; `Disk` and `Origin` are fcvm's own.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// Print a line for each, such as '{{.Id}} {{index .Config.Labels "name"}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// Load images from an archive or a layout, with their layers.
///
/// Takes OCI archives, docker archives and directories with an OCI layout, told
/// from what is in them; archives may be compressed. All images in it are
/// loaded, under the names it has for them.
#[derive(Debug, clap::Args)]
pub struct Load {
    /// File or directory to read [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    pub input: Option<PathBuf>,
}

/// Remove images without names, and layers that no image has.
///
/// An image that a running VM or a snapshot needs stays. Downloads that were interrupted go,
/// and are begun anew by the next pull.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Remove all images that nobody needs, with their names
    #[arg(short, long)]
    pub all: bool,
    /// Only images stored before (until=24h, until=2026-01-31T12:00:00Z) or with more or fewer
    /// bytes of files (size=1GB or size=>1GB, size=<1GB); all must hold
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<PruneFilter>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only show what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Save images to an archive, with their layers.
///
/// The same images give the same bytes. Podman, Docker and skopeo read them, as
/// does `fcvm image load`.
#[derive(Debug, clap::Args)]
pub struct Save {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// File or directory to write [default: standard output, where it is no terminal]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    pub format: SaveFormat,
}

/// Give an image more names.
///
/// A name that another image has is taken from it.
#[derive(Debug, clap::Args)]
pub struct Tag {
    /// Name or id of the image
    #[arg(value_parser = OsStringValueParser::new().try_map(image))]
    pub image: ImageRef,
    /// New names: `hello` is `localhost/hello:latest`
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<ImageName>,
}

/// Read again all that the store has, and compare it with its digests.
///
/// Disks are compared with those made anew from the image's layers, where the
/// store has them. Prints a line for each file that is not what it was; exits
/// with 1 where one is damaged and was not repaired.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Names or ids of images [default: all, and layers that no image has]
    #[arg(value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// Fetch damaged layers again where a registry has them, else remove them; make damaged disks
    /// anew where their layers are there
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// `until=TIME` or `size=SIZE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneFilter(pub Filter);

impl FromStr for PruneFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let filter = match text.split_once('=') {
            Some(("until", time)) => Filter::StoredBefore(moment(time).ok_or(
                "not a duration (90m, 24h, 7days), a time (2026-01-31T12:00:00Z), a date or seconds since 1970",
            )?),
            Some(("size", size)) => {
                let (smaller, size) = match (size.strip_prefix('<'), size.strip_prefix('>')) {
                    (Some(size), _) => (true, size),
                    (_, Some(size)) => (false, size),
                    _ => (false, size),
                };
                let size = size.trim().parse::<ByteSize>().map_err(|_| "not a size, such as 500MB or 2GiB")?;
                if smaller { Filter::Smaller(size.0) } else { Filter::Larger(size.0) }
            }
            _ => return Err("there are the filters until=TIME and size=[<>]SIZE"),
        };
        Ok(Self(filter))
    }
}

/// A time, or how long ago it was, in seconds since 1970.
pub(super) fn moment(text: &str) -> Option<u64> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        return Some(now.checked_sub(ago)?.as_secs());
    }
    let time = text.parse::<Timestamp>().ok();
    let date = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::system()).ok()?.timestamp());
    let seconds = || text.parse::<i64>().ok();
    let seconds = time.or_else(date).map(Timestamp::as_second).or_else(seconds)?;
    u64::try_from(seconds).ok()
}

/// Parses an image as the user writes it, for any command that takes one.
///
/// # Errors
/// As of [`ImageRef::parse`], with the cause, which clap does not print.
pub fn image(text: std::ffi::OsString) -> Result<ImageRef, String> {
    ImageRef::parse(&text).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn tarball(text: std::ffi::OsString) -> Tarball {
    if text == "-" { Tarball::Stdin } else { Tarball::File(text.into()) }
}

fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err("not of the form KEY=VALUE".into()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("not an absolute path".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_times_and_sizes() {
        let filter = |text: &str| text.parse::<PruneFilter>().map(|filter| filter.0);
        for (text, expected) in [
            ("size=1KB", Filter::Larger(1000)),
            ("size=>2KiB", Filter::Larger(2048)),
            ("size=<10", Filter::Smaller(10)),
            ("until=1970-01-02T00:00:00Z", Filter::StoredBefore(86400)),
            ("until=86400", Filter::StoredBefore(86400)),
        ] {
            assert_eq!(filter(text), Ok(expected), "{text}");
        }
        let Ok(Filter::StoredBefore(before)) = filter("until=24h") else { panic!("no time") };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((now - 86410..=now - 86400).contains(&before));
        for bad in ["", "until", "until=", "until=soon", "until=-5", "size=x", "size==1", "label=x"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}

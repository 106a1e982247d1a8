//! `fcvm image`.

use std::error::Error as _;

use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::registry::Access;
use crate::image::{ImageName, ImageRef, PullPolicy, Tarball, Words, spec::Platform};

/// Subcommands of `fcvm image`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Import(Box<Import>),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Pull(Pull),
    #[command(visible_alias = "remove")]
    Rm(Rm),
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
/// goes. An image that a running VM uses stays.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(image))]
    pub images: Vec<ImageRef>,
    /// By id, remove all names; ignore images that are not there
    #[arg(short, long)]
    pub force: bool,
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

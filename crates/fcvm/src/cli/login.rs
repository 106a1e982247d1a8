//! `fcvm login` and `fcvm logout`.

use std::path::PathBuf;

use crate::image::credentials::Place;

/// Log in to a registry.
///
/// The registry is asked whether it accepts the login, which is then kept where Podman keeps
/// it, or by the credential helper that is configured there. What is missing is asked for on
/// the terminal.
#[derive(Debug, clap::Args)]
pub struct Login {
    /// The registry, or a namespace or repository of it: HOST[:PORT][/PATH]
    #[arg(default_value = "docker.io")]
    pub registry: Place,
    /// The user
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// The password; others may see it in the list of processes
    #[arg(short, long, requires = "username", value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username", conflicts_with = "password")]
    pub password_stdin: bool,
    /// File to keep the login in [default: $REGISTRY_AUTH_FILE, else Podman's]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Whether the registry must have a valid certificate [default: as registries.conf says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Directory with certificates for the registry [default: certs.d/REGISTRY of containers]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Print the user who is logged in, and do nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub get_login: bool,
}

/// Log out of a registry.
#[derive(Debug, clap::Args)]
pub struct Logout {
    /// The registry, or a namespace or repository of it: HOST[:PORT][/PATH]
    #[arg(default_value = "docker.io", conflicts_with = "all")]
    pub registry: Place,
    /// Log out of all registries
    #[arg(short, long)]
    pub all: bool,
    /// File that the login is kept in [default: $REGISTRY_AUTH_FILE, else Podman's]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

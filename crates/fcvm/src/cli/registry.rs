//! How registries are asked: options of every command that may do it.

use std::path::PathBuf;

use crate::image::{
    registry::{self, TlsOptions},
    spec::Platform,
};

/// How registries are asked.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct Access {
    /// What machine the image is for, where there are several [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    #[command(flatten)]
    pub connection: Connection,
}

/// How registries are reached.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct Connection {
    /// Whether registries must have valid certificates [default: as registries.conf says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Directory with certificates for the registry [default: certs.d/REGISTRY of containers]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// File with logins [default: those of Podman and Docker]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

impl Access {
    /// What the domain takes.
    #[must_use]
    pub fn to_access(&self) -> registry::Access {
        registry::Access {
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            ..self.connection.to_access()
        }
    }
}

impl Connection {
    /// What the domain takes, for this machine.
    #[must_use]
    pub fn to_access(&self) -> registry::Access {
        registry::Access {
            tls: TlsOptions { verify: self.tls_verify, cert_dir: self.cert_dir.clone() },
            auth_file: self.authfile.clone(),
            ..registry::Access::default()
        }
    }
}

//! Exit codes and hints: how an error leaves the program.

use std::{error::Error, io};

use crate::{
    copy::CopyError,
    hypervisor::{HypervisorError, firecracker::api::ApiError},
    image::{
        ImageError, NameError, credentials::CredentialsError, registries::RegistriesError,
        registry::RegistryError,
    },
    network::NetworkError,
    output::{PromptError, TemplateError},
    setup::SetupError,
    snapshot::SnapshotError,
    state::StateError,
    storage::DataDirError,
    vm::{ExecError, VmError, control::ControlError},
    volume::VolumeError,
    warm::WarmError,
};

/// Codes and what they mean, for the reference.
pub const CODES: [(&str, &str); 7] = [
    ("0-255", "`fcvm podman run` and `fcvm exec`: the container's or the command's own"),
    ("125", "fcvm, or Podman in the guest, failed"),
    ("126", "the command is there and cannot be executed"),
    ("127", "there is no such command"),
    ("128+N", "signal N ended the container or the command, or interrupted fcvm"),
    ("2", "wrong usage: nothing was done"),
    (
        "1",
        "`fcvm setup --check`: something is missing; `fcvm image verify`, `fcvm snapshot verify`: something \
         is damaged",
    ),
];

/// Options that cannot be together.
const USAGE: u8 = 2;
/// What SIGKILL ended.
pub(crate) const KILLED: u8 = 128 + 9;
/// fcvm itself failed.
pub const FAILED: u8 = 125;
/// What Podman ends with where a container did not start.
pub const NOT_STARTED: std::ops::RangeInclusive<u8> = FAILED..=127;

/// The advice of the first error in the chain that has any.
#[must_use]
pub fn hint(error: &anyhow::Error) -> Option<String> {
    fn of<E: Error + Send + Sync + 'static>(
        cause: &(dyn Error + 'static),
        hint: fn(&E) -> Option<String>,
    ) -> Option<String> {
        cause.downcast_ref().and_then(hint)
    }
    error.chain().find_map(|cause| {
        // One line per error type of ours that gives advice.
        of(cause, DataDirError::hint)
            .or_else(|| of(cause, HypervisorError::hint))
            .or_else(|| of(cause, ApiError::hint))
            .or_else(|| of(cause, ExecError::hint))
            .or_else(|| of(cause, CopyError::hint))
            .or_else(|| of(cause, ImageError::hint))
            .or_else(|| of(cause, CredentialsError::hint))
            .or_else(|| of(cause, NameError::hint))
            .or_else(|| of(cause, NetworkError::hint))
            .or_else(|| of(cause, PromptError::hint))
            .or_else(|| of(cause, RegistriesError::hint))
            .or_else(|| of(cause, RegistryError::hint))
            .or_else(|| of(cause, SetupError::hint))
            .or_else(|| of(cause, SnapshotError::hint))
            .or_else(|| of(cause, StateError::hint))
            .or_else(|| of(cause, TemplateError::hint))
            .or_else(|| of(cause, VmError::hint))
            .or_else(|| of(cause, VolumeError::hint))
            .or_else(|| of(cause, WarmError::hint))
            .or_else(|| of(cause, ControlError::hint))
            .or_else(|| of(cause, denied))
    })
}

fn denied(error: &io::Error) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        format!(
            "user {user} may not do that; where it is the data directory of another, \
             name one of your own with --data-dir or FCVM_DATA_DIR"
        )
    })
}

/// The code that tells an error.
#[must_use]
pub fn code(error: &anyhow::Error) -> u8 {
    let code = |cause: &(dyn Error + 'static)| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(error), _) => ExecError::status(error),
        (_, Some(error)) => NetworkError::is_usage(error).then_some(USAGE),
        _ => None,
    };
    error.chain().find_map(code).unwrap_or(FAILED)
}

/// The code for a command that the user interrupted.
#[must_use]
pub fn interruption(error: &anyhow::Error) -> Option<u8> {
    const SIGINT: i32 = 2;
    error.chain().find_map(|cause| {
        let signal = match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
            (Some(VmError::Interrupted { signal }), _, _) => *signal,
            (_, Some(ExecError::Interrupted { signal }), _) => *signal,
            (_, _, Some(PromptError::Interrupted)) => SIGINT,
            _ => return None,
        };
        u8::try_from(128 + signal).ok()
    })
}

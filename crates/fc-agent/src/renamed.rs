//! What a container that starts again is called: what its guest is called by then.
//!
//! Podman keeps what the container was called when it was made, and in a clone that is another guest's name.
//! It lets a *hook* see, and change, what it has the OCI runtime make of a container: that hook is this
//! program, by another name and not as PID 1.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::guest::restored::CONTAINERS;

/// What this program is called as a hook.
const NAME: &str = "fc-agent-hook";
/// This program, of which the file system it came from is out of reach.
const PROGRAM: &str = "/proc/1/exe";
/// Where Podman finds hooks.
pub(crate) const HOOKS: &str = "/run/fcvm/hooks";

/// Whether this process is a hook.
pub(crate) fn is_this_process() -> bool {
    std::env::args_os().next().is_some_and(|name| name == OsStr::new(NAME))
}

/// Makes Podman's next containers be called what the guest is called.
///
/// # Errors
/// Where the hook cannot be written.
pub(crate) fn install() -> io::Result<()> {
    let hook = json!({
        "version": "1.0.0",
        "hook": { "path": PROGRAM, "args": [NAME] },
        "when": { "always": true },
        "stages": ["precreate"],
    });
    fs::create_dir_all(HOOKS)?;
    fs::write(Path::new(HOOKS).join("name.json"), hook.to_string())
}

/// The hook: an OCI configuration from standard input to standard output.
///
/// # Errors
/// Where it is none, or cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut configuration: Value = serde_json::from_reader(io::stdin().lock())
        .context("failed to read the container's configuration")?;
    let name = rustix::system::uname();
    let name = name.nodename().to_str().context("the guest's host name is no text")?;
    if let Some(file) = rename(&mut configuration, name) {
        fs::write(&file, format!("{name}\n"))
            .with_context(|| format!("failed to write `{}`", file.display()))?;
    }
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &configuration)?;
    Ok(stdout.flush()?)
}

/// Gives the container another name; where Podman has written the old one for it, the file.
fn rename(configuration: &mut Value, name: &str) -> Option<PathBuf> {
    // One that shares the guest's has none of its own.
    let old = configuration.get("hostname")?.as_str()?.to_owned();
    configuration["hostname"] = name.into();
    let environment = configuration.pointer_mut("/process/env").and_then(Value::as_array_mut);
    for variable in environment.into_iter().flatten() {
        if variable.as_str().and_then(|text| text.strip_prefix("HOSTNAME=")) == Some(&old) {
            *variable = format!("HOSTNAME={name}").into();
        }
    }
    let mut mounts = configuration["mounts"].as_array()?.iter();
    let mount = mounts.find(|mount| mount["destination"] == "/etc/hostname")?;
    // Another one is the user's.
    Some(PathBuf::from(mount["source"].as_str()?)).filter(|file| file.starts_with(CONTAINERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(hostname_file: &str) -> Value {
        json!({
            "hostname": "old",
            "process": { "args": ["sh"], "env": ["A=old", "HOSTNAME=old", "HOSTNAME=other"] },
            "mounts": [
                { "destination": "/proc", "source": "proc" },
                { "destination": "/etc/hostname", "source": hostname_file },
            ],
        })
    }

    #[test]
    fn a_container_is_called_what_its_guest_is_called() {
        let file = format!("{CONTAINERS}/id/userdata/hostname");
        let mut renamed = configuration(&file);
        assert_eq!(rename(&mut renamed, "new"), Some(file.into()));
        assert_eq!(renamed["hostname"], "new");
        assert_eq!(renamed["process"]["env"], json!(["A=old", "HOSTNAME=new", "HOSTNAME=other"]));
    }

    #[test]
    fn what_is_the_users_own_or_the_guests_stays() {
        let mut renamed = configuration("/srv/hostname");
        assert_eq!(rename(&mut renamed, "new"), None);
        assert_eq!(renamed["hostname"], "new");
        let mut shared = json!({ "process": { "env": ["HOSTNAME=old"] } });
        let before = shared.clone();
        assert_eq!(rename(&mut shared, "new"), None);
        assert_eq!(shared, before);
    }
}

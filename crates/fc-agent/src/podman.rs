//! Podman: its command lines, and what is not the container's own run.

use std::{
    ffi::OsStr,
    fs::{self, File},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use fcvm_proto::{Container, Volume};

use crate::{reaper::Reaper, renamed};

/// The program, part of the base disk.
pub(crate) const PROGRAM: &str = "/usr/bin/podman";
/// Where Podman finds the programs it starts.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Podman writes the process id of the container's first process.
pub(crate) const PID_FILE: &str = "/run/fcvm/container.pid";
/// Where Podman writes the container's id: on the disk that the container is on.
pub(crate) const ID_FILE: &str = fcvm_proto::CONTAINER_ID;

/// What Podman says when it is called; its end goes into the error.
const LOG: &str = "/run/fcvm/podman.log";
const LOG_END: usize = 2 << 10;

/// Podman with these arguments.
pub(crate) fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", PATH).env("HOME", "/root");
    command
}

/// Runs Podman with these arguments to its end.
///
/// # Errors
/// Where it fails, with what it said.
pub(crate) async fn call(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    reaper: &Reaper,
) -> anyhow::Result<()> {
    let log = File::create(LOG).context("failed to create a log")?;
    let mut command = command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let (_, ended) = reaper.spawn(&mut command).await.context("failed to start podman")?;
    let status = ended.await?;
    if !status.success() {
        let log = fs::read(LOG).unwrap_or_default();
        let end = &log[log.len().saturating_sub(LOG_END)..];
        bail!("{status}: {}", String::from_utf8_lossy(end).trim());
    }
    Ok(())
}

/// Makes the volumes that Podman is to fill: each is where one of the host's is mounted, so that what the
/// image has there is copied to the host, and the owner set, before the container starts.
///
/// # Errors
/// Where Podman does not make one.
pub(crate) async fn make_volumes(container: &Container, reaper: &Reaper) -> anyhow::Result<()> {
    for (name, number) in &container.filled_volumes {
        let device = format!("--opt=device={}", Volume::path((*number).into()));
        call(["volume", "create", "--opt=type=none", "--opt=o=bind", &device, name], reaper)
            .await
            .with_context(|| format!("failed to make volume `{name}`"))?;
    }
    Ok(())
}

/// Signals are the agent's to deliver. Podman would pass on that of its terminal's size, as well as the
/// size; where the container ends meanwhile, it fails, and may then wait for ever.
const SIG_PROXY: &str = "--sig-proxy=false";

/// Arguments of `podman run` for a container.
///
/// The container shares the VM's network and its streams are Podman's own
/// (`passthrough`): nothing copies the output, nothing can lose its end. Only a
/// terminal is the container's own, and Podman's is one beside it. It is not removed afterwards, as the whole disk goes. Podman would have an image's
/// health checks run by timers of systemd, which there is not. The OCI runtime is the usual one unless another is
/// given.
pub(crate) fn run_arguments(name: &str, container: &Container, runtime: Option<&str>) -> Vec<String> {
    let mut arguments: Vec<String> =
        runtime.map(|runtime| format!("--runtime={runtime}")).into_iter().collect();
    arguments
        .extend(["run", "--pull=never", "--network=host", "--no-healthcheck", SIG_PROXY].map(String::from));
    let mut option = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
    option("name", name);
    option("pidfile", PID_FILE);
    option("cidfile", ID_FILE);
    for (name, value) in &container.env {
        option("env", &format!("{name}={value}"));
    }
    for (name, value) in &container.labels {
        option("label", &format!("{name}={value}"));
    }
    for (name, values) in [
        ("tmpfs", &container.tmpfs),
        ("volume", &container.volumes),
        ("mount", &container.mounts),
        ("cap-add", &container.cap_add),
        ("cap-drop", &container.cap_drop),
        ("ulimit", &container.ulimits),
    ] {
        for value in values {
            option(name, value);
        }
    }
    for (name, value) in
        [("workdir", &container.workdir), ("user", &container.user), ("entrypoint", &container.entrypoint)]
    {
        if let Some(value) = value {
            option(name, value);
        }
    }
    match container.terminal {
        None => option("log-driver", "passthrough"),
        Some(_) => {
            // The host has the log, and the keys.
            option("log-driver", "none");
            option("detach-keys", "");
            option("tty", "true");
        }
    }
    for (name, given) in [
        ("privileged", container.privileged),
        ("read-only", container.read_only),
        ("interactive", container.interactive),
    ] {
        if given {
            option(name, "true");
        }
    }
    arguments.push(container.image.clone());
    arguments.extend(container.command.iter().cloned());
    arguments
}

/// Arguments of `podman start` for the container that [`run_arguments`] made, here or in the guest whose
/// disk this one's is a copy of.
pub(crate) fn start_arguments(id: &str, container: &Container, runtime: Option<&str>) -> Vec<String> {
    let mut arguments: Vec<String> =
        runtime.map(|runtime| format!("--runtime={runtime}")).into_iter().collect();
    arguments.push(format!("--hooks-dir={}", renamed::HOOKS));
    arguments.extend(["start", "--attach", SIG_PROXY].map(String::from));
    if container.terminal.is_some() {
        arguments.push("--detach-keys=".into());
    }
    if container.interactive {
        arguments.push("--interactive".into());
    }
    arguments.push(id.to_owned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_before_the_image_and_the_command_behind_it() {
        let container = Container {
            image: "abc".into(),
            command: vec!["sh".into(), "-c".into(), "--env=x".into()],
            env: vec![("A".into(), "b c".into())],
            entrypoint: Some(String::new()),
            cap_drop: vec!["all".into()],
            interactive: true,
            ..Container::default()
        };
        let arguments = run_arguments("web", &container, None);
        let image = arguments.iter().position(|argument| argument == "abc").unwrap();
        assert_eq!(arguments[image + 1..], ["sh", "-c", "--env=x"]);
        for expected in ["--name=web", "--env=A=b c", "--entrypoint=", "--cap-drop=all", "--interactive=true"]
        {
            assert!(arguments[..image].iter().any(|argument| argument == expected), "{expected}");
        }
        assert!(!arguments.iter().any(|argument| argument.starts_with("--privileged")));
        // Of Podman itself, and so before its command.
        assert_eq!(run_arguments("web", &container, Some("/r"))[..2], ["--runtime=/r", "run"]);
        let again = start_arguments("web", &container, Some("/r"));
        assert_eq!((&*again[0], &*again[2]), ("--runtime=/r", "start"));
    }
}

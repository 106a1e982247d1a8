//! Podman's command lines: pure.

use fcvm_proto::Container;

/// The program, part of the base disk.
pub(crate) const PROGRAM: &str = "/usr/bin/podman";
/// Where Podman finds the programs it starts.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Podman writes the process id of the container's first process.
pub(crate) const PID_FILE: &str = "/run/fcvm/container.pid";
/// Where Podman writes the container's id.
pub(crate) const ID_FILE: &str = "/run/fcvm/container.id";

/// Arguments of `podman run` for a container.
///
/// The container shares the VM's network and its streams are Podman's own
/// (`passthrough`): nothing copies the output, nothing can lose its end. Only a
/// terminal is the container's own, and Podman's is one beside it. It is not removed afterwards, as the whole disk goes. Podman would have an image's
/// health checks run by timers of systemd, which there is not.
pub(crate) fn run_arguments(name: &str, container: &Container) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["run", "--pull=never", "--network=host", "--no-healthcheck"].map(String::from).into();
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

/// Arguments of `podman start` for the container that [`run_arguments`] made.
pub(crate) fn start_arguments(name: &str, container: &Container) -> Vec<String> {
    let mut arguments: Vec<String> = ["start", "--attach", "--sig-proxy=false"].map(String::from).into();
    if container.terminal.is_some() {
        arguments.push("--detach-keys=".into());
    }
    if container.interactive {
        arguments.push("--interactive".into());
    }
    arguments.push(name.to_owned());
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
        let arguments = run_arguments("web", &container);
        let image = arguments.iter().position(|argument| argument == "abc").unwrap();
        assert_eq!(arguments[image + 1..], ["sh", "-c", "--env=x"]);
        for expected in ["--name=web", "--env=A=b c", "--entrypoint=", "--cap-drop=all", "--interactive=true"]
        {
            assert!(arguments[..image].iter().any(|argument| argument == expected), "{expected}");
        }
        assert!(!arguments.iter().any(|argument| argument.starts_with("--privileged")));
    }
}

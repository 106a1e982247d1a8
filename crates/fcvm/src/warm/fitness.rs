//! Which runs can go on from a prepared machine, and what of them need not be the same.

use fcvm_proto::{Container, Program};

use crate::{
    hypervisor::{DiskLimits, MachineOptions},
    image::StoredImage,
    output::USUAL_SIZE,
    snapshot::Moment,
    state::RestartPolicy,
    volume::Map,
};

/// What a container is made with that waits for its program: something, which is never run.
const PLACEHOLDER: &str = "fcvm";
/// For what Podman takes for systemd it makes another container.
const SYSTEMD: [&str; 3] = ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"];

/// What of a run decides whether it can be of a prepared machine.
#[derive(Debug, Clone, Copy)]
pub struct Fitness<'a> {
    /// When the machine is saved.
    pub moment: Moment,
    /// The machine.
    pub machine: &'a MachineOptions,
    /// Its disks.
    pub limits: DiskLimits,
    /// What it has of the host.
    pub maps: &'a [Map],
    /// Its container.
    pub container: &'a Container,
    /// Whether that runs again.
    pub restart: RestartPolicy,
}

/// Why a run has to boot, where it has to.
#[must_use]
pub fn unfit(run: &Fitness<'_>) -> Option<&'static str> {
    let Fitness { moment, machine, limits, maps, container, restart } = *run;
    let streams = container.interactive || container.terminal.is_some();
    let reasons = [
        ("volumes of the host are not in a snapshot", !maps.is_empty()),
        ("only a machine without options of its own is prepared", *machine != MachineOptions::default()),
        ("limits of disks are not in a snapshot", limits != DiskLimits::default()),
        // It is told its name in a file.
        ("a privileged container knows its own name", container.privileged),
        ("a container that runs has no other input", moment == Moment::Healthy && streams),
        (
            "a container that runs already is not to run again",
            moment == Moment::Healthy && restart != RestartPolicy::No,
        ),
    ];
    reasons.into_iter().find_map(|(reason, applies)| applies.then_some(reason))
}

/// What the container runs, as Podman makes it of what was asked and what the image says; nothing where only
/// Podman can know.
#[must_use]
pub fn program(container: &Container, image: &StoredImage) -> Option<Program> {
    let of_image = &image.config.config;
    let arguments = arguments(container, &of_image.entrypoint, &of_image.cmd)?;
    let Container { env, workdir, terminal, .. } = container;
    Some(Program { arguments, env: env.clone(), workdir: workdir.clone(), terminal: *terminal })
}

fn arguments(container: &Container, entrypoint: &[String], cmd: &[String]) -> Option<Vec<String>> {
    let (mut arguments, rest) = match container.entrypoint.as_deref() {
        None if container.command.is_empty() => (entrypoint.to_vec(), cmd),
        None => (entrypoint.to_vec(), &*container.command),
        Some("") => (Vec::new(), &*container.command),
        // A list, or what looks like one.
        Some(given) if given.trim().starts_with('[') || given.trim() != given => return None,
        Some(given) => (vec![given.to_owned()], &*container.command),
    };
    arguments.extend_from_slice(rest);
    let first = arguments.first()?;
    let is_systemd = SYSTEMD.contains(&first.as_str()) || first.rsplit('/').next() == Some("systemd");
    (!is_systemd).then_some(arguments)
}

/// The container that waits for its program: with nothing of what a run says last.
#[must_use]
pub fn prepared(container: &Container) -> Container {
    Container {
        command: vec![PLACEHOLDER.into()],
        entrypoint: Some(String::new()),
        env: Vec::new(),
        workdir: None,
        labels: Vec::new(),
        terminal: container.terminal.map(|_| USUAL_SIZE),
        ..container.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_program_is_what_podman_would_run() {
        let of = |entrypoint: Option<&str>, command: &[&str]| {
            let container = Container {
                entrypoint: entrypoint.map(str::to_owned),
                command: texts(command),
                ..Container::default()
            };
            arguments(&container, &texts(&["entry"]), &texts(&["cmd"]))
        };
        for (entrypoint, command, expected) in [
            (None, &[][..], Some(&["entry", "cmd"][..])),
            (None, &["a", "b"], Some(&["entry", "a", "b"])),
            // One that is given takes the image's command away.
            (Some("sh"), &[], Some(&["sh"])),
            (Some("sh"), &["-c"], Some(&["sh", "-c"])),
            (Some(""), &["a"], Some(&["a"])),
            (Some(""), &[], None),
            (Some(r#"["a"]"#), &[], None),
            (Some("/sbin/init"), &[], None),
            (Some("/usr/lib/systemd/systemd"), &["--user"], None),
            (Some("systemd-notify"), &[], Some(&["systemd-notify"])),
        ] {
            assert_eq!(of(entrypoint, command), expected.map(texts), "{entrypoint:?} {command:?}");
        }
    }

    #[test]
    fn what_a_prepared_machine_cannot_be_boots() {
        let usual = MachineOptions::default();
        let container = Container::default();
        let run = Fitness {
            moment: Moment::Created,
            machine: &usual,
            limits: DiskLimits::default(),
            maps: &[],
            container: &container,
            restart: RestartPolicy::No,
        };
        assert_eq!(unfit(&run), None);
        assert_eq!(unfit(&Fitness { restart: RestartPolicy::Always, ..run }), None);
        let huge = MachineOptions { balloon_mib: Some(1), ..MachineOptions::default() };
        assert!(unfit(&Fitness { machine: &huge, ..run }).is_some());
        let limits = DiskLimits { bytes: Some(1), operations: None };
        assert!(unfit(&Fitness { limits, ..run }).is_some());
        let privileged = Container { privileged: true, ..Container::default() };
        assert!(unfit(&Fitness { container: &privileged, ..run }).is_some());
        let interactive = Container { interactive: true, ..Container::default() };
        assert!(unfit(&Fitness { container: &interactive, ..run }).is_none());
        let healthy = Fitness { moment: Moment::Healthy, ..run };
        assert!(unfit(&healthy).is_none());
        assert!(unfit(&Fitness { container: &interactive, ..healthy }).is_some());
        assert!(unfit(&Fitness { restart: RestartPolicy::Always, ..healthy }).is_some());
    }

    #[test]
    fn what_a_run_says_last_is_not_in_what_was_prepared() {
        let container = |env: &str| Container {
            command: texts(&["a"]),
            env: vec![("A".into(), env.into())],
            workdir: Some("/".into()),
            labels: vec![("l".into(), String::new())],
            user: Some("web".into()),
            terminal: Some(fcvm_proto::TerminalSize { rows: 1, columns: 2 }),
            ..Container::default()
        };
        let made = prepared(&container("b"));
        assert_eq!(made, prepared(&container("c")));
        assert_eq!((made.user.as_deref(), made.terminal), (Some("web"), Some(USUAL_SIZE)));
        assert!(made.env.is_empty() && made.workdir.is_none() && made.labels.is_empty());
    }
}

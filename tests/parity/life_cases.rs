//! Commands on containers in the background, in the order of their lives.

use super::case::Case;

const RM: &str =
    "Podman tells which of several failed by 1 and 2; with fcvm 2 is wrong usage, and every failure 125";
const EXEC: &str = "125 is fcvm's code for all that fails before the command";

type Step = (&'static str, Case);

fn step(name: &'static str, options: &[&str], rest: &[&str]) -> Step {
    (name, Case::new(options, rest))
}

impl Change for Step {
    fn with(self, change: impl FnOnce(Case) -> Case) -> Self {
        (self.0, change(self.1))
    }
}

/// Changes the case of a step.
trait Change {
    fn with(self, change: impl FnOnce(Case) -> Case) -> Self;
}

/// Waits until a container's first process has made a file.
fn ready(name: &str) -> Step {
    step("exec", &[], &[name, "sh", "-c", "until test -e /ready; do sleep 0.1; done"])
}

const FIELDS: &str = "{{.Name}} {{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.Paused}} \
     {{.State.Dead}} {{.State.Error}}|{{.Config.Labels}} {{index .Config.Labels \"a\"}} \
     {{index .Config.Labels \"none\"}}|{{json .Config.Labels}} {{.Config.Image}} {{.ImageName}} \
     {{.Config.Cmd}} {{json .Config.Cmd}} {{.HostConfig.AutoRemove}} {{json .State.Running}}";

pub(crate) fn all() -> Vec<Step> {
    [first(), stopped(), unknown()].concat()
}

fn first() -> Vec<Step> {
    let script = "trap 'echo bye; exit 3' HUP; echo out 1; echo error >&2; sleep 1; echo out 2; echo out 3; touch /ready; while :; do sleep 0.1; done";
    vec![
        step(
            "run",
            &["-d", "--name=web", "--label=a=b", "--label=c="],
            &["localhost/idle:latest", "sh", "-c", script],
        )
        .with(Case::id),
        ready("web"),
        step("run", &["-d", "--name=web"], &["idle", "true"]).with(|case| case.says(&["web"])),
        step("inspect", &["--format", FIELDS], &["web"]),
        step("inspect", &["--format", "{{.Nosuch}}"], &["web"])
            .with(|case| case.any_output().says(&["Nosuch"])),
        step("inspect", &["--format", "{{.State"], &["web"]).with(|case| case.any_output().says(&["{"])),
        step("logs", &[], &["web"]),
        step("logs", &["--tail=1"], &["web"]),
        step("logs", &["--tail=0"], &["web"]),
        step("logs", &["--since=1h"], &["web"]),
        step("logs", &["--until=1h"], &["web"])
            .with(|case| case.unlike("for Podman that is in an hour, for Docker and fcvm an hour ago")),
        step("logs", &["-t"], &["web"]).with(Case::times),
        step("rm", &[], &["web"]).with(|case| case.says(&[]).differs(2, 125, RM)),
        step("kill", &["-s", "NOSUCH"], &["web"])
            .with(|case| case.says(&["NOSUCH"]).differs(125, 2, "2 is wrong usage")),
        step("port", &[], &["web"]),
        step("kill", &["-s", "HUP"], &["web"]),
        step("wait", &[], &["web"]),
        step(
            "inspect",
            &["-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}} {{.State.Running}}"],
            &["web"],
        ),
        step("logs", &[], &["web"]),
        step("logs", &["--tail", "2", "-t"], &["web"]).with(Case::times),
        step("stop", &[], &["web"]),
        step("kill", &[], &["web"]).with(|case| case.says(&[])),
        step("exec", &[], &["web", "true"]).with(|case| case.says(&[]).differs(255, 125, EXEC)),
        step("wait", &[], &["web", "web"]),
        step("rm", &[], &["web"]),
    ]
}

fn stopped() -> Vec<Step> {
    let gentle = "trap 'exit 5' TERM; touch /ready; while :; do sleep 0.1; done";
    let stubborn = "trap : TERM; touch /ready; while :; do sleep 0.1; done";
    vec![
        step("run", &["-d", "--name=gentle"], &["idle", "sh", "-c", gentle]).with(Case::id),
        step("run", &["-d", "--name=stubborn"], &["idle", "sh", "-c", stubborn]).with(Case::id),
        ready("gentle"),
        ready("stubborn"),
        step("stop", &[], &["gentle"]),
        step("wait", &[], &["gentle"]),
        // That it did not do what it was asked is Podman's to tell.
        step("stop", &["-t", "1"], &["stubborn"]).with(|case| case.says(&[])),
        step("wait", &[], &["stubborn", "gentle"]),
        step("rm", &["-f"], &["stubborn"]),
        step("run", &["-d", "--rm", "--name=gone"], &["idle", "sleep", "1000"]).with(Case::id),
        step("kill", &[], &["gone", "gentle"]).with(|case| case.says(&[])),
        step("rm", &[], &["gentle"]),
    ]
}

fn unknown() -> Vec<Step> {
    let mut steps: Vec<_> = ["stop", "kill", "wait", "logs", "port"]
        .map(|name| step(name, &[], &["nosuch"]).with(|case| case.says(&["nosuch"])))
        .into();
    steps.extend([
        step("rm", &[], &["nosuch"]).with(|case| case.says(&["nosuch"]).differs(1, 125, RM)),
        step("rm", &["-f"], &["nosuch"]).with(|case| case.any_output().says(&[])),
        step("inspect", &[], &["nosuch"]).with(|case| case.says(&["nosuch"])),
        step("stop", &[], &[]).with(|case| case.says(&[]).differs(125, 2, "2 is wrong usage")),
    ]);
    steps
}

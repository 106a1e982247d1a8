//! `exec`, all in one container named `vm`.

use fcvm_testkit::noise;

use super::case::Case;

const OWN_FAILURE: &str =
    "125 is fcvm's code for all that fails before the command; Podman's manual says so too";

fn case(options: &[&str], command: &[&str]) -> Case {
    Case::new(options, &[&["vm"], command].concat())
}

fn shell(options: &[&str], script: &str) -> Case {
    case(options, &["sh", "-c", script])
}

pub(crate) fn all() -> Vec<Case> {
    [codes(), environment(), users_and_directories(), privileges(), streams()].concat()
}

fn codes() -> Vec<Case> {
    let codes = [0, 1, 2, 3, 64, 100, 124, 125, 126, 127, 128, 129, 130, 137, 143, 254, 255];
    let mut cases: Vec<_> = codes.iter().map(|code| shell(&[], &format!("exit {code}"))).collect();
    let signals = ["HUP", "INT", "KILL", "USR1", "SEGV", "PIPE", "TERM", "ABRT"];
    cases.extend(signals.map(|signal| shell(&[], &format!("echo {signal}; kill -{signal} $$"))));
    cases.extend([
        case(&[], &["nosuch"]).says(&["nosuch"]),
        case(&[], &["/nosuch/x"]).says(&["/nosuch/x"]),
        case(&[], &["/plain"]).says(&["/plain"]),
        case(&[], &["/etc"]).says(&["/etc"]),
        case(&[], &["/no-format"]).says(&["format error"]).differs(1, 126, "it is there and cannot be run"),
        case(&[], &["/no-interpreter"]).says(&["o such file"]).differs(
            1,
            127,
            "as where the program is missing",
        ),
        case(&[], &[""]).says(&[]),
        case(&[], &[]).says(&["command"]).differs(255, 125, OWN_FAILURE),
        Case::new(&[], &["nosuch", "true"]).says(&["nosuch"]),
        Case::new(&["--nosuch"], &["vm", "true"]).says(&["--nosuch"]).differs(125, 2, "2 is wrong usage"),
        // The command's own words, however they look.
        case(&[], &["echo", "--", "-x", "--vm", "a  b"]),
    ]);
    cases
}

fn environment() -> Vec<Case> {
    let many =
        ["-e", "GIVEN=by exec", "-e", "A=1", "-e", "A=2", "-e", "EMPTY=", "-e", "HOST_A", "-e", "NOPE"];
    vec![
        case(&[], &["env"]).lines(),
        case(&many, &["env"]).lines(),
        case(&["-e", "PRE_*", "-e", "PATH=/bin"], &["env"]).lines(),
        case(&["--env-file=odd.env", "-e", "OVER=option"], &["env"]).lines(),
        case(&["-u", "web"], &["env"]).lines(),
        case(&["-u", "web", "-e", "HOME=/x"], &["env"]).lines(),
        case(&["--env-file=nosuch.env"], &["env"]).says(&["nosuch.env"]),
        case(&["--env-file=bad.env"], &["env"]).says(&["=bad"]),
        case(&["-e", "=x"], &["env"]).says(&["=x"]),
    ]
}

fn users_and_directories() -> Vec<Case> {
    let who = ["sh", "-c", "id; pwd; echo $HOME"];
    let mut cases: Vec<_> = ["web", "33", "1000", "1000:34", "web:log", "web:7", ":34", "", "0:0"]
        .map(|user| case(&["-u", user], &who))
        .into();
    cases.extend(["/srv", "/", "/root/../etc"].map(|directory| case(&["-w", directory], &who)));
    cases.extend([
        case(&["-u", "nosuch"], &who).says(&["nosuch"]).differs(255, 125, OWN_FAILURE),
        case(&["-u", "web:nosuch"], &who).says(&["nosuch"]).differs(255, 125, OWN_FAILURE),
        case(&["-u", "4294967296"], &who).says(&[]).differs(255, 125, OWN_FAILURE),
        case(&["-w", "/nosuch"], &who).says(&["/nosuch"]),
        case(&["-w", "srv"], &who).says(&[]).differs(255, 125, OWN_FAILURE),
        case(&["-w", "/plain"], &who).says(&["/plain"]).differs(
            255,
            126,
            "fcvm calls it not executable, runc gives no reason",
        ),
    ]);
    cases
}

fn privileges() -> Vec<Case> {
    let shown = ["grep", "-E", "Cap|NoNew|Groups", "/proc/self/status"];
    vec![
        case(&[], &shown),
        case(&["-u", "web"], &shown),
        case(
            &["--privileged", "-u", "web"],
            &["grep", "-E", "CapInh|CapPrm|CapEff|CapAmb", "/proc/self/status"],
        ),
        shell(&["--privileged"], "grep -q 'CapEff:.000001ff' /proc/self/status && echo all"),
        case(&[], &["sh", "-c", "umask; cat /proc/self/oom_score_adj"]),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        shell(&[], "echo out; echo error >&2; echo more; exit 3"),
        shell(&[], "head -c 5000000 /dev/zero; seq 1 40000 >&2; seq 1 100000; exit 4"),
        case(&["-i"], &["cat"]).input(noise(1_000_000)),
        case(&["-i"], &["sha256sum"]).input([]),
        case(&["-i"], &["head", "-c", "5"]).input(noise(300_000)),
        case(&[], &["cat"]).input(*b"not forwarded"),
        shell(&[], "echo begun; sleep 1000 & exit 6"),
        shell(
            &["-t"],
            "echo out; echo error >&2; printf 'a\\tb'; test -t 0 && test -t 1 && test -t 2 && echo all; exit 5",
        ),
        shell(&["-t"], "echo $TERM; test -t 0"),
        case(&["-t"], &["nosuch"]).any_output().says(&[]),
        case(&["-d"], &["touch", "/srv/detached"]).any_output(),
        shell(&[], "until test -e /srv/detached; do sleep 0.1; done; echo there"),
        case(&["-d"], &["sh", "-c", "exit 3"]).any_output(),
    ]
}

//! `run`. Each of these is a container, and with fcvm a VM: what does not touch each other is in one.

use fcvm_testkit::noise;

use super::case::Case;

/// Environment files.
pub(crate) const FILES: [(&str, &str); 3] = [
    (
        "odd.env",
        "# comment\n\n   \nA=1\n  INDENTED=2\n\tTAB=3\nSPACE IN=x\nQ=\"quoted\"\nS='single'\nEQUALS=a=b=c\n\
         HASH=a # b\nTRAIL=x  \nHOST_A\nNOPE\nPRE_*\nEMPTY=\nexport X=1\nCR=y\r\nDOLLAR=$A ${A}\nA=last\nOVER=file",
    ),
    ("more.env", "A=of the second\n"),
    ("bad.env", "A=1\n=bad\n"),
];

const USAGE: &str = "2 is fcvm's code for wrong usage, of all its commands";

fn case(options: &[&str], rest: &[&str]) -> Case {
    Case::new(options, rest)
}

pub(crate) fn environment() -> Vec<Case> {
    let many = [
        "--hostname=h",
        "-e",
        "A=1",
        "-e",
        "A=2",
        "-e",
        "EMPTY=",
        "-e",
        "C=a b=c",
        "-e",
        "HOST_A",
        "-e",
        "NOPE",
        "-e",
        "PRE_*",
        "-e",
        " BLANK=4",
        "-e",
        "U=é\"$x'",
        "-e",
        "LINES=a\tb",
    ];
    vec![
        case(&many, &["idle", "env"]).lines(),
        case(&["--hostname=h", "--env-file=odd.env", "-e", "OVER=option"], &["idle", "env"]).lines(),
        case(&["--hostname=h", "--env-file=odd.env", "--env-file", "more.env"], &["idle", "env"]).lines(),
        case(&["--hostname=h", "-e", "OWN=mine", "-e", "HOME=/x", "--entrypoint=env"], &["conf"]).lines(),
        case(&["--env-file=nosuch.env"], &["idle", "env"]).says(&["nosuch.env"]),
        case(&["--env-file=."], &["idle", "env"]).says(&["directory"]),
        case(&["--env-file=bad.env"], &["idle", "env"]).says(&["=bad"]),
        case(&["-e", ""], &["idle", "true"]).says(&[]).differs(0, 125, "a variable has a name"),
        case(&["-e", "=x"], &["idle", "env"]).says(&["=x"]),
    ]
}

pub(crate) fn users_and_directories() -> Vec<Case> {
    let who = ["idle", "sh", "-c", "id; pwd; echo $HOME"];
    vec![
        case(&["-u", "web", "-w", "/tmp"], &who),
        case(&["-u", "1000:34"], &who),
        case(&["-u", "web:log"], &who),
        case(&["-u", "nosuch"], &who).says(&["nosuch"]),
        case(&["-u", "web:nosuch"], &who).says(&["nosuch"]),
        case(&["-w", "/nosuch"], &who).says(&["/nosuch"]),
        case(&["-w", "srv"], &who).says(&["srv"]),
    ]
}

pub(crate) fn entry_points() -> Vec<Case> {
    vec![
        case(&[], &["conf"]),
        case(&["-w", "/", "-u", "0"], &["conf", "a  b", "*"]),
        case(&["--entrypoint="], &["conf", "echo", "-n", "no entry point"]),
        case(&["--entrypoint", r#"["echo", "c d"]"#], &["conf", "e"]),
        case(&["--entrypoint", "[]"], &["idle", "echo", "x"]),
        case(&["--entrypoint", "echo"], &["idle"]),
        case(&["--entrypoint", r#"["echo""#], &["idle", "x"]).says(&["echo"]),
        case(&["--entrypoint", "echo a"], &["idle", "x"]).says(&["echo a"]),
        case(&[], &["idle"]).says(&["no command"]),
    ]
}

pub(crate) fn codes() -> Vec<Case> {
    let exit = |code: &str| case(&[], &["idle", "sh", "-c", &format!("echo {code}; exit {code}")]);
    vec![
        exit("0"),
        exit("125"),
        exit("255"),
        case(&[], &["idle", "nosuch"]).says(&["nosuch"]),
        case(&[], &["idle", "/nosuch/x"]).says(&["/nosuch/x"]),
        case(&[], &["idle", "/plain"]).says(&["/plain"]),
        case(&[], &["idle", "/etc"]).says(&["/etc"]),
        case(&[], &["idle", "/no-format"]).says(&["/no-format"]),
        case(&[], &["idle", "/no-interpreter"]).says(&["/no-interpreter"]),
        // The limit holds for the runtime that makes the container, too, and emulation is slow.
        case(&["--ulimit=cpu=5:5"], &["idle", "sh", "-c", "while :; do :; done"]),
        case(&[], &["idle", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]),
        case(&["--nosuch"], &["idle", "true"]).says(&["--nosuch"]).differs(125, 2, USAGE),
        case(&[], &[]).says(&[]).differs(125, 2, USAGE),
    ]
}

pub(crate) fn options() -> Vec<Case> {
    // What comes after the mode depends on the kernel.
    let shown = "hostname; grep Cap /proc/self/status; grep -oE ' /x .*mode=[0-7]+' /proc/mounts; ulimit -f; ulimit -n; \
                 grep -E 'open files|core' /proc/self/limits";
    let all = [
        "--hostname=web-1.local",
        "--cap-drop=all",
        "--cap-add=CHOWN",
        "--cap-add",
        "cap_net_raw",
        "--tmpfs=/x:size=1m,mode=700",
        "--ulimit=fsize=1000000:2000000",
        "--ulimit",
        "nofile=123:456",
        "--ulimit=core=0",
        "--label=a=b",
        "-l",
        "c",
    ];
    let touch = "for d in / /etc /tmp /run /dev/shm /x; do touch $d/f && echo $d; done";
    vec![
        case(&all, &["idle", "sh", "-c", shown]),
        case(&[], &["idle", "grep", "Cap", "/proc/self/status"]),
        // All capabilities are those that the host has: fcvm's guests have more than a host that is a guest.
        case(&["--privileged"], &["idle", "grep", "-E", "NoNew|Seccomp:|CapInh|CapAmb", "/proc/self/status"]),
        case(&["--read-only", "--tmpfs", "/x"], &["idle", "sh", "-c", touch]),
        case(&["--cap-add=NOSUCH"], &["idle", "true"]).says(&["NOSUCH"]),
        case(&["--tmpfs=x"], &["idle", "true"]).says(&["x"]),
        case(&["--ulimit=nosuch=1"], &["idle", "true"]).says(&["nosuch"]),
        case(&["--label==c"], &["idle", "true"]).says(&["=c"]),
    ]
}

pub(crate) fn streams() -> Vec<Case> {
    let split = "echo out; echo error >&2; echo more; exit 3";
    let large = "head -c 3000000 /dev/zero; echo; seq 1 40000 >&2; seq 1 100000; exit 4";
    let terminal = "echo out; echo error >&2; printf 'a\\tb\\033[1mc'; test -t 0 && echo in; test -t 1 && test -t 2 && echo all; exit 5";
    vec![
        case(&[], &["idle", "sh", "-c", split]),
        case(&[], &["idle", "sh", "-c", large]),
        case(&["-i"], &["idle", "cat"]).input(noise(400_000)),
        case(&["-i"], &["idle", "sh", "-c", "read line; echo \"<$line>\"; cat; echo end"])
            .input(*b"first\nno end"),
        case(&["-i"], &["idle", "sh", "-c", "cat; echo $?"]).input([]),
        // Nobody reads all of it.
        case(&["-i"], &["idle", "head", "-c", "5"]).input(noise(300_000)),
        case(&[], &["idle", "cat"]).input(*b"not forwarded"),
        case(&["-t"], &["idle", "sh", "-c", terminal]),
    ]
}

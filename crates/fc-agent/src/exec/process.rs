//! A further process in a container, of the container's own as `podman exec` makes it: pure.
//!
//! The container's is `process` of its OCI configuration:
//! <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#process>.

use fcvm_proto::ExecRequest;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Deserializer};

use super::users::User;
use crate::sys::Words;

/// Where programs are looked for without a `PATH`: as musl's `execvp` does.
const USUAL_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// What a container's processes have, and how one is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) user: Account,
    pub(super) capabilities: Capabilities,
    pub(super) rlimits: Vec<Limit>,
    pub(super) no_new_privileges: bool,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) apparmor_profile: String,
    pub(super) selinux_label: String,
}

impl Process {
    /// Its program, arguments and environment for execve(2); `None` where there is no program, or a 0 in a string.
    pub(super) fn words(&self) -> Option<Words> {
        let places = places(self.args.first()?, &self.env);
        let counts = [places.len(), self.args.len()];
        let number = places.len() + self.args.len() + self.env.len();
        let mut bytes = Vec::new();
        for string in places.iter().chain(&self.args).chain(&self.env) {
            if string.contains('\0') {
                return None;
            }
            bytes.extend(string.as_bytes());
            bytes.push(0);
        }
        Some(Words { bytes, counts, number })
    }
}

/// Whose a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) additional_gids: Vec<u32>,
    pub(super) umask: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    #[serde(deserialize_with = "named")]
    pub(super) bounding: CapabilitySet,
    #[serde(deserialize_with = "named")]
    pub(super) effective: CapabilitySet,
    #[serde(deserialize_with = "named")]
    pub(super) permitted: CapabilitySet,
    #[serde(deserialize_with = "named")]
    pub(super) inheritable: CapabilitySet,
    #[serde(deserialize_with = "named")]
    pub(super) ambient: CapabilitySet,
}

impl Default for Capabilities {
    fn default() -> Self {
        let none = CapabilitySet::empty();
        Self { bounding: none, effective: none, permitted: none, inheritable: none, ambient: none }
    }
}

/// A resource, as `RLIMIT_NOFILE`, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Limit {
    #[serde(rename = "type")]
    pub(super) resource: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// Names as `CAP_CHOWN`; those that a later kernel has are not there in ours.
fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CapabilitySet, D::Error> {
    let names = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    let one = |name: &String| name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
    Ok(names.iter().filter_map(one).collect())
}

/// The process of a request in a container whose own is `container`; `user` where it is to be another.
pub(super) fn describe(container: &Process, request: &ExecRequest, user: Option<&User>) -> Process {
    let mut process = container.clone();
    process.args.clone_from(&request.command);
    if let Some(workdir) = &request.workdir {
        process.cwd.clone_from(workdir);
    }
    process.env = environment(container, request, user.map(|user| user.home.as_str()));
    if let Some(User { uid, gid, groups, .. }) = user {
        let umask = container.user.umask;
        process.user = Account { uid: *uid, gid: *gid, additional_gids: groups.clone(), umask };
    }
    process.capabilities =
        capabilities(&container.capabilities, request.privileged, process.user.uid, user.is_some());
    process.no_new_privileges &= !request.privileged;
    process
}

/// What a process has of which nothing special is asked, but for its program.
pub(super) fn usual(container: &Process) -> Process {
    let capabilities = capabilities(&container.capabilities, false, container.user.uid, false);
    Process { capabilities, ..container.clone() }
}

/// Drops the home directory that Podman gave the container's own user, `home`: another user has another.
/// One that somebody asked for stays.
pub(super) fn forget_home(container: &mut Process, home: &str) {
    container.env.retain(|variable| variable.strip_prefix("HOME=") != Some(home));
}

/// The container's environment with the request's: of one name, the last counts.
fn environment(container: &Process, request: &ExecRequest, home: Option<&str>) -> Vec<String> {
    let split = |pair: &String| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    let mut all: Vec<(String, String)> = container.env.iter().map(split).collect();
    let mut set =
        |name: &str, value: &str, replace: bool| match all.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) if replace => value.clone_into(old),
            Some(_) => {}
            None => all.push((name.to_owned(), value.to_owned())),
        };
    for (name, value) in &request.env {
        set(name, value, true);
    }
    if request.terminal.is_some() {
        set("TERM", "xterm", false);
    }
    if let Some(home) = home {
        set("HOME", home, false);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Where a program may be: as `execvp` looks for it.
fn places(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') || program.is_empty() {
        return vec![program.to_owned()];
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(USUAL_PATH);
    let within = |directory: &str| match directory {
        "" => program.to_owned(),
        directory => format!("{directory}/{program}"),
    };
    path.split(':').map(within).collect()
}

/// Root has what the container is bounded by; a user who was asked for has none, as they would be
/// after `su`; the container's own user keeps what the container gave it.
fn capabilities(own: &Capabilities, privileged: bool, uid: u32, asked: bool) -> Capabilities {
    let bounding = if privileged { CapabilitySet::all() } else { own.bounding };
    match (uid, asked) {
        (0, _) => {
            Capabilities { bounding, effective: bounding, permitted: bounding, ..Capabilities::default() }
        }
        (_, true) => Capabilities { bounding, ..Capabilities::default() },
        (_, false) => Capabilities { bounding, ..own.clone() },
    }
}

#[cfg(test)]
mod tests {
    use fcvm_proto::{ExecTarget, TerminalSize};
    use serde_json::json;

    use super::*;

    fn request() -> ExecRequest {
        ExecRequest {
            id: [0; 16],
            target: ExecTarget::Container,
            command: vec!["sh".into(), "-c".into(), "x".into()],
            env: Vec::new(),
            workdir: None,
            user: None,
            privileged: false,
            terminal: None,
            interactive: false,
            detach: false,
        }
    }

    fn container() -> Process {
        serde_json::from_value(json!({
            "terminal": true,
            "consoleSize": { "height": 1, "width": 1 },
            "user": { "uid": 0, "gid": 0, "additionalGids": [1], "umask": 18 },
            "args": ["init"],
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/srv",
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_OF_TOMORROW"], "effective": [], "inheritable": null },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 5, "hard": 6 }],
            "noNewPrivileges": true,
        }))
        .unwrap()
    }

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        assert_eq!(places("./a", &["PATH=/bin".into()]), ["./a"]);
        assert_eq!(places("a", &["PATH=/bin::/x".into()]), ["/bin/a", "a", "/x/a"]);
        assert_eq!(places("", &["PATH=/bin".into()]), [""]);
        assert_eq!(places("a", &["HOME=/".into()]), ["/usr/local/bin/a", "/bin/a", "/usr/bin/a"]);
    }

    #[test]
    fn what_it_becomes_is_strings_of_the_kernels() {
        let own = |args: &[&str], env: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
            Process { args: owned(args), env: owned(env), ..Process::default() }
        };
        let words = own(&["a", ""], &["PATH=/b:/c"]).words().unwrap();
        assert_eq!(words.bytes, b"/b/a\0/c/a\0a\0\0PATH=/b:/c\0");
        assert_eq!((words.counts, words.number), ([2, 2], 5));
        assert!(own(&["a", "b\0c"], &[]).words().is_none());
        assert!(own(&[], &["A=b"]).words().is_none());
    }

    #[test]
    fn a_home_that_was_asked_for_stays() {
        let mut process = Process { env: vec!["HOME=/root".into(), "A=1".into()], ..Process::default() };
        forget_home(&mut process, "/srv");
        assert_eq!(process.env, ["HOME=/root", "A=1"]);
        forget_home(&mut process, "/root");
        assert_eq!(process.env, ["A=1"]);
    }

    #[test]
    fn it_is_the_containers_process_but_for_what_was_asked() {
        let process = describe(&container(), &request(), None);
        assert_eq!(process.args, ["sh", "-c", "x"]);
        assert_eq!(process.cwd, "/srv");
        assert_eq!(process.env, ["PATH=/bin", "A=1"]);
        let chown = CapabilitySet::CHOWN;
        let sets =
            Capabilities { bounding: chown, effective: chown, permitted: chown, ..Capabilities::default() };
        assert_eq!(process.capabilities, sets);
        assert_eq!(process.user, container().user);
        assert_eq!(process.rlimits, container().rlimits);
        assert!(process.no_new_privileges);

        let asked = ExecRequest {
            env: vec![("A".into(), "2".into()), ("B".into(), "=".into())],
            workdir: Some("/tmp".into()),
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
            ..request()
        };
        let user = User { uid: 33, gid: 34, groups: vec![40], home: "/var/www".into() };
        let process = describe(&container(), &asked, Some(&user));
        assert_eq!(process.cwd, "/tmp");
        assert_eq!(process.env, ["PATH=/bin", "A=2", "B==", "TERM=xterm", "HOME=/var/www"]);
        assert_eq!(
            process.user,
            Account { uid: 33, gid: 34, additional_gids: vec![40], umask: Some(0o22) },
            "the umask is the container's"
        );
        assert_eq!(process.capabilities, Capabilities { bounding: chown, ..Capabilities::default() });

        let process = describe(&container(), &ExecRequest { privileged: true, ..request() }, None);
        assert!(process.capabilities.effective.is_all());
        assert!(!process.no_new_privileges);
    }

    #[test]
    fn its_own_user_keeps_what_the_container_gave_it() {
        let mut own = container();
        own.user.uid = 5;
        own.capabilities.ambient = CapabilitySet::CHOWN;
        own.capabilities.inheritable = CapabilitySet::CHOWN;
        let process = describe(&own, &request(), None);
        assert_eq!(process.capabilities, own.capabilities);
    }
}

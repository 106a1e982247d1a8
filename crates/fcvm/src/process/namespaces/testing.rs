//! Namespaces for tests.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use fcvm_testkit::{needs_programs, skip};

use super::Namespaces;

/// Options of `unshare` for those that an ordinary user can have.
pub(in crate::process) const USERS: &[&str] = &["--user", "--map-current-user", "--net", "--keep-caps"];

/// A process in new namespaces, which keeps them until it is dropped.
pub(in crate::process) struct Maker {
    process: Child,
    has_users: bool,
}

impl Maker {
    /// By `unshare` with these options, and with what this script makes in them. Nothing, with a word why,
    /// where there are none.
    pub(in crate::process) fn start(options: &[&str], script: &str) -> Option<Self> {
        if !needs_programs(&["unshare", "ip"]) {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-ec", &format!("{script}\necho made\nread line")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "made\n" {
            child.wait().unwrap();
            skip("no namespaces, or nothing can be made in them");
            return None;
        }
        Some(Self { process: child, has_users: options.contains(&USERS[0]) })
    }

    pub(in crate::process) fn path(&self, kind: &str) -> PathBuf {
        format!("/proc/{}/ns/{kind}", self.process.id()).into()
    }

    /// What it has made.
    pub(in crate::process) fn namespaces(&self) -> Arc<Namespaces> {
        let open = |kind| OwnedFd::from(File::open(self.path(kind)).unwrap());
        let user = self.has_users.then(|| open("user"));
        Arc::new(Namespaces { user, network: open("net") })
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

//! What stands at a VM's tap without a VM: a network namespace with an interface of its own, behind it.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::world::{DEADLINE, Keeper, within};

/// The namespace, and the two programs that carry frames between its interface and the tap.
#[derive(Debug)]
pub struct Wired {
    keeper: Keeper,
    carriers: Vec<Child>,
    _files: TempDir,
    tap: OwnedFd,
}

impl Wired {
    /// Plugs it into `tap` of a network namespace, with that address, those routes and that length of packets.
    #[must_use]
    pub fn new(namespace: OwnedFd, tap: &str, set_up: &[String]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let socket = files.path().join("frames");
        let keeper = Keeper::start(&["--net"], "ip link set lo up");
        let there = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
        let carry = |network: &PathBuf, name: &str, how: &str| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", network.display())).args(["socat", "-b", "70000"]);
            command.arg(format!("TUN,tun-name={name},tun-type=tap,iff-no-pi,iff-up"));
            command.arg(format!("UNIX-{how}:{},type=5", socket.display()));
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        let mut carriers = vec![carry(&there, tap, "LISTEN")];
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < DEADLINE, "nobody carries frames");
            std::thread::yield_now();
        }
        carriers.push(carry(&keeper.network(), "eth0", "CONNECT"));
        let wired = Self { keeper, carriers, _files: files, tap: namespace };
        while !wired.run("ip link show eth0 2> /dev/null").0 {
            assert!(begun.elapsed() < DEADLINE, "no interface");
        }
        for line in set_up {
            wired.shell(line);
        }
        wired
    }

    /// What a script in it says, and whether it succeeds.
    #[must_use]
    pub fn run(&self, script: &str) -> (bool, String) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.keeper.network().display())).args(["sh", "-c", script]);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim_end().to_owned())
    }

    /// What a script in it says, which succeeds.
    pub fn shell(&self, script: &str) -> String {
        let (success, said) = self.run(script);
        assert!(success, "{script}: {said}");
        said
    }

    /// What a script says in the namespace of the tap.
    #[must_use]
    pub fn at_the_tap(&self, script: &str) -> String {
        let network = format!("/proc/{}/fd/{}", std::process::id(), self.tap.as_raw_fd());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={network}")).args(["sh", "-c", script]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// Does something as a process of it.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&File::open(self.keeper.network()).unwrap(), act)
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        for carrier in &mut self.carriers {
            carrier.kill().unwrap();
            carrier.wait().unwrap();
        }
    }
}

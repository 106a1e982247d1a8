//! What the host needs for fcvm, what it has, and the command that gets the rest.

use std::{
    env,
    error::Error as _,
    fmt,
    fs::File,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use serde::Serialize;

use super::agent;
use crate::{
    hypervisor::{Virtualization, firecracker, virtualization},
    process::sandbox,
    storage::DataDir,
};

/// Free space that set-up needs: disks, downloads and mmdebstrap's work.
const SPACE_NEEDED: u64 = 1536 << 20;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There.
    Ok,
    /// Not there, and fcvm goes on without.
    Note,
    /// Not there, and fcvm cannot work.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// What it is needed for.
    pub needed_for: &'static str,
    /// Whether it is there.
    pub status: Status,
    /// What was found, or what is missing.
    pub found: String,
    /// A command or advice that gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order it matters.
    pub checks: Vec<Check>,
}

impl Check {
    /// The same, of something that can be done without.
    fn or_without(self) -> Self {
        let status = if self.status == Status::Missing { Status::Note } else { self.status };
        Self { status, ..self }
    }
}

impl Report {
    /// Whether fcvm can be set up and run.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Missing)
    }

    /// The missing things, a line each.
    #[must_use]
    pub fn missing(&self) -> String {
        let lines: Vec<_> = self
            .checks
            .iter()
            .filter(|check| check.status == Status::Missing)
            .map(|check| format!("    {} ({}): {}", check.name, check.needed_for, check.found))
            .collect();
        lines.join("\n")
    }

    /// The commands that get the missing things.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let mut fixes: Vec<&str> = self
            .checks
            .iter()
            .filter(|check| check.status == Status::Missing)
            .filter_map(|check| check.fix.as_deref())
            .collect();
        fixes.dedup();
        (!fixes.is_empty()).then(|| fixes.join("; "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for (index, check) in self.checks.iter().enumerate() {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Missing => "missing",
            };
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{status:<8}{:<width$}  {}", check.name, check.found)?;
            if check.status != Status::Ok {
                write!(f, "\n{:<8}{:<width$}  needed for {}", "", "", check.needed_for)?;
                if let Some(fix) = &check.fix {
                    write!(f, "\n{:<8}{:<width$}  {fix}", "", "")?;
                }
            }
        }
        Ok(())
    }
}

/// Looks at everything; `given_agent` as on the command line.
#[must_use]
pub fn check(data: &DataDir, given_agent: Option<&Path>) -> Report {
    let packages = PackageManager::of_host();
    let root = rustix::process::geteuid().is_root();
    let mut checks = hypervisors(packages, data).to_vec();
    checks.push(program(packages, &MMDEBSTRAP));
    checks.push(program(packages, &MKFS));
    if !root {
        checks.push(program(packages, &NEWUIDMAP));
        checks.push(sub_ids());
    }
    checks.push(program(packages, &NFT).or_without());
    if !root {
        checks.push(program(packages, &PASTA).or_without());
    }
    checks.extend([agent(given_agent), space(data), tun(), namespaces()]);
    Report { checks }
}

/// A program that fcvm runs.
struct Program {
    name: &'static str,
    needed_for: &'static str,
    /// Packages for apt, dnf and pacman.
    packages: [&'static str; 3],
}

const MMDEBSTRAP: Program = Program {
    name: "mmdebstrap",
    needed_for: "making the base disk",
    packages: ["mmdebstrap", "mmdebstrap", "mmdebstrap"],
};
const MKFS: Program = Program {
    name: super::scratch::PROGRAM,
    needed_for: "making scratch disks",
    packages: ["e2fsprogs", "e2fsprogs", "e2fsprogs"],
};
const NEWUIDMAP: Program = Program {
    name: "newuidmap",
    needed_for: "making the base disk as an ordinary user",
    packages: ["uidmap", "shadow-utils", "shadow"],
};
const NFT: Program = Program {
    name: "nft",
    needed_for: "networks of VMs; without it: --network none",
    packages: ["nftables", "nftables", "nftables"],
};
const PASTA: Program = Program {
    name: "pasta",
    needed_for: "networks of an ordinary user's VMs; without it: --network none",
    packages: ["passt", "passt", "passt"],
};
const QEMU: Program = Program {
    name: if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" },
    needed_for: "running VMs",
    packages: if cfg!(target_arch = "aarch64") {
        ["qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64"]
    } else {
        ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86"]
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackageManager {
    Apt,
    Dnf,
    Pacman,
}

impl PackageManager {
    fn of_host() -> Option<Self> {
        let release = std::fs::read_to_string("/etc/os-release").ok()?;
        Self::of_release(&release)
    }

    fn of_release(release: &str) -> Option<Self> {
        let value = |key: &str| {
            release
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"'))
                .next()
                .unwrap_or_default()
        };
        let ids: Vec<&str> = value("ID").split(' ').chain(value("ID_LIKE").split(' ')).collect();
        let any = |names: &[&str]| names.iter().any(|name| ids.contains(name));
        if any(&["debian", "ubuntu"]) {
            Some(Self::Apt)
        } else if any(&["fedora", "rhel", "centos"]) {
            Some(Self::Dnf)
        } else if any(&["arch"]) {
            Some(Self::Pacman)
        } else {
            None
        }
    }

    fn install(this: Option<Self>, program: &Program) -> String {
        let [apt, dnf, pacman] = program.packages;
        match this {
            Some(Self::Apt) => format!("apt-get install {apt}"),
            Some(Self::Dnf) => format!("dnf install {dnf}"),
            Some(Self::Pacman) => format!("pacman -S {pacman}"),
            None => format!("install `{}` with the package manager of this system", program.name),
        }
    }
}

/// Where a program lies, looked for in `PATH` and the directories of system programs.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|directory| directory.join(name)).find(|path| {
        std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

fn program(packages: Option<PackageManager>, program: &Program) -> Check {
    let place = find_program(program.name);
    Check {
        name: program.name.into(),
        needed_for: program.needed_for,
        status: if place.is_some() { Status::Ok } else { Status::Missing },
        fix: place.is_none().then(|| PackageManager::install(packages, program)),
        found: place.map_or_else(|| "not found".into(), |path| path.display().to_string()),
    }
}

/// Both engines, of which one is needed, and what Firecracker needs.
fn hypervisors(packages: Option<PackageManager>, data: &DataDir) -> [Check; 3] {
    let host = virtualization();
    let mut qemu = program(packages, &QEMU);
    let firecracker = firecracker(data, host);
    if qemu.status == Status::Missing && firecracker.status == Status::Ok {
        qemu.status = Status::Note;
    }
    [firecracker, qemu, kvm(host)]
}

fn firecracker(data: &DataDir, host: Virtualization) -> Check {
    let given = env::var_os("FCVM_FIRECRACKER").map(PathBuf::from);
    let (status, found, fix) = match (firecracker::find(given.as_deref(), data), host.obstacle()) {
        (Ok(found), None) => {
            (Status::Ok, format!("{} ({})", found.program().display(), found.version()), None)
        }
        (Ok(found), Some(obstacle)) => {
            let (path, version) = (found.program().display(), found.version());
            (Status::Note, format!("{path} ({version}), but {obstacle}"), None)
        }
        (Err(error), obstacle) => {
            // Of no use where it could not run.
            let fix = obstacle.is_none().then(|| error.hint()).flatten();
            (Status::Note, error.to_string(), fix)
        }
    };
    Check { name: "Firecracker".into(), needed_for: "running VMs, by KVM", status, found, fix }
}

fn kvm(host: Virtualization) -> Check {
    let (status, found, fix) = match host.obstacle() {
        None => (Status::Ok, "/dev/kvm".into(), None),
        Some(obstacle) => {
            let found = format!("{obstacle}: QEMU's emulation will be used, ~10x slower");
            (Status::Note, found, Some(host.advice().into()))
        }
    };
    Check { name: "KVM".into(), needed_for: "VMs at full speed", status, found, fix }
}

fn agent(given: Option<&Path>) -> Check {
    let found = agent::find(given).and_then(|path| agent::read(&path).map(|_| path));
    let (status, found, fix) = match found {
        Ok(path) => (Status::Ok, path.display().to_string(), None),
        Err(error) => (Status::Missing, error.to_string(), error.hint()),
    };
    Check { name: "fc-agent".into(), needed_for: "running in the guest", status, found, fix }
}

fn space(data: &DataDir) -> Check {
    let free = rustix::fs::statvfs(data.root()).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let place = data.root().display();
    let (status, found) = match free {
        Ok(free) if free >= SPACE_NEEDED => (Status::Ok, format!("{} free in `{place}`", ByteSize(free))),
        Ok(free) => (
            Status::Missing,
            format!("{} free in `{place}`, {} needed", ByteSize(free), ByteSize(SPACE_NEEDED)),
        ),
        Err(error) => (Status::Note, format!("cannot be told of `{place}`: {error}")),
    };
    Check {
        name: "disk space".into(),
        needed_for: "kernel, disks and images",
        status,
        found,
        fix: (status == Status::Missing).then(|| "name another directory with --data-dir".into()),
    }
}

/// Those that Firecracker's sandbox is made of.
fn namespaces() -> Check {
    let (status, found, fix) = match sandbox::probe() {
        Ok(()) => (Status::Ok, "mount, network, PID, IPC".to_owned(), None),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            (Status::Note, format!("{error}{cause}; Firecracker will run without"), error.hint())
        }
    };
    Check { name: "namespaces".into(), needed_for: "Firecracker's sandbox", status, found, fix }
}

fn tun() -> Check {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    let (status, found) = match opened {
        Ok(_) => (Status::Ok, "/dev/net/tun".into()),
        Err(error) => (Status::Note, format!("/dev/net/tun: {error}; networks without a tap will be used")),
    };
    let fix = (status == Status::Note).then(|| "modprobe tun".into());
    Check { name: "tun".into(), needed_for: "tap network devices", status, found, fix }
}

/// Ranges of subordinate ids, which mmdebstrap needs as an ordinary user.
fn sub_ids() -> Check {
    let user = env::var("USER").unwrap_or_default();
    let id = rustix::process::getuid().as_raw().to_string();
    let lacking: Vec<&str> = ["/etc/subuid", "/etc/subgid"]
        .into_iter()
        .filter(|file| !std::fs::read_to_string(file).is_ok_and(|text| has_range(&text, &user, &id)))
        .collect();
    let missing = !lacking.is_empty();
    Check {
        name: "subordinate ids".into(),
        needed_for: "making the base disk as an ordinary user",
        status: if missing { Status::Missing } else { Status::Ok },
        found: if missing {
            format!("no range for you in {}", lacking.join(" and "))
        } else {
            "in /etc/subuid and /etc/subgid".into()
        },
        fix: missing.then(|| "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER".into()),
    }
}

fn has_range(text: &str, user: &str, id: &str) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.trim().parse::<u64>().ok());
        !owner.is_empty() && (owner == user || owner == id) && count.is_some_and(|count| count >= 65536)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_manager_is_told_from_os_release() {
        let of = PackageManager::of_release;
        assert_eq!(of("NAME=\"Debian GNU/Linux\"\nID=debian\n"), Some(PackageManager::Apt));
        assert_eq!(of("ID=pop\nID_LIKE=\"ubuntu debian\"\n"), Some(PackageManager::Apt));
        assert_eq!(of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Some(PackageManager::Dnf));
        assert_eq!(of("ID=arch\n"), Some(PackageManager::Pacman));
        assert_eq!(of("VERSION_ID=1\n"), None);
        assert_eq!(
            PackageManager::install(Some(PackageManager::Dnf), &NEWUIDMAP),
            "dnf install shadow-utils"
        );
    }

    #[test]
    fn ranges_belong_to_a_user_or_id() {
        let text = "alice:100000:65536\n1001:165536:65536\nbob:1:10\n";
        assert!(has_range(text, "alice", "5"));
        assert!(has_range(text, "carol", "1001"));
        assert!(!has_range(text, "bob", "1002"));
        assert!(!has_range(text, "", "7"));
    }

    #[test]
    fn a_report_lists_everything_that_is_missing() {
        let check = |name: &str, status, fix: Option<&str>| Check {
            name: name.into(),
            needed_for: "testing",
            status,
            found: "not found".into(),
            fix: fix.map(str::to_owned),
        };
        let mut report = Report {
            checks: vec![
                check("a", Status::Missing, Some("get a")),
                check("b", Status::Note, Some("get b")),
                check("cc", Status::Missing, Some("get c")),
            ],
        };
        assert!(!report.is_ok());
        assert_eq!(report.missing(), "    a (testing): not found\n    cc (testing): not found");
        assert_eq!(report.fix().as_deref(), Some("get a; get c"));
        report.checks.retain(|check| check.status != Status::Missing);
        assert!(report.is_ok());
        assert_eq!(
            report.to_string(),
            "note    b  not found\n           needed for testing\n           get b"
        );
    }
}

//! What the machine of a container has beyond the usual.

use std::{path::PathBuf, str::FromStr};

use super::size;

/// Least operations a second: a container starts with hundreds.
const LEAST_IOPS: i64 = 10;

/// Options of `fcvm podman run` for its machine.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// A memory balloon: the guest gives back so much of its memory, and takes it again before it
    /// runs out. With 0 it keeps all. fcvm stats shows the guest's memory. Firecracker only
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub balloon: Option<Balloon>,
    /// Memory in huge pages of 2 MiB, which the host must have set aside. Firecracker only
    #[arg(long, help_heading = "Machine")]
    pub huge_pages: bool,
    /// Show the guest another CPU: a file with a custom CPU template, in JSON. Firecracker only
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub cpu_template: Option<PathBuf>,
    /// Start Firecracker by its jailer: in a chroot, as a user of its own, with limits of a control
    /// group. As root only. Without it Firecracker is in a sandbox of namespaces, but has no limits
    #[arg(long, help_heading = "Machine")]
    pub jailer: bool,
    /// User and group that the jail has Firecracker run as; else numbers that no user has
    #[arg(long, value_name = "UID[:GID]", requires = "jailer", help_heading = "Machine")]
    pub jailer_user: Option<JailUser>,
    /// A setting of the jail's control group, by its file: memory.high=1G, cpu.weight=50. Can be
    /// given more than once
    #[arg(long, value_name = "FILE=VALUE", requires = "jailer", help_heading = "Machine")]
    pub cgroup_conf: Vec<CgroupSetting>,
    /// Bytes a second that the VM reads and writes at most, together: of its own disk and of the
    /// image's, each
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub disk_bps: Option<DiskRate>,
    /// The same in operations a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(LEAST_IOPS..), help_heading = "Machine")]
    pub disk_iops: Option<u32>,
}

/// What a balloon takes, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balloon(pub u32);

impl FromStr for Balloon {
    type Err = &'static str;

    /// As memory is given. Rounded up to MiB.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = size::parse(text).ok_or("an amount of memory is a number and a unit: 512m, 2g")?;
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).map_err(|_| "no machine has that much memory")?;
        Ok(Self(mib))
    }
}

/// A user that is not root, and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JailUser {
    /// The user.
    pub uid: u32,
    /// The group: where none is given, of the user's number.
    pub gid: u32,
}

impl FromStr for JailUser {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
        match (number(uid), number(gid)) {
            (Some(0), _) | (_, Some(0)) => Err("a jail is for another user than root"),
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            _ => Err("a user is a number, or two with a colon between: 1000:1000"),
        }
    }
}

/// A file of a control group and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSetting {
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
}

impl FromStr for CgroupSetting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, value) = text.split_once('=').ok_or("a setting is a file and a value: memory.high=1G")?;
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        if !file.contains('.') || !file.chars().all(named) || file.starts_with("cgroup.") {
            return Err("a setting's file is a controller's: memory.high, cpu.weight, io.max");
        }
        // The jailer takes no other.
        if value.is_empty() || value.contains('=') {
            return Err("a setting has a value, and no second `=` in it");
        }
        Ok(Self { file: file.to_owned(), value: value.to_owned() })
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRate(pub u64);

impl DiskRate {
    /// A single operation of a guest is as large.
    const LEAST: u64 = 1 << 20;
    /// More is no limit.
    const MOST: u64 = 100 << 30;
}

impl FromStr for DiskRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = size::parse(text).ok_or("a rate is a number and a unit, in a second: 10m, 1g")?;
        if bytes < Self::LEAST {
            return Err("a VM needs 1 MiB a second at least (a number without a unit is bytes: write 10m)");
        }
        if bytes > Self::MOST {
            return Err("a limit is 100 GiB a second at most");
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_may_be_empty_and_is_rounded_up() {
        for (text, mib) in [("0", 0), ("128m", 128), ("1g", 1024), ("1", 1), ("1025k", 2)] {
            assert_eq!(text.parse(), Ok(Balloon(mib)), "{text}");
        }
        for bad in ["", "-1m", "1x", "much", "5000t"] {
            assert!(bad.parse::<Balloon>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_jail_is_for_another_user_than_root() {
        assert_eq!("1000:100".parse(), Ok(JailUser { uid: 1000, gid: 100 }));
        assert_eq!("1000".parse(), Ok(JailUser { uid: 1000, gid: 1000 }));
        for bad in ["", "0", "1000:0", "0:1000", "-1", "root", "1:2:3", "4294967295"] {
            assert!(bad.parse::<JailUser>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_is_a_controllers_file_and_a_value() {
        let setting: CgroupSetting = "memory.high=1G".parse().unwrap();
        assert_eq!((setting.file.as_str(), setting.value.as_str()), ("memory.high", "1G"));
        for bad in
            ["", "memory.high", "memory.high=", "=1", "../x.y=1", "cgroup.procs=1", "memory=1", "a.b=c=d"]
        {
            assert!(bad.parse::<CgroupSetting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_neither_nothing_nor_everything() {
        assert_eq!("10m".parse(), Ok(DiskRate(10 << 20)));
        assert_eq!("1mb".parse(), Ok(DiskRate(1 << 20)));
        for bad in ["", "0", "10", "1023k", "101g", "/dev/vda:10m"] {
            assert!(bad.parse::<DiskRate>().is_err(), "{bad}");
        }
    }
}

//! What the machine of a container has beyond the usual.

use std::{path::PathBuf, str::FromStr};

use super::size;
use crate::hypervisor::{CgroupSetting, JailUser};

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
    fn a_rate_is_neither_nothing_nor_everything() {
        assert_eq!("10m".parse(), Ok(DiskRate(10 << 20)));
        assert_eq!("1mb".parse(), Ok(DiskRate(1 << 20)));
        for bad in ["", "0", "10", "1023k", "101g", "/dev/vda:10m"] {
            assert!(bad.parse::<DiskRate>().is_err(), "{bad}");
        }
    }
}

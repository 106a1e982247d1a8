//! What Firecracker's jailer is told: plain data, which is right however it came, from a command line or from the
//! manifest of a snapshot.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What Firecracker's jailer is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// Whom Firecracker runs as; else as a user that no other has.
    pub user: Option<JailUser>,
    /// Settings of its control group.
    pub cgroup: Vec<CgroupSetting>,
}

/// A user that is not root, and a group; as data a pair of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct JailUser {
    uid: u32,
    gid: u32,
}

impl JailUser {
    /// The user.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// The group.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.gid
    }
}

impl TryFrom<(u32, u32)> for JailUser {
    type Error = &'static str;

    fn try_from((uid, gid): (u32, u32)) -> Result<Self, Self::Error> {
        match (uid, gid) {
            (0, _) | (_, 0) => Err("a jail is for another user than root"),
            // What `chown` takes for none.
            (u32::MAX, _) | (_, u32::MAX) => Err("no user has the number 4294967295"),
            (uid, gid) => Ok(Self { uid, gid }),
        }
    }
}

impl From<JailUser> for (u32, u32) {
    fn from(JailUser { uid, gid }: JailUser) -> Self {
        (uid, gid)
    }
}

impl FromStr for JailUser {
    type Err = &'static str;

    /// `UID` or `UID:GID`; without a group, that of the user's number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Self::try_from((uid, gid)),
            _ => Err("a user is a number, or two with a colon between: 1000:1000"),
        }
    }
}

/// A file of a control group and what is written to it; as data a pair of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(String, String)", into = "(String, String)")]
pub struct CgroupSetting {
    file: String,
    value: String,
}

impl CgroupSetting {
    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What is written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl TryFrom<(String, String)> for CgroupSetting {
    type Error = &'static str;

    fn try_from((file, value): (String, String)) -> Result<Self, Self::Error> {
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        if !file.contains('.') || !file.chars().all(named) || file.starts_with("cgroup.") {
            return Err("a setting's file is a controller's: memory.high, cpu.weight, io.max");
        }
        // The jailer takes no other.
        if value.is_empty() || value.contains('=') {
            return Err("a setting has a value, and no second `=` in it");
        }
        Ok(Self { file, value })
    }
}

impl From<CgroupSetting> for (String, String) {
    fn from(CgroupSetting { file, value }: CgroupSetting) -> Self {
        (file, value)
    }
}

impl FromStr for CgroupSetting {
    type Err = &'static str;

    /// `FILE=VALUE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, value) = text.split_once('=').ok_or("a setting is a file and a value: memory.high=1G")?;
        Self::try_from((file.to_owned(), value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_is_for_another_user_than_root() {
        assert_eq!("1000:100".parse(), Ok(JailUser { uid: 1000, gid: 100 }));
        assert_eq!("1000".parse(), Ok(JailUser { uid: 1000, gid: 1000 }));
        for bad in ["", "0", "1000:0", "0:1000", "-1", "root", "1:2:3", "4294967295", "1:4294967295"] {
            assert!(bad.parse::<JailUser>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_is_a_controllers_file_and_a_value() {
        let setting: CgroupSetting = "memory.high=1G".parse().unwrap();
        assert_eq!((setting.file(), setting.value()), ("memory.high", "1G"));
        for bad in
            ["", "memory.high", "memory.high=", "=1", "../x.y=1", "cgroup.procs=1", "memory=1", "a.b=c=d"]
        {
            assert!(bad.parse::<CgroupSetting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_no_command_line_takes_no_data_has() {
        let good = r#"{"user":[1000,100],"cgroup":[["memory.high","1G"]]}"#;
        let jail: Jail = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::to_string(&jail).unwrap(), good);
        for bad in [
            r#"{"user":[0,100],"cgroup":[]}"#,
            r#"{"user":[100,0],"cgroup":[]}"#,
            r#"{"user":[100,4294967295],"cgroup":[]}"#,
            r#"{"user":null,"cgroup":[["../../x.y","1"]]}"#,
            r#"{"user":null,"cgroup":[["cgroup.procs","1"]]}"#,
            r#"{"user":null,"cgroup":[["memory.high",""]]}"#,
        ] {
            assert!(serde_json::from_str::<Jail>(bad).is_err(), "{bad}");
        }
    }
}

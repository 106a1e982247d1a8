//! What a child that could not be confined has said.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A program could not be started in a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// This user, or this host, has none.
    #[error("namespaces cannot be made here")]
    Namespaces(#[source] io::Error),
    /// Something that is to be seen cannot be shown.
    #[error("failed to mount `{path}` in the sandbox")]
    Mount {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("failed to {what}")]
    Step {
        /// It.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox stands, and the program does not start in it.
    #[error("the program does not start")]
    Start(#[source] io::Error),
}

/// What a child does, in this order; a number in its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Join,
    Namespaces,
    Tap,
    Fork,
    Root,
    Mount,
    Enter,
    Privileges,
}

const STEPS: [Step; 8] = [
    Step::Join,
    Step::Namespaces,
    Step::Tap,
    Step::Fork,
    Step::Root,
    Step::Mount,
    Step::Enter,
    Step::Privileges,
];

/// `said` is a step and, of a mount, its number.
pub(super) fn explain(said: &[u8], mounts: &[PathBuf], source: io::Error) -> SandboxError {
    let &[step, index, ..] = said else { return SandboxError::Start(source) };
    let what = match STEPS.get(usize::from(step)) {
        None => return SandboxError::Start(source),
        Some(Step::Namespaces) => return SandboxError::Namespaces(source),
        Some(Step::Mount) => {
            let path = mounts.get(usize::from(index)).map_or(Path::new(""), PathBuf::as_path).to_owned();
            return SandboxError::Mount { path, source };
        }
        Some(Step::Join) => "join the network's namespaces",
        Some(Step::Tap) => "make a tap in the sandbox",
        Some(Step::Fork) => "start a process in the sandbox",
        Some(Step::Root) => "make the sandbox's root",
        Some(Step::Enter) => "enter the sandbox",
        Some(Step::Privileges) => "give up privileges",
    };
    SandboxError::Step { what, source }
}

impl SandboxError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Namespaces(_) => Some(namespaces_advice(Path::new("/proc/sys")).into()),
            _ => None,
        }
    }
}

/// What keeps an ordinary user from namespaces, by the settings of the kernel.
fn namespaces_advice(settings: &Path) -> &'static str {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(settings.join(name)).is_ok_and(|text| text.trim_end() == value)
    };
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor keeps programs without a profile from them: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root lets all have them"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "`sysctl kernel.unprivileged_userns_clone=1` as root lets ordinary users have them"
    } else if is("user/max_user_namespaces", "0") {
        "`sysctl user.max_user_namespaces=10000` as root lets ordinary users have them"
    } else {
        "in a container they need CAP_SYS_ADMIN, or a seccomp profile that lets unshare and mount through"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    #[test]
    fn reports_are_understood() {
        let mounts = [PathBuf::from("/a"), PathBuf::from("/b")];
        let said = |step: Step, index| explain(&[step as u8, index], &mounts, denied());
        assert!(matches!(said(Step::Namespaces, 0), SandboxError::Namespaces(_)));
        assert!(matches!(said(Step::Mount, 1), SandboxError::Mount { path, .. } if path == Path::new("/b")));
        assert!(matches!(said(Step::Enter, 0), SandboxError::Step { what: "enter the sandbox", .. }));
        assert!(matches!(explain(&[], &mounts, denied()), SandboxError::Start(_)));
        assert!(matches!(explain(&[99, 0], &mounts, denied()), SandboxError::Start(_)));
    }

    #[test]
    fn advice_names_the_setting_that_is_in_the_way() {
        let settings = tempfile::tempdir().unwrap();
        assert!(namespaces_advice(settings.path()).contains("container"));
        std::fs::create_dir(settings.path().join("kernel")).unwrap();
        std::fs::write(settings.path().join("kernel/apparmor_restrict_unprivileged_userns"), "1\n").unwrap();
        assert!(namespaces_advice(settings.path()).contains("apparmor_restrict"));
    }
}

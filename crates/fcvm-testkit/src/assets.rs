//! Kernel, base disk and initrd, made once for all tests.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The directories that set-up fills.
const DIRECTORIES: [&str; 3] = ["kernels", "rootfs", "initrd"];

/// Has `fcvm setup` run in the data directory shared by all tests:
/// `$FCVM_TEST_ASSETS`, else `test-assets` beside the directory of the program.
/// Why tests with VMs cannot run here, where they cannot.
pub(crate) fn shared(fcvm: &Path) -> Result<&'static Path, &'static str> {
    static ASSETS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ASSETS.get_or_init(|| {
        let directory = env::var_os("FCVM_TEST_ASSETS")
            .map_or_else(|| crate::env::target_directory(fcvm).join("test-assets"), PathBuf::from);
        fs::create_dir_all(&directory).unwrap();
        let setup = |arguments: &[&str]| {
            let mut command = Command::new(fcvm);
            // Proxies and the like stay, as they are what reaches the mirror.
            for name in ["FCVM_PLAN", "FCVM_AGENT", "FCVM_KERNEL", "FCVM_LOG_FORMAT", "RUST_LOG"] {
                command.env_remove(name);
            }
            command.arg("setup").args(arguments).env("FCVM_DATA_DIR", &directory).stdin(Stdio::null());
            command.output().unwrap()
        };
        let check = setup(&["--check", "--json"]);
        if check.status.code() == Some(1) {
            let report: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
            let checks = report["checks"].as_array().unwrap().iter();
            let missing =
                checks.filter(|check| check["status"] == "missing").map(|check| check["name"].as_str());
            let missing: Vec<_> = missing.flatten().collect();
            return Err(format!("this machine lacks {}", missing.join(", ")));
        }
        let made = setup(&[]);
        let messages = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "`fcvm setup` failed ({})\n{messages}", made.status);
        Ok(fs::canonicalize(directory).unwrap())
    });
    made.as_ref().map(PathBuf::as_path).map_err(String::as_str)
}

/// Lets a data directory use the shared assets.
pub(crate) fn link(fcvm: &Path, data: &Path) -> Result<(), &'static str> {
    let assets = shared(fcvm)?;
    for directory in DIRECTORIES {
        std::os::unix::fs::symlink(assets.join(directory), data.join(directory)).unwrap();
    }
    Ok(())
}

/// Replaces links to the shared assets by copies.
pub(crate) fn unshare(data: &Path) {
    for directory in DIRECTORIES {
        let link = data.join(directory);
        let assets = fs::canonicalize(&link).unwrap();
        fs::remove_file(&link).unwrap();
        // `cp` keeps times, and holes as holes.
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(assets).arg(link).status();
        assert!(copied.unwrap().success());
    }
}

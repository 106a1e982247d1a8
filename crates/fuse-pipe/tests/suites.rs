//! Judges from outside: `pjdfstest` for what POSIX says, `fsx` for what is in a file. They are crates that
//! `scripts/deps.sh test` installs into the target directory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests; a seed is printed"
)]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output},
};

use fcvm_testkit::{
    needs_root,
    suites::{PJDFSTEST, program},
};
use fuse_pipe::passthrough::Cache;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

#[path = "support/pipe.rs"]
mod pipe;

use pipe::Pipe;

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
/// What is left out, and why: the kernel does not tell how many links a file may have.
const SKIPPED: [[&str; 2]; 1] =
    [["link::link_count_max", "Cannot get value for LINK_MAX: filesystem limit is unknown"]];
/// What the cases are called that mount anew.
const REMOUNTED: &str = "erofs";

/// `mount(8)` for the suite, which mounts anew as read-only what it has just written to. The kernel tells the
/// server of a closed file without waiting for it, and a file that was removed is in use until then: so the
/// requests under way are waited for. And no program of the type `fuse` is asked to do it.
fn remounter(directory: &Path, connections: &Path, mountpoint: &Path) {
    let minor = rustix::fs::minor(fs::metadata(mountpoint).unwrap().dev());
    let waiting = connections.join(minor.to_string()).join("waiting");
    let script = format!(
        "#!/bin/sh -e\n\
         until requests=$(cat {}) && [ \"$requests\" = 0 ]; do [ -n \"$requests\" ]; done\n\
         PATH=/usr/sbin:/usr/bin:/sbin:/bin exec mount --internal-only \"$@\"\n",
        waiting.display()
    );
    let path = directory.join("mount");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the kernel shows of its connections, at a place of our own.
struct Connections(TempDir);

impl Connections {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        mount("fusectl", place.path(), "fusectl", MountFlags::empty(), None).unwrap();
        Self(place)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::empty()).unwrap();
    }
}

/// How often it passed, and what it skipped and why; none has failed.
fn judge(
    program: &Path,
    own: &Path,
    pipe: &Pipe,
    settings: &str,
    pattern: &[&str],
) -> (usize, Vec<[String; 2]>) {
    let configuration = own.join("pjdfstest.toml");
    fs::write(&configuration, settings).unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.arg("-c").arg(configuration).arg("-p").arg(pipe.guest("")).args(pattern);
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").env("PATH", path);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stdout).unwrap();
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let those = |what: &str| -> Vec<_> {
        let case = |pair: &[&str]| Some([pair[0].strip_suffix(what)?.trim().into(), pair[1].into()]);
        lines.windows(2).filter_map(case).collect()
    };
    assert!(status.success(), "{:#?}\n{}", those("FAILED"), String::from_utf8_lossy(&stderr));
    println!("{}", lines.iter().find(|line| line.starts_with("Summary")).unwrap());
    (lines.iter().filter(|line| line.ends_with(" ok")).count(), those("skipped"))
}

fn pjdfstest(cache: Cache) {
    if !needs_root() {
        return;
    }
    let Some(program) = program(TEMPORARY, "pjdfstest") else { return };
    let (pipe, own, connections) = (Pipe::new(cache), tempfile::tempdir().unwrap(), Connections::new());
    fs::set_permissions(pipe.host(""), fs::Permissions::from_mode(0o755)).unwrap();
    remounter(own.path(), connections.0.path(), &pipe.guest(""));
    // Cases before leave files open for writing: in the same process nothing could be mounted read-only.
    let settings = PJDFSTEST.replace("allow_remount = false", "allow_remount = true");
    let (remounted, skipped) = judge(&program, own.path(), &pipe, &settings, &[REMOUNTED]);
    assert_eq!((remounted, skipped.len()), (13, 0));
    let (passed, mut skipped) = judge(&program, own.path(), &pipe, PJDFSTEST, &[]);
    skipped.retain(|[case, _]| !case.contains(REMOUNTED));
    println!("{cache:?}: {} passed; skipped: {skipped:?}", remounted + passed);
    assert_eq!((remounted + passed, skipped), (397, SKIPPED.map(|why| why.map(String::from)).to_vec()));
    assert!(fs::read_dir(pipe.host("")).unwrap().next().is_none(), "something was left");
}

#[test]
fn root_slow_pjdfstest_auto() {
    pjdfstest(Cache::Auto);
}

#[test]
fn root_slow_pjdfstest_always() {
    pjdfstest(Cache::Always);
}

#[test]
fn root_slow_pjdfstest_never() {
    pjdfstest(Cache::Never);
}

#[test]
fn root_slow_pjdfstest_exclusive() {
    pjdfstest(Cache::Exclusive);
}

/// All kinds of operations, about as often.
const FSX: &str = "
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 3
copy_file_range = 10
fdatasync = 1
fsync = 1
invalidate = 3
mapread = 10
mapwrite = 10
posix_fadvise = 3
posix_fallocate = 5
punch_hole = 10
read = 10
sendfile = 5
truncate = 5
write = 10
";

/// The random content and order of one file's operations; each read is compared.
fn fsx(cache: Cache) {
    if !needs_root() {
        return;
    }
    let Some(program) = program(TEMPORARY, "fsx") else { return };
    let (pipe, own) = (Pipe::new(cache), tempfile::tempdir().unwrap());
    let configuration = own.path().join("fsx.toml");
    fs::write(&configuration, FSX).unwrap();
    for seed in ["2718281828", "3141592653"] {
        println!("{cache:?}: seed {seed}");
        let mut command = Command::new(&program);
        command.args(["-N", "10000", "-S", seed, "-P"]).arg(own.path()).arg("-f").arg(&configuration);
        let Output { status, stdout, stderr } = command.arg(pipe.guest(seed)).output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{cache:?}, seed {seed}: {said}{errors}");
        assert!(fs::metadata(pipe.host(seed)).unwrap().len() <= 1 << 20);
    }
}

#[test]
fn root_slow_fsx_auto() {
    fsx(Cache::Auto);
}

#[test]
fn root_slow_fsx_always() {
    fsx(Cache::Always);
}

#[test]
fn root_slow_fsx_never() {
    fsx(Cache::Never);
}

#[test]
fn root_slow_fsx_exclusive() {
    fsx(Cache::Exclusive);
}

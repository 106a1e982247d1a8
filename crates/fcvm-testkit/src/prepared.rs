//! Machines that are prepared once for all tests, as `fcvm podman prepare` does: tests that do not look at a boot
//! are spared one.
//!
//! They are in a data directory of their own beside the shared assets, together with their images: `hello`, and
//! `idle`, which has users besides. A test's data directory gets the images as they are there, with the very same
//! disks, and what is prepared.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use rustix::fs::{FlockOperation, flock};

use crate::{Entry, Layer, assets, engine::Engine};

/// What the data directory has of an image.
const OF_IMAGES: [&str; 2] = ["blobs", "images"];
/// Longer files are linked; the others, locks and indexes among them, are each test's own.
const SHORT: u64 = 64 << 10;

/// Gives a new data directory what is prepared.
pub(crate) fn link(fcvm: &Path, engine: &Engine, data: &Path) {
    let shared = shared(fcvm, engine);
    for directory in OF_IMAGES {
        copy(&shared.join(directory), &data.join(directory), SHORT).unwrap();
    }
    if engine.kinds.is_empty() {
        return;
    }
    fs::create_dir_all(data.join("cache")).unwrap();
    // A test may remove them: its own names of them.
    copy(&shared.join("cache/warm"), &data.join("cache/warm"), 0).unwrap();
}

/// The directory where it is, with everything in it.
fn shared(fcvm: &Path, engine: &Engine) -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let data = assets::shared(fcvm).unwrap().join("prepared").join(engine.name);
        fs::create_dir_all(&data).unwrap();
        // Of all tests that start at once, one prepares.
        let lock = File::create(data.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let made = data.join("made-with");
        let stamp = stamp(fcvm);
        if fs::read_to_string(&made).is_ok_and(|made| made == stamp) {
            return data;
        }
        for entry in fs::read_dir(&data).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name() != "lock" {
                let remove =
                    if entry.file_type().unwrap().is_dir() { fs::remove_dir_all } else { fs::remove_file };
                remove(entry.path()).unwrap();
            }
        }
        assets::link(fcvm, &data).unwrap();
        prepare(fcvm, engine, &data);
        fs::write(made, stamp).unwrap();
        data
    })
}

fn prepare(fcvm: &Path, engine: &Engine, data: &Path) {
    let sockets = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(fcvm);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", data)
            .env("FCVM_DATA_DIR", data)
            .env("FCVM_RUNTIME_DIR", sockets.path().join("run"))
            .envs(engine.variables.iter().cloned())
            .args(arguments)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed ({})\n{messages}", output.status);
    };
    // That other one is only there as it is usually run.
    let usual =
        engine.kinds.iter().position(|kind| kind.is_empty()).map_or(&[][..], |at| &engine.kinds[at..=at]);
    for (name, layer, kinds) in [("hello", Layer::new().busybox(), engine.kinds), ("idle", idle(), usual)] {
        let tarball = data.join("import.tar");
        fs::write(&tarball, layer.to_tar()).unwrap();
        run(&["image", "import", name, tarball.to_str().unwrap()]);
        fs::remove_file(tarball).unwrap();
        for kind in kinds {
            run(&[&["podman", "prepare"], &engine.options[..], kind, &[name]].concat());
        }
    }
}

/// Busybox, two users and three groups, and a file that is no program.
pub(crate) fn idle() -> Layer {
    Layer::new()
        .busybox()
        .with(Entry::directory("srv"))
        .with(Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"))
        .with(Entry::file("etc/group", "www:x:34:\nlog:x:40:web\n"))
        .with(Entry::file("plain", "no program").mode(0o644))
}

/// What tells a program and an agent from others: what is prepared is theirs alone.
fn stamp(fcvm: &Path) -> String {
    let agent = fcvm.parent().unwrap().join("../libexec/fcvm/fc-agent");
    let parts = [fcvm, &agent].map(|path| {
        let file = fs::metadata(path).unwrap();
        format!("{} {}.{} {}\n", path.display(), file.mtime(), file.mtime_nsec(), file.len())
    });
    parts.concat()
}

/// Copies a directory; files that are not as short as that have both names then.
fn copy(from: &Path, to: &Path, short: u64) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &copied, short)?;
        } else if entry.metadata()?.len() >= short {
            fs::hard_link(&path, &copied)?;
        } else {
            fs::copy(&path, &copied)?;
        }
    }
    Ok(())
}

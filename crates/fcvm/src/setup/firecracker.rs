//! Firecracker's release, for hosts that can run it and have none.
//!
//! The archive has a directory with `firecracker-VERSION-ARCH`, `jailer-VERSION-ARCH` and tools; the
//! first two are kept, as `firecracker` and `jailer`.

use std::{
    env,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::Archive;

use super::{
    SetupError, download,
    plan::{PLAN_FILE, Plan, Release},
};
use crate::{
    hypervisor::{self, HypervisorError, Virtualization},
    output::Printer,
    storage::{AtomicFile, DataDir},
};

/// Largest archive, and largest program in it. They have 9 MB and 4 MB.
const ARCHIVE_LIMIT: usize = 128 << 20;
const PROGRAM_LIMIT: u64 = 64 << 20;
/// What is kept of it.
const PROGRAMS: [&str; 2] = ["firecracker", "jailer"];
/// The digest of the archive that the programs came from.
const ORIGIN: &str = "release.sha256";

/// What to do where the network does not give it.
pub(super) const BY_HAND: &str =
    "where you have its release, put `firecracker` into PATH or name it with FCVM_FIRECRACKER";

/// When Firecracker is downloaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fetch {
    /// Where KVM can run it and there is none.
    #[default]
    WhereUseful,
    /// In any case.
    Always,
}

/// Downloads what the plan names, where that is wanted and not there; its program.
///
/// # Errors
/// Where it was asked for and cannot be had. Where it would only have been useful, a warning tells.
pub fn ensure(
    plan: &Plan,
    fetch: Fetch,
    data: &DataDir,
    printer: &Printer,
) -> Result<Option<PathBuf>, SetupError> {
    let useful = || {
        let given = env::var_os("FCVM_FIRECRACKER").map(PathBuf::from);
        hypervisor::virtualization() == Virtualization::Kvm
            && matches!(
                hypervisor::firecracker::find(given.as_deref(), data),
                Err(HypervisorError::NoFirecracker | HypervisorError::OldVersion { .. })
            )
    };
    if fetch == Fetch::WhereUseful && !useful() {
        return Ok(None);
    }
    let Some(release) = plan.firecracker.get(env::consts::ARCH) else {
        return match fetch {
            Fetch::Always => Err(SetupError::NoRelease { arch: env::consts::ARCH }),
            Fetch::WhereUseful => Ok(None),
        };
    };
    let release =
        release.release().map_err(|source| SetupError::InvalidPlan { path: PLAN_FILE.into(), source })?;
    match install(&release, &data.firecracker(), printer) {
        Ok(program) => Ok(Some(program)),
        Err(error) if fetch == Fetch::WhereUseful => {
            let error = anyhow::Error::from(error);
            printer.warn(format_args!(
                "Firecracker could not be downloaded, VMs will run on QEMU: {error:#}; {BY_HAND}"
            ));
            Ok(None)
        }
        Err(error) => Err(SetupError::Firecracker { source: Box::new(error) }),
    }
}

fn install(release: &Release, directory: &Path, printer: &Printer) -> Result<PathBuf, SetupError> {
    let program = directory.join(PROGRAMS[0]);
    let origin = directory.join(ORIGIN);
    let there = PROGRAMS.iter().all(|name| directory.join(name).exists());
    if there && std::fs::read_to_string(&origin).is_ok_and(|from| from.trim() == release.sha256.to_string()) {
        return Ok(program);
    }
    let progress = printer.progress("Firecracker");
    let archive = download::fetch(&release.url, release.sha256, ARCHIVE_LIMIT, &progress)?;
    let store = || -> io::Result<()> {
        fs_err::create_dir_all(directory)?;
        for (name, bytes) in PROGRAMS.iter().zip(unpack(&archive)?) {
            let mut file = AtomicFile::create(&directory.join(name))?;
            file.file_mut().write_all(&bytes)?;
            file.make_executable()?;
            file.commit()?;
        }
        AtomicFile::write(&origin, format!("{}\n", release.sha256).as_bytes())
    };
    store().map_err(|source| SetupError::io("install Firecracker in", directory, source))?;
    progress.done(&release.url);
    Ok(program)
}

/// The programs of an archive whose digest is known.
fn unpack(archive: &[u8]) -> io::Result<[Vec<u8>; PROGRAMS.len()]> {
    let mut programs = [const { Vec::new() }; PROGRAMS.len()];
    let suffix = format!("-{}", env::consts::ARCH);
    for entry in Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        let Some(stem) = name.strip_suffix(&suffix) else { continue };
        let of = |program: &str| stem.strip_prefix(program).is_some_and(|version| version.starts_with("-v"));
        if let Some(index) = PROGRAMS.iter().position(|program| of(program)) {
            entry.by_ref().take(PROGRAM_LIMIT).read_to_end(&mut programs[index])?;
        }
    }
    match programs.iter().position(Vec::is_empty) {
        None => Ok(programs),
        Some(index) => {
            let text = format!("the archive has no {} for {}", PROGRAMS[index], env::consts::ARCH);
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::hash::Digest;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            tar.append_data(&mut header, format!("release/{name}"), name.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn the_programs_are_found_among_tools_and_debug_files() {
        let arch = env::consts::ARCH;
        let of = |program: &str| format!("{program}-v1.16.1-{arch}");
        let debug = format!("{}.debug", of("firecracker"));
        let names =
            [&debug, &of("cpu-template-helper"), &of("firecracker"), &of("jailer"), &of("seccompiler-bin")];
        let [firecracker, jailer] = unpack(&archive(&names.map(String::as_str))).unwrap();
        assert_eq!(firecracker, of("firecracker").into_bytes());
        assert_eq!(jailer, of("jailer").into_bytes());
        let error = unpack(&archive(&[&of("firecracker")])).unwrap_err();
        assert!(error.to_string().contains("no jailer"), "{error}");
        assert!(unpack(b"not gzip").is_err());
    }

    #[test]
    fn a_release_is_downloaded_once_and_only_where_it_is_the_plans() {
        let arch = env::consts::ARCH;
        let names = [format!("firecracker-v1.16.1-{arch}"), format!("jailer-v1.16.1-{arch}")];
        let archive = archive(&names.each_ref().map(String::as_str));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/fc.tgz", listener.local_addr().unwrap());
        let sha256 = Digest::of(&archive);
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                let length = archive.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &archive].concat()).unwrap();
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("firecracker");
        let printer = Printer::from_env();
        let wrong = Release { url: url.clone(), sha256: Digest::of(b"another") };
        let error = install(&wrong, &target, &printer).unwrap_err();
        assert!(matches!(error, SetupError::WrongDigest { .. }), "{error}");
        assert!(!target.exists());
        let release = Release { url, sha256 };
        for _ in 0..2 {
            let program = install(&release, &target, &printer).unwrap();
            assert_eq!(fs_err::read_to_string(&program).unwrap(), names[0]);
            assert_eq!(program.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        }
        server.join().unwrap();
    }
}

//! Writes the initial RAM file system: the agent and the modules it loads.
//!
//! An uncompressed newc archive (the kernel unpacks it faster than any
//! compression, and it is read from the page cache):
//!
//! ```text
//! /init                                the agent, PID 1
//! /modules                             what to load, in load order
//! /lib/modules/RELEASE/NAME.ko         the modules, decompressed
//! /dev/console                         where the kernel points PID 1's streams
//! /base /scratch /newroot /proc /run /sys    empty, to mount on
//! ```
//!
//! `/modules` is text. Its first line is `fcvm-modules 1`; every other line is
//! `STAGE NAME PATH DEPENDS`, separated by one space: the stage is `boot` (load it
//! at every boot) or `demand` (load it, after what it depends on, when it turns out
//! to be needed); the name is normalised (`_`, never `-`); the path is absolute; the
//! last field has the names of the modules it directly depends on, separated by
//! commas, or is `-`. A dependency comes before its users, so whoever needs the boot
//! stage loads its lines one after the other. No line: everything is built in.
//!
//! The same input gives the same bytes.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::{Path, PathBuf},
};

use cpio::{NewcBuilder, newc::ModeFileType};

use super::{
    SetupError, agent,
    kernel::{Kernel, ListedModule},
    manifest::Manifest,
    modules::Stage,
};
use crate::{
    hash::{Digest, Hasher},
    storage::{AtomicFile, DataDir},
};

/// Version of the archive's content; part of its key.
const FORMAT: u32 = 1;

const DIRECTORIES: [&str; 10] =
    ["base", "dev", "lib", "lib/modules", "newroot", "proc", "run", "scratch", "sys", "tmp"];

/// Where the initrd of this kernel and agent lies.
pub(super) fn path(kernel: &Kernel, agent: Digest, data: &DataDir) -> Result<PathBuf, SetupError> {
    let list = fs_err::read(kernel.directory.join("modules.json"))
        .map_err(|_| SetupError::Corrupt { path: kernel.directory.join("modules.json") })?;
    let text = format!("{FORMAT} {} {} {} {agent}", kernel.digest, kernel.release, Digest::of(&list));
    Ok(data.initrd().join(format!("{}.cpio", Digest::of(text.as_bytes()).short())))
}

/// Makes it.
pub(super) fn make(kernel: &Kernel, agent: &Path, target: &Path) -> Result<(), SetupError> {
    let program = agent::read(agent)?;
    let mut modules = Vec::new();
    for module in kernel.modules()?.modules {
        let file = kernel.module_file(&module.name);
        let bytes = fs_err::read(&file).map_err(|_| SetupError::Corrupt { path: file })?;
        modules.push((module, bytes));
    }
    let write = || -> io::Result<()> {
        Manifest::forget(target)?;
        let mut file = AtomicFile::create(target)?;
        let bytes = write_archive(Vec::new(), &program, &kernel.release, &modules)?;
        file.file_mut().write_all(&bytes)?;
        file.commit()?;
        let mut hasher = Hasher::default();
        hasher.write_all(&bytes)?;
        Manifest::record(target, Some(hasher.finish()))
    };
    write().map_err(|source| SetupError::io("write initrd", target, source))
}

fn write_archive<W: Write>(
    out: W,
    agent: &[u8],
    release: &str,
    modules: &[(ListedModule, Vec<u8>)],
) -> io::Result<W> {
    let mut archive = Archive { out, inode: 0 };
    for directory in DIRECTORIES {
        archive.add(directory, Kind::Directory, &[])?;
    }
    let directory = format!("lib/modules/{release}");
    archive.add(&directory, Kind::Directory, &[])?;
    archive.add("dev/console", Kind::Console, &[])?;
    archive.add("init", Kind::Program, agent)?;
    let mut list = "fcvm-modules 1\n".to_owned();
    for (ListedModule { name, stage, depends }, bytes) in modules {
        let path = format!("{directory}/{name}.ko");
        archive.add(&path, Kind::File, bytes)?;
        let stage = match stage {
            Stage::Boot => "boot",
            Stage::Demand => "demand",
        };
        let depends: Vec<_> = depends.iter().map(|name| name.as_str()).collect();
        let depends = if depends.is_empty() { "-".to_owned() } else { depends.join(",") };
        writeln!(list, "{stage} {name} /{path} {depends}").map_err(io::Error::other)?;
    }
    archive.add("modules", Kind::File, list.as_bytes())?;
    cpio::newc::trailer(archive.out)
}

enum Kind {
    Directory,
    File,
    Program,
    Console,
}

struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, kind: Kind, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let entry = NewcBuilder::new(name).ino(self.inode).nlink(1).uid(0).gid(0).mtime(0);
        let entry = match kind {
            Kind::Directory => entry.mode(0o755).set_mode_file_type(ModeFileType::Directory).nlink(2),
            Kind::File => entry.mode(0o644).set_mode_file_type(ModeFileType::Regular),
            Kind::Program => entry.mode(0o755).set_mode_file_type(ModeFileType::Regular),
            Kind::Console => {
                entry.mode(0o600).set_mode_file_type(ModeFileType::Char).rdev_major(5).rdev_minor(1)
            }
        };
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = entry.write(&mut self.out, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let module = |name: &str, stage, depends: &[&str]| ListedModule {
            name: name.parse().unwrap(),
            stage,
            depends: depends.iter().map(|name| name.parse().unwrap()).collect(),
        };
        let modules = [
            (module("virtio-blk", Stage::Boot, &[]), b"blk".to_vec()),
            (module("failover", Stage::Demand, &[]), b"over".to_vec()),
            (module("virtio_net", Stage::Demand, &["failover", "net-failover"]), b"net".to_vec()),
        ];
        write_archive(Vec::new(), b"agent", "6.12", &modules).unwrap()
    }

    #[test]
    fn the_archive_holds_what_the_agent_looks_for() {
        let bytes = archive();
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            assert_eq!((entry.mtime(), entry.uid()), (0, 0));
            let (name, mode) = (entry.name().to_owned(), entry.mode());
            let mut content = String::new();
            io::Read::read_to_string(&mut reader, &mut content).unwrap();
            found.push((name, mode, content));
            rest = reader.finish().unwrap();
        }
        let get = |name: &str| found.iter().find(|entry| entry.0 == name).unwrap();
        assert_eq!((get("init").1, get("init").2.as_str()), (0o100_755, "agent"));
        assert_eq!(get("dev/console").1, 0o020_600);
        assert_eq!(get("scratch").1, 0o040_755);
        assert_eq!(get("lib/modules/6.12/virtio_blk.ko").2, "blk");
        assert_eq!(
            get("modules").2,
            "fcvm-modules 1\n\
             boot virtio_blk /lib/modules/6.12/virtio_blk.ko -\n\
             demand failover /lib/modules/6.12/failover.ko -\n\
             demand virtio_net /lib/modules/6.12/virtio_net.ko failover,net_failover\n"
        );
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(archive(), archive());
    }
}

//! A guest's memory, read out of the process that has it.
//!
//! A machine that booted has it in pages without a file; one that goes on from a snapshot maps the snapshot's
//! file privately, so that what it has written is in pages without a file, too. Those are what a snapshot has
//! beyond the file: the kernel tells which they are (`/proc/PID/pagemap`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSliceMut},
    num::NonZero,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use procfs::process::{MMPermissions, MMapPath, Process};

use crate::storage::cow;

/// Of a page.
const PAGE: usize = 4096;
/// An entry of `pagemap`: bits of `Documentation/admin-guide/mm/pagemap.rst`.
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
/// Pages that are read and compared at a time: what stays in a processor's cache.
const CHUNK: usize = 64;
/// More threads than that only wait for memory.
const MOST_THREADS: usize = 4;

/// The memory of one machine.
#[derive(Debug)]
pub(super) struct Memory {
    pid: i32,
    length: u64,
    base: Option<PathBuf>,
}

impl Memory {
    /// Of a process that has so many bytes of it: those of a file, or none, and what was written since.
    pub(super) fn of(pid: i32, length: u64, base: Option<PathBuf>) -> Self {
        // As the kernel tells it.
        let base = base.map(|base| fs::canonicalize(&base).unwrap_or(base));
        Self { pid, length, base }
    }

    /// Makes a file the same as the memory, which is made where it is not there. Of a machine that runs
    /// meanwhile it is then mostly the same, and a second time is quick.
    ///
    /// # Errors
    /// Where the memory cannot be read, or the file written.
    pub(super) fn update(&self, path: &Path) -> io::Result<()> {
        let file = self.file(path)?;
        let address = self.address()?;
        let pages = private_pages(self.pid, address, self.length)?;
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let share = pages.iter().map(ExactSizeIterator::len).sum::<usize>().div_ceil(threads).max(1);
        let parts = split(&pages, share);
        thread::scope(|scope| {
            let parts = parts.iter().map(|part| scope.spawn(|| copy(self.pid, address, part, &file)));
            // All have begun before the first is waited for.
            let parts: Vec<_> = parts.collect();
            parts
                .into_iter()
                .try_for_each(|part| part.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
        })
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => return file,
        }
        match &self.base {
            Some(base) => {
                cow::copy(base, path)?;
                options.open(path)
            }
            None => {
                let file = options.create_new(true).open(path)?;
                file.set_len(self.length)?;
                Ok(file)
            }
        }
    }

    /// Where it is in the process: the one mapping of that length that can be written to, and not executed.
    fn address(&self) -> io::Result<u64> {
        let maps = Process::new(self.pid).and_then(|process| process.maps()).map_err(io::Error::other)?;
        let mut found = maps.iter().filter(|map| {
            let usual = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::PRIVATE;
            let is_it = match (&map.pathname, &self.base) {
                (MMapPath::Path(path), Some(base)) => path == base,
                (MMapPath::Anonymous, None) => true,
                _ => false,
            };
            is_it && map.perms == usual && map.address.1 - map.address.0 == self.length
        });
        match (found.next(), found.next()) {
            (Some(map), None) => Ok(map.address.0),
            _ => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the guest's memory is not found in the hypervisor's process",
            )),
        }
    }
}

/// The pages, counted from the address, that are not those of a file.
fn private_pages(pid: i32, address: u64, length: u64) -> io::Result<Vec<Range<usize>>> {
    let page = PAGE as u64;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut entries = vec![0; usize::try_from(length / page).map_err(io::Error::other)? * ENTRY];
    pagemap.read_exact_at(&mut entries, address / page * ENTRY as u64)?;
    let is_private = |entry: &[u8; ENTRY]| {
        let entry = u64::from_ne_bytes(*entry);
        entry & OF_FILE == 0 && entry & (PRESENT | SWAPPED) != 0
    };
    let private = entries.as_chunks().0.iter().map(is_private);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (number, _) in private.enumerate().filter(|(_, is_private)| *is_private) {
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }
    Ok(ranges)
}

/// Ranges in parts of so many pages.
fn split(ranges: &[Range<usize>], share: usize) -> Vec<Vec<Range<usize>>> {
    let mut parts = vec![Vec::new()];
    let mut left = share;
    for range in ranges {
        let mut range = range.clone();
        while !range.is_empty() {
            if left == 0 {
                parts.push(Vec::new());
                left = share;
            }
            let taken = range.len().min(left);
            if let Some(part) = parts.last_mut() {
                part.push(range.start..range.start + taken);
            }
            range.start += taken;
            left -= taken;
        }
    }
    parts
}

/// Writes those pages to the file that are other ones there: a hole has zeros.
fn copy(pid: i32, address: u64, pages: &[Range<usize>], file: &File) -> io::Result<()> {
    let (mut now, mut there) = (vec![0; CHUNK * PAGE], vec![0; CHUNK * PAGE]);
    for range in pages {
        for first in range.clone().step_by(CHUNK) {
            let length = (range.end - first).min(CHUNK) * PAGE;
            let (now, there) = (&mut now[..length], &mut there[..length]);
            let at = (first * PAGE) as u64;
            read(pid, address + at, now)?;
            file.read_exact_at(there, at)?;
            write_changed(file, at, now, there)?;
        }
    }
    Ok(())
}

fn read(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let base = usize::try_from(address).map_err(io::Error::other)?;
    let wanted = buffer.len();
    let remote = [RemoteIoVec { base, len: wanted }];
    let read = process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(buffer)], &remote)?;
    if read == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes pages that changed, those in a row at once.
fn write_changed(file: &File, at: u64, now: &[u8], there: &[u8]) -> io::Result<()> {
    let changed = |from: usize| now[from..from + PAGE] != there[from..from + PAGE];
    let mut from = 0;
    while from < now.len() {
        let mut to = from;
        while to < now.len() && changed(to) {
            to += PAGE;
        }
        if to > from {
            file.write_all_at(&now[from..to], at + from as u64)?;
        }
        // The one at `to` has not changed.
        from = to + PAGE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn parts_are_equal_and_whole() {
        assert_eq!(split(&[0..2, 3..6, 8..9], 3), [[0..2, 3..4], [4..6, 8..9]]);
        assert_eq!(split(&[], 4), [Vec::<Range<usize>>::new()]);
    }

    #[test]
    fn only_what_changed_is_written_and_zeros_stay_holes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory.bin");
        let memory = Memory::of(0, 64 << 20, None);
        let file = memory.file(&path).unwrap();
        let (mut now, mut there) = (vec![0; 8 * PAGE], vec![1; 8 * PAGE]);
        now[2 * PAGE + 5] = 7;
        now[3 * PAGE] = 8;
        now[7 * PAGE + PAGE - 1] = 9;
        file.read_exact_at(&mut there, 1 << 20).unwrap();
        write_changed(&file, 1 << 20, &now, &there).unwrap();
        file.read_exact_at(&mut there, 1 << 20).unwrap();
        assert!(now == there);
        assert!(file.metadata().unwrap().blocks() * 512 <= 4 * PAGE as u64);
        // What is there is gone on with.
        let again = memory.file(&path).unwrap();
        assert_eq!(again.metadata().unwrap().ino(), file.metadata().unwrap().ino());
    }
}

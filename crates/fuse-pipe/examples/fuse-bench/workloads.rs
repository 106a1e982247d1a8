//! What is measured, of one directory.
//!
//! [`prepare`] makes the files beforehand, so that the host has them in its page cache. *Cold* means that the
//! directory's own caches are empty: what is mounted is mounted anew.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    fs::{Advice, AtFlags, Mode, OFlags, RawDir, StatxFlags, fadvise, open, statx},
    param::page_size,
};

use crate::rows::Row;

const FILES: usize = 1024;
const FILE: usize = 4096;
const BIG: usize = 512 << 20;
const DIRECT: usize = 64 << 20;
/// Directories of 1,000 files, each listed once a round.
const LISTED: usize = 5;
/// Of the archive.
const TREE: (usize, usize) = (80, 100);
/// Repetitions of a single operation.
const OPERATIONS: usize = 2000;

/// Where the archive is that is unpacked.
const ARCHIVE: &str = "archive.tar";

/// Makes what is read, in a directory of the host, and an archive in `scratch`.
pub(crate) fn prepare(directory: &Path, scratch: &Path) -> Result<()> {
    fs::create_dir(directory.join("small"))?;
    for number in 0..FILES {
        fs::write(directory.join(format!("small/{number}")), [7; FILE])?;
    }
    for listed in 0..LISTED {
        fs::create_dir(directory.join(format!("list{listed}")))?;
        for number in 0..1000 {
            File::create(directory.join(format!("list{listed}/file{number}")))?;
        }
    }
    fill(&directory.join("big"), BIG)?;
    fill(&directory.join("direct"), DIRECT)?;
    // The tree once as an archive and once as a repository.
    let repository = directory.join("repository");
    for (number, sub) in (0..TREE.0).flat_map(|sub| (0..TREE.1).map(move |number| (number, sub))) {
        let path = repository.join(format!("{sub}"));
        if number == 0 {
            fs::create_dir_all(&path)?;
        }
        fs::write(path.join(format!("{number}")), vec![7; 512 + 32 * number])?;
    }
    run(Command::new("tar").arg("cf").arg(scratch.join(ARCHIVE)).arg("-C").arg(&repository).arg("."))?;
    if installed("git") {
        let git = |arguments: &[&str]| run(Command::new("git").arg("-C").arg(&repository).args(arguments));
        git(&["init", "--quiet"])?;
        git(&["add", "."])?;
        git(&["-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "-m", "x"])?;
    }
    Ok(())
}

fn fill(path: &Path, size: usize) -> Result<()> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..1 << 20).map(|number: u32| (number >> 3).to_le_bytes()[0]).collect();
    for _ in 0..size >> 20 {
        file.write_all(&block)?;
    }
    // Clean pages: writing them out later would disturb what is measured.
    Ok(file.sync_all()?)
}

/// All rows, once. `cold` empties the directory's own caches; without it the rows that need it are left out.
pub(crate) fn measure(
    directory: &Path,
    scratch: &Path,
    mut cold: Option<&mut dyn FnMut() -> Result<()>>,
) -> Result<Vec<(Row, f64)>> {
    let mut values = Vec::new();
    for (threads, first, again) in [
        (256, Row::Read256Cold, Row::Read256Warm),
        (16, Row::Read16Cold, Row::Read16Warm),
        (1, Row::Read1Cold, Row::Read1Warm),
    ] {
        let small = directory.join("small");
        let read = |number: usize| -> Result<()> {
            let mut content = [0; FILE];
            Ok(File::open(small.join(number.to_string()))?.read_exact(&mut content)?)
        };
        if let Some(cold) = &mut cold {
            cold()?;
            values.push((first, milliseconds(|| each(threads, read))?));
        } else {
            each(threads, read)?;
        }
        values.push((again, milliseconds(|| each(threads, read))?));
    }
    for (threads, first, again) in
        [(256, Row::Write256First, Row::Write256), (1, Row::Write1First, Row::Write1)]
    {
        let written = directory.join("written");
        fs::create_dir(&written)?;
        let write = |number: usize| -> Result<()> {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).open(written.join(number.to_string()))?;
            file.write_all_at(&[9; FILE], 0)?;
            Ok(file.sync_all()?)
        };
        values.push((first, milliseconds(|| each(threads, write))?));
        values.push((again, milliseconds(|| each(threads, write))?));
        fs::remove_dir_all(&written)?;
    }
    if let Some(cold) = &mut cold {
        cold()?;
    }
    values.extend(operations(directory)?);
    if let Some(cold) = &mut cold {
        cold()?;
        values.push((Row::Readdir, list(directory)?));
    }
    values.push((Row::ReaddirAgain, list(directory)?));
    if let Some(cold) = &mut cold {
        cold()?;
        let seconds = milliseconds(|| sequential(&directory.join("big")))? / 1000.0;
        values.push((Row::Sequential, (BIG >> 20) as f64 / seconds));
    }
    values.push((Row::Direct, direct(&directory.join("direct"))?));
    let tree = directory.join("tree");
    fs::create_dir(&tree)?;
    let untar = || run(Command::new("tar").arg("xf").arg(scratch.join(ARCHIVE)).arg("-C").arg(&tree));
    values.push((Row::Untar, milliseconds(untar)?));
    if let Some(cold) = &mut cold {
        cold()?;
        values.push((Row::Du, milliseconds(|| run(Command::new("du").arg("-s").arg(&tree)))?));
    }
    values.push((Row::Remove, milliseconds(|| run(Command::new("rm").arg("-rf").arg(&tree)))?));
    if let Some(cold) = &mut cold
        && installed("git")
    {
        cold()?;
        let repository = directory.join("repository");
        let status = || run(Command::new("git").arg("-C").arg(&repository).args(["status", "--short"]));
        values.push((Row::GitStatus, milliseconds(status)?));
    }
    Ok(values)
}

/// The single operations, by their medians.
fn operations(directory: &Path) -> Result<Vec<(Row, f64)>> {
    let path = directory.join("small/0");
    let file = File::open(&path)?;
    let forced = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let getattr = median(OPERATIONS, |_| {
        statx(&file, c"", forced, StatxFlags::BASIC_STATS)?;
        Ok(())
    })?;
    // A name is asked for once: that it is not there may be kept.
    let nonce = Instant::now();
    let names: Vec<_> =
        (0..OPERATIONS).map(|number| directory.join(format!("none{number}{nonce:?}"))).collect();
    let miss = median(OPERATIONS, |number| {
        ensure!(fs::symlink_metadata(&names[number]).is_err(), "it is there");
        Ok(())
    })?;
    let open_close = median(OPERATIONS, |_| {
        File::open(&path)?;
        Ok(())
    })?;

    let big = File::open(directory.join("direct"))?;
    fadvise(&big, 0, None, Advice::Random)?;
    let mut block = [0; FILE];
    // Not of the host's: it is to be found there.
    let uncached = median(OPERATIONS, |number| {
        let at = (number * 37 % (DIRECT / FILE) * FILE) as u64;
        Ok(big.read_exact_at(&mut block, at)?)
    })?;
    let made = directory.join("made");
    let create = median(OPERATIONS, |_| {
        File::create(&made)?;
        Ok(fs::remove_file(&made)?)
    })?;
    Ok(vec![
        (Row::Getattr, getattr),
        (Row::Miss, miss),
        (Row::OpenClose, open_close),
        (Row::ReadUncached, uncached),
        (Row::CreateUnlink, create),
    ])
}

/// The median over the directories of listing one, in microseconds.
fn list(directory: &Path) -> Result<f64> {
    median(LISTED, |number| {
        let path = directory.join(format!("list{number}"));
        let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut names = 0;
        while let Some(entry) = entries.next() {
            entry?;
            names += 1;
        }
        // Not every server tells of the directory itself and of its parent.
        ensure!((1000..=1002).contains(&names), "{names} names");
        Ok(())
    })
}

fn sequential(path: &Path) -> Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? != 0 {}
    Ok(())
}

/// Thousands of random reads a second, 32 at a time.
fn direct(path: &Path) -> Result<f64> {
    const THREADS: usize = 32;
    const EACH: usize = 256;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let took = milliseconds(|| {
        in_threads(THREADS, |thread| {
            // A page has to begin where the kernel's do.
            let mut buffer = vec![0; FILE + page_size()];
            let start = buffer.as_ptr().align_offset(page_size());
            for number in 0..EACH {
                let block = (thread * 7919 + number * 104_729) % (DIRECT / FILE);
                file.read_exact_at(&mut buffer[start..start + FILE], (block * FILE) as u64)?;
            }
            Ok(())
        })
    })?;
    Ok((THREADS * EACH) as f64 / took)
}

/// Does it with each file, in so many threads.
fn each(threads: usize, one: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    in_threads(threads, |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= FILES {
                return Ok(());
            }
            one(number)?;
        }
    })
}

fn in_threads(threads: usize, one: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    if threads == 1 {
        return one(0);
    }
    thread::scope(|scope| {
        let one = &one;
        let all: Vec<_> = (0..threads).map(|number| scope.spawn(move || one(number))).collect();
        all.into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

fn milliseconds(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Of so many times, in microseconds.
fn median(times: usize, mut what: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut all = Vec::with_capacity(times);
    for number in 0..times {
        let start = Instant::now();
        what(number)?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(Duration::as_secs_f64(&all[times / 2]) * 1e6)
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn run(command: &mut Command) -> Result<()> {
    let status =
        command.stdout(Stdio::null()).status().with_context(|| format!("failed to run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

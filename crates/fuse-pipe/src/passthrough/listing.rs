//! Names that were read of a directory and have not been asked for yet.
//!
//! The host tells of a directory in chunks, and the client asks for less at once: older kernels for a page. What
//! is left of a chunk is kept for the next request, which mostly goes on where the last one ended; else each
//! would have the host read the same names again. Of a directory whose files are looked at as well little is
//! read at first, and the next chunk once that has been answered: the client takes in those files meanwhile.

use std::{
    ffi::CStr,
    fs::File,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::{
    fs::{FileType, RawDir, RawDirEntry, SeekFrom, seek},
    io::Errno,
};

use crate::abi::Dirent;

/// How much is read of a directory at once, in bytes.
pub(super) const CHUNK: usize = 32 << 10;
/// So many names left are as many as a client asks for at once, with their files.
const ENOUGH: usize = 256;
/// How many directories of a client may have something left: it may have any number open.
const MOST: usize = 256;

/// How many directories have something left.
#[derive(Debug, Default, Clone)]
pub(super) struct Count(Arc<AtomicUsize>);

/// One of those that are counted.
#[derive(Debug)]
struct Counted(Count);

impl Count {
    /// `None` where there are too many.
    fn more(&self) -> Option<Counted> {
        let more = |count| (count < MOST).then_some(count + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Counted(self.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a CStr,
    pub(super) head: Dirent,
}

/// Whether there was room for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// It is to be told again.
    Lacking,
}

/// How far a directory has been read. Its file's position is behind what is left.
#[derive(Debug, Default)]
pub(crate) struct Listing(Option<Left>);

/// What has been read and not been told.
#[derive(Debug)]
struct Left {
    /// Where the first of the entries is in its directory.
    position: u64,
    /// All of a chunk, told ones too.
    heads: Vec<Dirent>,
    /// Their names, each with its end.
    names: Vec<u8>,
    /// Which entry, and which byte of the names, is the first that is left.
    start: (usize, usize),
    _counted: Counted,
}

impl Listing {
    /// Tells of entries from a position on, which is 0 or one that an entry before had, until there are no more
    /// or no room for them. The host is asked for chunks of so many bytes, [`CHUNK`] at most.
    pub(super) fn read(
        &mut self,
        directory: &File,
        mut position: u64,
        chunk: usize,
        count: &Count,
        mut tell: impl FnMut(&Entry<'_>) -> Result<Room, Errno>,
    ) -> Result<(), Errno> {
        // From the beginning it is read as it is now.
        match self.0.take().filter(|left| left.position == position && position != 0) {
            Some(mut left) => {
                while let Some(entry) = left.first()? {
                    if tell(&entry)? == Room::Lacking {
                        self.0 = Some(left);
                        return Ok(());
                    }
                    position = entry.head.off;
                    left.start = (left.start.0 + 1, left.start.1 + entry.name.count_bytes() + 1);
                    left.position = position;
                }
            }
            // Positions may be any numbers: those of ext4 are hashes.
            None => drop(seek(directory, SeekFrom::Start(position))?),
        }
        let mut buffer = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(directory, &mut buffer[..chunk.min(CHUNK)]);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let entry = Entry::new(&entry)?;
            if tell(&entry)? == Room::Enough {
                position = entry.head.off;
            } else if let Some(counted) = count.more() {
                let mut left = Left::new(position, counted);
                left.push(&entry);
                left.push_rest(&mut entries)?;
                self.0 = Some(left);
                break;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Whether the next request is likely to want more than what is left.
    pub(super) fn lacks(&self) -> bool {
        self.0.as_ref().is_some_and(|left| left.heads.len() - left.start.0 < ENOUGH)
    }

    /// Has a chunk more left, if there is any.
    pub(super) fn read_on(&mut self, directory: &File) -> Result<(), Errno> {
        // Where this fails, the next request begins with its position.
        let Some(mut left) = self.0.take() else { return Ok(()) };
        left.drop_told();
        let mut buffer = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(directory, &mut buffer);
        if let Some(first) = entries.next() {
            left.push(&Entry::new(&first?)?);
            left.push_rest(&mut entries)?;
        }
        self.0 = Some(left);
        Ok(())
    }
}

impl Left {
    fn new(position: u64, counted: Counted) -> Self {
        Self { position, heads: Vec::new(), names: Vec::new(), start: (0, 0), _counted: counted }
    }

    fn push(&mut self, entry: &Entry<'_>) {
        self.heads.push(entry.head);
        self.names.extend_from_slice(entry.name.to_bytes_with_nul());
    }

    /// What of a chunk has not been looked at.
    fn push_rest(&mut self, entries: &mut RawDir<'_, &File>) -> Result<(), Errno> {
        while !entries.is_buffer_empty()
            && let Some(entry) = entries.next()
        {
            self.push(&Entry::new(&entry?)?);
        }
        Ok(())
    }

    fn drop_told(&mut self) {
        let (heads, names) = std::mem::take(&mut self.start);
        self.heads.drain(..heads);
        self.names.drain(..names);
    }

    fn first(&self) -> Result<Option<Entry<'_>>, Errno> {
        let Some(&head) = self.heads.get(self.start.0) else { return Ok(None) };
        let name = CStr::from_bytes_until_nul(&self.names[self.start.1..]).map_err(|_| Errno::IO)?;
        Ok(Some(Entry { name, head }))
    }
}

impl<'a> Entry<'a> {
    fn new(entry: &'a RawDirEntry<'_>) -> Result<Self, Errno> {
        let name = entry.file_name();
        let head = Dirent {
            ino: entry.ino(),
            off: entry.next_entry_cookie(),
            namelen: u32::try_from(name.count_bytes()).map_err(|_| Errno::NAMETOOLONG)?,
            kind: kind(entry.file_type()),
        };
        Ok(Self { name, head })
    }
}

/// `DT_*` of readdir(3).
fn kind(kind: FileType) -> u32 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A directory of so many files, their names of many lengths.
    fn directory(files: usize) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in 0..files {
            File::create_new(directory.path().join(format!("{file}{}", "x".repeat(file % 97)))).unwrap();
        }
        directory
    }

    fn names(directory: &std::path::Path) -> BTreeSet<String> {
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let dots = [".", ".."].map(str::to_owned);
        std::fs::read_dir(directory).unwrap().map(name).chain(dots).collect()
    }

    /// Up to so many entries from a position on, with the position of the next.
    fn some(
        listing: &mut Listing,
        of: &File,
        position: u64,
        most: usize,
        count: &Count,
    ) -> Vec<(String, u64)> {
        let mut told = Vec::new();
        listing
            .read(of, position, CHUNK, count, |entry| {
                if told.len() == most {
                    return Ok(Room::Lacking);
                }
                assert_eq!(entry.head.namelen as usize, entry.name.count_bytes());
                told.push((entry.name.to_str().unwrap().to_owned(), entry.head.off));
                Ok(Room::Enough)
            })
            .unwrap();
        told
    }

    #[test]
    fn every_name_is_told_once_however_few_at_a_time() {
        let directory = directory(3000);
        let file = File::open(directory.path()).unwrap();
        let count = Count::default();
        for most in [1, 7, 24, 1000, 5000] {
            let (mut listing, mut position, mut all) = (Listing::default(), 0, Vec::new());
            loop {
                let told = some(&mut listing, &file, position, most, &count);
                let Some(last) = told.last() else { break };
                position = last.1;
                all.extend(told.into_iter().map(|(name, _)| name));
            }
            assert_eq!(all.len(), 3002, "{most} at a time");
            assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), names(directory.path()));
            assert_eq!(count.0.load(Relaxed), 0, "nothing is left");
        }
    }

    #[test]
    fn what_is_read_ahead_is_told_once_as_well() {
        let directory = directory(3000);
        let file = File::open(directory.path()).unwrap();
        let count = Count::default();
        for most in [1, 50, 200] {
            let (mut listing, mut position, mut all) = (Listing::default(), 0, Vec::new());
            loop {
                let (mut told, from) = (0, position);
                let tell = |entry: &Entry<'_>| {
                    if told == most {
                        return Ok(Room::Lacking);
                    }
                    told += 1;
                    position = entry.head.off;
                    all.push(entry.name.to_str().unwrap().to_owned());
                    Ok(Room::Enough)
                };
                listing.read(&file, from, CHUNK / 8, &count, tell).unwrap();
                if told == 0 {
                    break;
                }
                let lacked = listing.lacks();
                listing.read_on(&file).unwrap();
                // Unless all has been told, or little is left of the directory.
                assert!(!lacked || !listing.lacks() || all.len() > 2000, "{} of {most}", all.len());
            }
            assert_eq!(all.len(), 3002, "{most} at a time");
            assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), names(directory.path()));
            assert_eq!(count.0.load(Relaxed), 0, "nothing is left");
        }
    }

    #[test]
    fn a_position_before_is_gone_back_to_and_the_beginning_is_as_it_is_now() {
        let directory = directory(100);
        let file = File::open(directory.path()).unwrap();
        let (mut listing, count) = (Listing::default(), Count::default());
        let first = some(&mut listing, &file, 0, 10, &count);
        let second = some(&mut listing, &file, first[9].1, 10, &count);
        let third = some(&mut listing, &file, second[9].1, 10, &count);
        assert_eq!(some(&mut listing, &file, first[9].1, 20, &count), [&second[..], &third[..]].concat());
        assert_eq!(some(&mut listing, &file, first[4].1, 5, &count), first[5..]);
        std::fs::write(directory.path().join("new"), "").unwrap();
        let now: BTreeSet<_> =
            some(&mut listing, &file, 0, 1000, &count).into_iter().map(|(name, _)| name).collect();
        assert_eq!(now, names(directory.path()));
    }

    #[test]
    fn only_so_many_directories_have_something_left_and_all_are_read() {
        let directory = directory(50);
        let count = Count::default();
        let mut open: Vec<_> =
            std::iter::repeat_with(|| (Listing::default(), File::open(directory.path()).unwrap()))
                .take(MOST + 10)
                .collect();
        let firsts: Vec<_> =
            open.iter_mut().map(|(listing, file)| some(listing, file, 0, 20, &count)).collect();
        assert_eq!(count.0.load(Relaxed), MOST);
        for ((listing, file), first) in open.iter_mut().zip(&firsts) {
            let rest = some(listing, file, first[19].1, 1000, &count);
            let all: BTreeSet<_> = first.iter().chain(&rest).map(|(name, _)| name.clone()).collect();
            assert_eq!((first.len() + rest.len(), all), (52, names(directory.path())));
        }
        assert_eq!(count.0.load(Relaxed), 0);
        let (listing, file) = &mut open[0];
        some(listing, file, 0, 20, &count);
        assert_eq!(count.0.load(Relaxed), 1);
        drop(open);
        assert_eq!(count.0.load(Relaxed), 0, "closed");
    }
}

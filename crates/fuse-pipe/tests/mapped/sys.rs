//! The unsafe part: memory that is a file's.

use std::{fs::File, ptr};

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// The first bytes of a file, shared with whoever else has it.
pub(crate) struct Mapped {
    start: *mut u8,
    length: usize,
}

impl Mapped {
    pub(crate) fn new(file: &File, length: usize) -> Self {
        let (all, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe { mmap(ptr::null_mut(), length, all, shared, file, 0) };
        Self { start: start.unwrap().cast(), length }
    }

    pub(crate) fn read(&self, at: usize) -> u8 {
        assert!(at < self.length);
        let place = self.start.wrapping_add(at);
        // SAFETY: it is within the mapping; others may write it at any time.
        unsafe { place.read_volatile() }
    }

    pub(crate) fn write(&self, at: usize, byte: u8) {
        assert!(at < self.length);
        let place = self.start.wrapping_add(at);
        // SAFETY: as it is read.
        unsafe { place.write_volatile(byte) }
    }

    pub(crate) fn sync(&self) {
        // SAFETY: it is the whole mapping.
        unsafe { msync(self.start.cast(), self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody else knows of it.
        unsafe { munmap(self.start.cast(), self.length) }.unwrap();
    }
}

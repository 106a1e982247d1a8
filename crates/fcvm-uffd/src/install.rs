//! Puts pages into a VM's memory, whatever the kernel answers.

use std::{ops::Range, os::fd::AsFd as _};

use rustix::io::Errno;

use crate::{Failure, Memory, bitmap::Bitmap, memory::SMALL, statistics::add, sys, vm::Vm};

/// What is in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Memory,
    Zeros,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Whoever waited for these pages has been woken.
    Done,
    /// The VM is giving pages back; nothing can be done until that has been read.
    Again,
    /// The VM's memory is gone, and the VM is about to be.
    Gone,
}

/// The pages of a VM: what is in them, and which it has.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    vm: &'a Vm,
    memory: &'a Memory,
    /// Pages that it has been given. Only a hint: it may have lost them again.
    served: Bitmap,
    /// Pages that it gave back.
    removed: Bitmap,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(vm: &'a Vm, memory: &'a Memory) -> Self {
        let count = (memory.len() / vm.layout.page_size()) as usize;
        Self { vm, memory, served: Bitmap::new(count), removed: Bitmap::new(count) }
    }

    pub(crate) fn is_served(&self, page: usize) -> bool {
        self.served.get(page)
    }

    pub(crate) fn is_removed(&self, page: usize) -> bool {
        self.removed.get(page)
    }

    pub(crate) fn source(&self, page: usize) -> Source {
        if !self.removed.get(page) && self.memory.has_data(page, self.vm.layout.page_size()) {
            Source::Memory
        } else {
            Source::Zeros
        }
    }

    /// Notes that the VM gave back a range of addresses.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        for pages in self.vm.layout.pages_within(start, end) {
            self.served.clear(pages.clone());
            add(&self.vm.counts.pages_removed, self.removed.set(pages) as u64);
        }
    }

    /// Gives the VM pages that are all in one region and have the same source.
    ///
    /// `wanted` is the page that a thread waits for; for the others it is enough to have tried.
    pub(crate) fn install(
        &mut self,
        pages: Range<usize>,
        source: Source,
        wanted: Option<usize>,
    ) -> Result<Installed, Failure> {
        let mut rest = pages;
        while !rest.is_empty() {
            match self.order(&rest, source) {
                Ok(done) => {
                    let count = match source {
                        Source::Memory => &self.vm.counts.pages_copied,
                        Source::Zeros => &self.vm.counts.pages_zeroed,
                    };
                    add(count, done as u64);
                    self.served.set(rest.start..rest.start + done);
                    rest.start += done;
                }
                Err(Errno::EXIST) => {
                    // Whoever waits there came while it was put there: the order that failed wakes nobody.
                    self.wake(rest.start)?;
                    add(&self.vm.counts.present, 1);
                    self.served.set(rest.start..rest.start + 1);
                    rest.start += 1;
                }
                Err(Errno::AGAIN) => return Ok(Installed::Again),
                Err(Errno::SRCH) => return Ok(Installed::Gone),
                Err(errno) => match wanted.filter(|page| rest.contains(page)) {
                    // A neighbour may be at fault.
                    Some(page) if rest.len() > 1 => rest = page..page + 1,
                    Some(page) => return self.give_up(page, errno),
                    None => return Ok(Installed::Done),
                },
            }
        }
        Ok(Installed::Done)
    }

    /// How many pages, from the first on, have been installed by one order.
    fn order(&self, pages: &Range<usize>, source: Source) -> Result<usize, Errno> {
        let size = self.vm.layout.page_size();
        let Some(address) = self.address(pages.start) else { return Err(Errno::NOENT) };
        let uffd = self.vm.uffd.as_fd();
        let bytes = match source {
            Source::Memory => {
                let (offset, len) = (pages.start * size as usize, pages.len() * size as usize);
                sys::copy(uffd, address, self.memory.mapping(), offset, len)?
            }
            Source::Zeros if size == SMALL => sys::zero(uffd, address, pages.len() as u64 * size)?,
            // The kernel has no zeros of that size to share.
            Source::Zeros => sys::copy(uffd, address, self.memory.zeros(), 0, size as usize)?,
        };
        Ok((bytes / size) as usize)
    }

    fn address(&self, page: usize) -> Option<u64> {
        let (address, pages) = self.vm.layout.region_of(page)?;
        Some(address + (page - pages.start) as u64 * self.vm.layout.page_size())
    }

    pub(crate) fn wake(&self, page: usize) -> Result<(), Failure> {
        let Some(address) = self.address(page) else { return Ok(()) };
        sys::wake(self.vm.uffd.as_fd(), address, self.vm.layout.page_size())
            .map_err(|errno| Failure::Uffd { what: "wake", errno })
    }

    fn give_up(&self, page: usize, errno: Errno) -> Result<Installed, Failure> {
        match errno {
            // That memory is not mapped any more: who waits there is to see it.
            Errno::NOENT => self.wake(page).map(|()| Installed::Done),
            Errno::FAULT => Err(Failure::Memory { offset: page as u64 * self.vm.layout.page_size() }),
            Errno::NOMEM | Errno::NOSPC => Err(Failure::NoMemory),
            errno => Err(Failure::Uffd { what: "install pages", errno }),
        }
    }
}

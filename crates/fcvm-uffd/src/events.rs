//! What a uffd tells: 32 bytes an event.

use std::{io::IoSliceMut, os::fd::BorrowedFd};

use rustix::io::{Errno, ReadWriteFlags, preadv2, read};

use crate::{Failure, sys};

/// Bytes of a `uffd_msg` of `linux/userfaultfd.h`.
const SIZE: usize = 32;
/// How many are read at once: as many as are served in one turn.
const AT_ONCE: usize = 32;

const PAGE_FAULT: u8 = 0x12;
const FORK: u8 = 0x13;
const REMOVE: u8 = 0x15;
const UNMAP: u8 = 0x16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A thread waits for the page at this address.
    Fault { address: u64 },
    /// This range is emptied as soon as the event has been read.
    Remove { start: u64, end: u64 },
}

/// Reads events as they have come.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: [u8; SIZE * AT_ONCE],
    /// Whether the kernel can be told with each read not to wait (Linux 6.10). The flag of the descriptor
    /// is shared with the peer, who might change it between a look and a read.
    never_waits: bool,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { buffer: [0; SIZE * AT_ONCE], never_waits: true }
    }

    /// Adds what has come to `events`, as much as is served in a turn; whether there was anything.
    pub(crate) fn read(&mut self, uffd: BorrowedFd<'_>, events: &mut Vec<Event>) -> Result<bool, Failure> {
        let count = loop {
            let count = if self.never_waits {
                let mut buffers = [IoSliceMut::new(&mut self.buffer)];
                preadv2(uffd, &mut buffers, u64::MAX, ReadWriteFlags::NOWAIT)
            } else {
                read(uffd, &mut self.buffer)
            };
            match count {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.never_waits => self.never_waits = false,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(Failure::Uffd { what: "tell events", errno }),
                Ok(0) => return Err(Failure::Blocking),
                Ok(count) => break count,
            }
        };
        for message in self.buffer[..count].chunks_exact(SIZE) {
            events.push(parse(message)?);
        }
        Ok(true)
    }
}

fn parse(message: &[u8]) -> Result<Event, Failure> {
    let word = |at: usize| {
        let bytes = message.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    };
    match message[0] {
        PAGE_FAULT => Ok(Event::Fault { address: word(16) }),
        REMOVE | UNMAP => Ok(Event::Remove { start: word(8), end: word(16) }),
        FORK => {
            // A descriptor has come with it, which is not wanted.
            let number = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
            drop(sys::adopt(number));
            Err(Failure::Event(FORK))
        }
        other => Err(Failure::Event(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let mut message = [0; SIZE];
        message[16..24].copy_from_slice(&0x7000_1000_u64.to_ne_bytes());
        message[0] = PAGE_FAULT;
        assert_eq!(parse(&message), Ok(Event::Fault { address: 0x7000_1000 }));
        message[8..16].copy_from_slice(&0x7000_0000_u64.to_ne_bytes());
        message[0] = REMOVE;
        assert_eq!(parse(&message), Ok(Event::Remove { start: 0x7000_0000, end: 0x7000_1000 }));
        message[0] = 0x14;
        assert_eq!(parse(&message), Err(Failure::Event(0x14)));
    }
}

//! What the server tells the kernel without being asked.
//!
//! The kernel takes a notification only when it has the locks of the file that it is about; who has them
//! may be waiting for a reply. So a thread of its own tells the kernel, and replies go past it. It has a
//! descriptor of its own too, so that a lane can close its descriptor meanwhile.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{device::Device, ended::Ended, shared::Shared};

/// As many bytes may wait.
const MOST: usize = 8 << 20;

/// Notifications that wait for the kernel.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

impl Notifications {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: a server that tells more than the kernel takes ends its mount, for what is not told
    /// leaves old data in the kernel's cache.
    pub(super) fn push(&self, frame: &[u8]) -> Result<(), Ended> {
        let mut queue = self.queue();
        if queue.bytes + frame.len() > MOST {
            return Err(Ended::Notifications);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame.to_vec());
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing that waits is told any more.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.frames.clear();
        self.changed.notify_all();
    }

    /// The next; `None` at the end.
    fn pop(&self) -> Option<Vec<u8>> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(frame) = queue.frames.pop_front() {
                queue.bytes -= frame.len();
                return Some(frame);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells the kernel, until the mount ends.
pub(super) fn tell(device: &Device, shared: &Shared) {
    while let Some(frame) = shared.notifications.pop() {
        // The kernel need not know what it is told of: it may have forgotten that file.
        if let Err(errno) = device.write(&frame) {
            tracing::trace!(%errno, bytes = frame.len(), "the kernel did not take a notification");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_in_order() {
        let notifications = Notifications::default();
        notifications.push(&[1]).unwrap();
        notifications.push(&[2]).unwrap();
        assert_eq!(notifications.push(&vec![0; MOST]), Err(Ended::Notifications));
        assert_eq!(notifications.pop(), Some(vec![1]));
        assert_eq!(notifications.pop(), Some(vec![2]));
        notifications.push(&vec![0; MOST]).unwrap();
        notifications.close();
        assert_eq!(notifications.pop(), None);
    }
}

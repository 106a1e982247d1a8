//! What a lane's server owes: the requests that it has and has not answered.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
};

use zerocopy::FromBytes as _;

use crate::abi::{InHeader, Opcode};

/// The `unique` of the few replies to an interruption has this bit: `FUSE_INT_REQ_BIT` of Linux.
const INTERRUPTION: u64 = 1;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Answers that come soon.
    replies: AtomicI64,
    /// Requests to wait for a lock, by their numbers, as they were: whoever serves next has to have them, too.
    waits: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// How many.
    waiting: AtomicUsize,
}

impl Owed {
    fn waits(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request goes to the server.
    pub(super) fn asked(&self, request: &[u8]) {
        let Ok((header, _)) = InHeader::read_from_prefix(request) else { return };
        match Opcode::of(header.opcode) {
            // They have no answer.
            Some(Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt) => {}
            Some(Opcode::Setlkw) => {
                self.waits().insert(header.unique, request.to_vec());
                self.waiting.fetch_add(1, SeqCst);
            }
            _ => {
                self.replies.fetch_add(1, SeqCst);
            }
        }
    }

    /// The server has answered a request, and the kernel has that.
    pub(super) fn answered(&self, unique: u64) {
        if unique & INTERRUPTION != 0 {
            return;
        }
        if self.waiting.load(SeqCst) > 0 && self.waits().remove(&unique).is_some() {
            self.waiting.fetch_sub(1, SeqCst);
        } else {
            self.replies.fetch_sub(1, SeqCst);
        }
    }

    /// Whether all is answered but what waits for locks.
    pub(super) fn is_nothing(&self) -> bool {
        self.replies.load(SeqCst) <= 0
    }

    /// The requests that wait for locks.
    pub(super) fn waits_for_locks(&self) -> Vec<Vec<u8>> {
        self.waits().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn request(opcode: u32, unique: u64) -> Vec<u8> {
        InHeader { len: 40, opcode, unique, ..InHeader::default() }.as_bytes().to_vec()
    }

    #[test]
    fn only_what_has_an_answer_is_owed() {
        let owed = Owed::default();
        for opcode in [libc_opcode::FORGET, libc_opcode::BATCH_FORGET, libc_opcode::INTERRUPT] {
            owed.asked(&request(opcode, 2));
        }
        assert!(owed.is_nothing());
        owed.asked(&request(libc_opcode::GETATTR, 4));
        assert!(!owed.is_nothing());
        owed.answered(3);
        assert!(!owed.is_nothing(), "that was of an interruption");
        owed.answered(4);
        assert!(owed.is_nothing());
    }

    #[test]
    fn waits_for_locks_are_kept_as_they_were() {
        let owed = Owed::default();
        let wait = request(libc_opcode::SETLKW, 6);
        owed.asked(&wait);
        owed.asked(&request(libc_opcode::GETATTR, 8));
        owed.answered(8);
        assert!(owed.is_nothing());
        assert_eq!(owed.waits_for_locks(), [wait]);
        owed.answered(6);
        assert!(owed.is_nothing() && owed.waits_for_locks().is_empty());
    }

    /// `enum fuse_opcode` of `linux/fuse.h`.
    mod libc_opcode {
        pub(super) const FORGET: u32 = 2;
        pub(super) const GETATTR: u32 = 3;
        pub(super) const SETLKW: u32 = 33;
        pub(super) const INTERRUPT: u32 = 36;
        pub(super) const BATCH_FORGET: u32 = 42;
    }
}

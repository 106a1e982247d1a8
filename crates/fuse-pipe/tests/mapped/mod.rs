//! Files in memory.
//!
//! With the server in the same process, all has to be synced before a mapping is dropped: to unmap what is not
//! written yet waits for the server with the memory of the process locked, which the server may need.

mod sys;

pub(crate) use sys::Mapped;

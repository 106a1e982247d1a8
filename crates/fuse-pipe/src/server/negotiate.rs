//! What client and server agree on, once for all lanes.

use rustix::io::Errno;

use super::lane::MAX_DATA;
use crate::{
    abi::{InitIn, InitOut, MAJOR, MINOR, init},
    passthrough::{Cache, Passthrough},
};

/// Oldest kernel that is served: of version 4.20, which first negotiates how long requests may be.
const LEAST_MINOR: u32 = 28;
/// Requests that the client may have under way without somebody waiting: read-ahead and writing back.
const BACKGROUND: u16 = 64;
const PAGE: usize = 4096;

/// Wanted of every client, where it has it. Not that an opening shortens as well (`ATOMIC_O_TRUNC`): the kernel finds
/// only afterwards that a program may not be shortened while it runs.
const WANTED: u64 = init::ASYNC_READ
    | init::POSIX_LOCKS
    | init::FLOCK_LOCKS
    | init::BIG_WRITES
    | init::DONT_MASK
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::POSIX_ACL
    | init::MAX_PAGES
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT
    | init::INIT_EXT
    | init::CREATE_SUPP_GROUP;

/// The answer to `FUSE_INIT`.
///
/// # Errors
/// `EPROTO` for a client that is too old.
pub(super) fn negotiate(files: &Passthrough, asked: &InitIn) -> Result<InitOut, Errno> {
    let mut out = InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() };
    if asked.major > MAJOR {
        // It asks again, in our version.
        return Ok(out);
    }
    if asked.major < MAJOR || asked.minor < LEAST_MINOR {
        return Err(Errno::PROTO);
    }
    let has = u64::from(asked.flags)
        | if u64::from(asked.flags) & init::INIT_EXT != 0 { u64::from(asked.flags2) << 32 } else { 0 };
    let by_cache = match files.cache() {
        Cache::Auto | Cache::Never => init::AUTO_INVAL_DATA,
        Cache::Always => init::CACHE_SYMLINKS,
        Cache::Exclusive => init::CACHE_SYMLINKS | init::WRITEBACK_CACHE,
    };
    let mut flags = has & (WANTED | by_cache);
    let without = init::NO_OPEN_SUPPORT | init::NO_OPENDIR_SUPPORT;
    if files.agree_on_opening(has & without == without) {
        // Nobody would say when a lock goes.
        flags = (flags & !(init::POSIX_LOCKS | init::FLOCK_LOCKS)) | without;
    }
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    out.flags = half(flags);
    out.flags2 = half(flags >> 32);
    out.max_readahead = asked.max_readahead;
    out.max_background = BACKGROUND;
    out.congestion_threshold = BACKGROUND / 4 * 3;
    out.max_write = u32::try_from(MAX_DATA).map_err(|_| Errno::INVAL)?;
    out.max_pages = u16::try_from(MAX_DATA / PAGE).map_err(|_| Errno::INVAL)?;
    // Of the host's file systems.
    out.time_gran = 1;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::Options;

    #[test]
    fn only_what_the_client_has_is_agreed_on() {
        let directory = tempfile::tempdir().unwrap();
        let files = Passthrough::new(directory.path(), Options::default()).unwrap();
        let asked = InitIn { major: 7, minor: 38, flags: u32::MAX, flags2: u32::MAX, ..InitIn::default() };
        let out = negotiate(&files, &asked).unwrap();
        assert_eq!(out.flags & u32::try_from(init::WRITEBACK_CACHE).unwrap(), 0, "the host writes, too");
        assert_ne!(out.flags & u32::try_from(init::AUTO_INVAL_DATA).unwrap(), 0);
        assert_eq!((out.max_write, out.max_pages), (1 << 20, 256));
        assert_eq!(u64::from(out.flags2) << 32, init::CREATE_SUPP_GROUP);
        let out = negotiate(&files, &InitIn { flags: 1, ..asked }).unwrap();
        assert_eq!((out.flags, out.flags2), (1, 0));
        assert_eq!(negotiate(&files, &InitIn { minor: 20, ..asked }).unwrap_err(), Errno::PROTO);
        assert_eq!(negotiate(&files, &InitIn { major: 8, ..asked }).unwrap().major, 7);
    }
}

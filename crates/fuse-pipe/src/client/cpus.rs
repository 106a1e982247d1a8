//! Whether a CPU is idle: whether spinning takes nothing from anybody.

use std::{fs::File, os::unix::fs::FileExt as _, thread};

/// The machine's CPUs, of which this process may be given only a part.
#[derive(Debug)]
pub(super) struct Cpus {
    /// `/proc/loadavg`, which costs a microsecond to read: `0.00 0.00 0.00 running/all last`.
    load: File,
    number: usize,
}

impl Cpus {
    /// `None` where the kernel does not say how many are busy.
    pub(super) fn new() -> Option<Self> {
        let number = thread::available_parallelism().ok()?.get();
        Some(Self { load: File::open("/proc/loadavg").ok()?, number })
    }

    /// Whether nobody waits for a CPU, the caller being on one.
    pub(super) fn suffice(&self) -> bool {
        let mut text = [0; 64];
        self.load
            .read_at(&mut text, 0)
            .is_ok_and(|read| running(&text[..read]).is_some_and(|running| running <= self.number))
    }

    /// As many as anybody wants.
    #[cfg(test)]
    pub(super) fn unlimited() -> Self {
        Self { number: usize::MAX, ..Self::new().unwrap() }
    }
}

/// How many threads run or want to.
fn running(load: &[u8]) -> Option<usize> {
    let field = load.split(u8::is_ascii_whitespace).nth(3)?;
    let number = field.split(|&byte| byte == b'/').next()?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_threads_are_counted() {
        assert_eq!(running(b"2.53 2.68 2.19 3/456 12345\n"), Some(3));
        assert_eq!(running(b"2.53 2.68"), None);
    }

    #[test]
    fn none_suffice_where_there_are_none() {
        assert!(Cpus::unlimited().suffice());
        assert!(!Cpus { number: 0, ..Cpus::new().unwrap() }.suffice());
    }
}

//! A child's output, read all the time and waited for.

use std::{
    io::Read,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// What a stream has given so far, filled by a thread of its own.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    shared: Arc<(Mutex<Collected>, Condvar)>,
}

#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    first: Option<Instant>,
    ended: bool,
}

impl Collector {
    pub(crate) fn read(mut stream: impl Read + Send + 'static) -> Self {
        let collector = Self::ended();
        collector.shared.0.lock().unwrap().ended = false;
        let shared = Arc::clone(&collector.shared);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut collected = shared.0.lock().unwrap();
                collected.bytes.extend_from_slice(&buffer[..read]);
                collected.ended = read == 0;
                if read > 0 {
                    collected.first.get_or_insert_with(Instant::now);
                }
                shared.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        collector
    }

    /// Of a stream that goes elsewhere.
    pub(crate) fn ended() -> Self {
        Self {
            shared: Arc::new((Mutex::new(Collected { ended: true, ..Collected::default() }), Condvar::new())),
        }
    }

    /// Waits until `found` has it in what came so far; `false` where the stream ended before, or time ran out.
    fn wait(&self, deadline: Instant, found: impl Fn(&Collected) -> bool) -> bool {
        let mut collected = self.shared.0.lock().unwrap();
        loop {
            if found(&collected) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if collected.ended || left == Duration::ZERO {
                return false;
            }
            collected = self.shared.1.wait_timeout(collected, left).unwrap().0;
        }
    }

    pub(crate) fn wait_for(&self, text: &str, deadline: Instant) -> bool {
        let needle = text.as_bytes();
        self.wait(deadline, |collected| collected.bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// Waits for so many whole lines.
    pub(crate) fn wait_for_lines(&self, count: usize, deadline: Instant) -> bool {
        self.wait(deadline, |collected| {
            collected.bytes.iter().filter(|byte| **byte == b'\n').count() >= count
        })
    }

    pub(crate) fn wait_for_end(&self, deadline: Instant) -> bool {
        self.wait(deadline, |collected| collected.ended)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shared.0.lock().unwrap().bytes.clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        self.shared.0.lock().unwrap().first
    }
}

//! What was said already: a guest that tries the same thing over and over fills no log.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// For how long the same thing is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// Things remembered: what comes beyond is said later, or never.
const MOST: usize = 1024;

/// Things that were said within the last minute.
#[derive(Debug)]
pub(super) struct Recently<K> {
    said: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Recently<K> {
    pub(super) fn new() -> Self {
        Self { said: HashMap::new() }
    }

    /// Whether this is to be said now; if so, it counts as said.
    pub(super) fn is_news(&mut self, thing: K, now: Instant) -> bool {
        let quiet = |said: &Instant| now.saturating_duration_since(*said) < QUIET;
        if self.said.get(&thing).is_some_and(quiet) {
            return false;
        }
        if self.said.len() >= MOST {
            self.said.retain(|_, said| quiet(said));
        }
        // Full of what is young, there is too much of it to be told.
        let room = self.said.len() < MOST;
        if room {
            self.said.insert(thing, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute() {
        let mut recently = Recently::new();
        let now = Instant::now();
        assert!(recently.is_news("a", now));
        assert!(!recently.is_news("a", now + Duration::from_secs(59)));
        assert!(recently.is_news("b", now));
        assert!(recently.is_news("a", now + QUIET));
        assert!(!recently.is_news("a", now + QUIET));
    }

    #[test]
    fn the_table_does_not_grow() {
        let mut recently = Recently::new();
        let now = Instant::now();
        let said = (0..2 * MOST).filter(|number| recently.is_news(*number, now)).count();
        assert_eq!(said, MOST);
        assert_eq!(recently.said.len(), MOST);
        assert!(recently.is_news(MOST, now + QUIET));
        assert_eq!(recently.said.len(), 1);
    }
}

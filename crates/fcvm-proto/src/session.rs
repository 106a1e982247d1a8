//! Sessions on a pipe without boundaries (virtio-serial).
//!
//! Such a pipe outlives its users: a host that reconnects finds bytes of the
//! session before, and the guest may be in the middle of a frame. So each
//! session opens with a *preamble*: the host sends the VM's 16-byte link key
//! and a fresh 16-byte session id; the guest answers with the inverted key and
//! the same id. Both scan for those bytes with [`Matcher`] and drop what comes
//! before. The key is random per boot, so that no data can be taken for it.

/// Bytes of a link key and of a session id.
pub const KEY_LEN: usize = 16;
/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 2 * KEY_LEN;

/// The VM's link key: the guest finds it on its kernel command line as
/// `fcvm.link=<32 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkKey(pub [u8; KEY_LEN]);

/// Identifies one session: a fresh random number per connection of the host.
/// It is the *epoch* of what is said in that session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; KEY_LEN]);

impl LinkKey {
    /// Kernel parameter that carries the key.
    pub const PARAMETER: &'static str = "fcvm.link";

    /// The key as 32 hex digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 32 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut key = [0; KEY_LEN];
        if digits.len() != 2 * KEY_LEN {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Self(key))
    }

    /// What the host sends to open session `id`.
    #[must_use]
    pub fn preamble(self, id: SessionId) -> [u8; PREAMBLE_LEN] {
        join(self.0, id.0)
    }

    /// What the guest answers.
    #[must_use]
    pub fn answer(self, id: SessionId) -> [u8; PREAMBLE_LEN] {
        join(self.0.map(|byte| !byte), id.0)
    }
}

fn join(first: [u8; KEY_LEN], second: [u8; KEY_LEN]) -> [u8; PREAMBLE_LEN] {
    let mut bytes = [0; PREAMBLE_LEN];
    bytes[..KEY_LEN].copy_from_slice(&first);
    bytes[KEY_LEN..].copy_from_slice(&second);
    bytes
}

/// Finds a byte pattern in a stream that arrives in pieces (Knuth, Morris and
/// Pratt: no byte is looked at twice, none is held back).
#[derive(Debug, Clone)]
pub struct Matcher {
    pattern: Vec<u8>,
    /// `border[n]`: the longest proper prefix of the pattern that is a suffix of its first `n` bytes.
    border: Vec<usize>,
    matched: usize,
}

impl Matcher {
    /// A matcher for a pattern of at least one byte.
    ///
    /// # Panics
    /// On an empty pattern.
    #[must_use]
    pub fn new(pattern: &[u8]) -> Self {
        assert!(!pattern.is_empty(), "an empty pattern matches nowhere");
        let mut border = vec![0; pattern.len() + 1];
        let mut length = 0;
        for at in 1..pattern.len() {
            while length > 0 && pattern[at] != pattern[length] {
                length = border[length];
            }
            if pattern[at] == pattern[length] {
                length += 1;
            }
            border[at + 1] = length;
        }
        Self { pattern: pattern.to_vec(), border, matched: 0 }
    }

    /// Looks at the next bytes of the stream. Returns how many of them were
    /// used up when the pattern ended in them; the rest is not looked at.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            while self.matched > 0 && byte != self.pattern[self.matched] {
                self.matched = self.border[self.matched];
            }
            if byte == self.pattern[self.matched] {
                self.matched += 1;
            }
            if self.matched == self.pattern.len() {
                self.matched = 0;
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn preambles_are_frozen() {
        let key = LinkKey([0x0f; KEY_LEN]);
        let id = SessionId([7; KEY_LEN]);
        assert_eq!(key.preamble(id)[..KEY_LEN], [0x0f; KEY_LEN]);
        assert_eq!(key.answer(id)[..KEY_LEN], [0xf0; KEY_LEN]);
        assert_eq!(key.preamble(id)[KEY_LEN..], [7; KEY_LEN]);
    }

    #[test]
    fn keys_round_trip_as_hex() {
        let key = LinkKey(std::array::from_fn(|at| u8::try_from(at * 17 % 256).unwrap()));
        assert_eq!(LinkKey::from_hex(&key.to_hex()), Some(key));
        assert_eq!(LinkKey::from_hex("00"), None);
        assert_eq!(LinkKey::from_hex(&"zz".repeat(16)), None);
        assert_eq!(LinkKey::from_hex(&"é".repeat(16)), None);
    }

    proptest! {
        /// Against the obvious search, with a small alphabet so that partial matches abound.
        #[test]
        fn finds_the_first_occurrence_however_the_stream_is_cut(
            pattern in proptest::collection::vec(0u8..2, 1..6),
            stream in proptest::collection::vec(0u8..2, 0..200),
            piece in 1usize..9,
        ) {
            let expected = stream.windows(pattern.len()).position(|window| window == pattern)
                .map(|at| at + pattern.len());
            let mut matcher = Matcher::new(&pattern);
            let mut seen = 0;
            let mut found = None;
            for chunk in stream.chunks(piece) {
                if let Some(used) = matcher.feed(chunk) {
                    found = Some(seen + used);
                    break;
                }
                seen += chunk.len();
            }
            prop_assert_eq!(found, expected);
        }
    }
}

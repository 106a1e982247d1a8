//! Keys by which a user leaves a program to itself: Podman's `--detach-keys`.

use std::str::FromStr;

/// A sequence of keys; without any there is no leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// What is no sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "keys are `ctrl-` and a letter or one of @ [ \\ ] ^ _, or a character, with commas between: ctrl-p,ctrl-q"
)]
pub struct ParseKeysError;

impl Default for DetachKeys {
    /// Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl std::fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match key {
                0..32 => write!(f, "{comma}ctrl-{}", char::from(key + 64).to_ascii_lowercase())?,
                key => write!(f, "{comma}{}", char::from(*key))?,
            }
        }
        Ok(())
    }
}

impl FromStr for DetachKeys {
    type Err = ParseKeysError;

    fn from_str(text: &str) -> Result<Self, ParseKeysError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let key = |name: &str| match (name.strip_prefix("ctrl-"), name.as_bytes()) {
            (Some(rest), _) => match rest.as_bytes() {
                [letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'['..=b'_')] => {
                    Some(letter.to_ascii_uppercase() - b'@')
                }
                _ => None,
            },
            (None, [key]) if key.is_ascii_graphic() => Some(*key),
            _ => None,
        };
        text.split(',').map(key).collect::<Option<_>>().map(Self).ok_or(ParseKeysError)
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(super) struct Watcher {
    keys: DetachKeys,
    /// How many of them have come, and are held back.
    matched: usize,
}

impl Watcher {
    pub(super) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes the keys out of what is typed; whether all of them have come. What is behind is lost then.
    pub(super) fn filter(&mut self, bytes: &mut Vec<u8>) -> bool {
        let keys = &self.keys.0;
        if keys.is_empty() {
            return false;
        }
        let typed = std::mem::take(bytes);
        for byte in typed {
            if byte != keys[self.matched] {
                bytes.extend_from_slice(&keys[..self.matched]);
                self.matched = 0;
            }
            if byte == keys[self.matched] {
                self.matched += 1;
                if self.matched == keys.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                bytes.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_podmans() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.0);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("ctrl-@,a,ctrl-["), Ok(vec![0, b'a', 27]));
        assert_eq!(keys(""), Ok(vec![]));
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,", "ctrl-pq", "é"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
        assert_eq!(DetachKeys::default().to_string(), "ctrl-p,ctrl-q");
        assert_eq!(DetachKeys::default().to_string().parse(), Ok(DetachKeys::default()));
    }

    #[test]
    fn keys_are_found_however_they_come_and_all_else_goes_on() {
        let mut watcher = Watcher::new(DetachKeys::default());
        let mut type_in = |text: &[u8]| {
            let mut bytes = text.to_vec();
            (watcher.filter(&mut bytes), bytes)
        };
        assert_eq!(type_in(b"ls\r"), (false, b"ls\r".to_vec()));
        // One alone is held back until it is known to be no beginning.
        assert_eq!(type_in(b"a\x10"), (false, b"a".to_vec()));
        assert_eq!(type_in(b"b\x11"), (false, b"\x10b\x11".to_vec()));
        assert_eq!(type_in(b"\x10\x10"), (false, b"\x10".to_vec()));
        assert_eq!(type_in(b"\x11lost"), (true, vec![]));
        let mut none = Watcher::new("".parse().unwrap());
        let mut bytes = b"\x10\x11".to_vec();
        assert!(!none.filter(&mut bytes) && bytes == b"\x10\x11");
    }
}

//! Signals by name and number.

use std::{fmt, str::FromStr};

/// The number of a Linux signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalNumber(i32);

/// The text is no signal.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no signal: a name such as TERM or SIGTERM, or a number from 1 to 64")]
pub struct ParseSignalError {
    text: String,
}

/// Names in order of their numbers, from 1: the same on x86-64 and aarch64.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that the C library leaves to programs, and the last there is.
const RTMIN: i32 = 34;
const LAST: i32 = 64;

impl SignalNumber {
    /// Ends a process, whether it wants or not.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);

    /// The signal of a number; `None` where there is none.
    #[must_use]
    pub const fn new(number: i32) -> Option<Self> {
        if number >= 1 && number <= LAST { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for SignalNumber {
    type Err = ParseSignalError;

    fn from_str(text: &str) -> Result<Self, ParseSignalError> {
        let error = || ParseSignalError { text: text.to_owned() };
        if let Ok(number) = text.parse() {
            return Self::new(number).ok_or_else(error);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok());
        let realtime = || {
            let (base, rest) = match name.strip_prefix("RTMIN") {
                Some(rest) => (RTMIN, rest),
                None => (LAST, name.strip_prefix("RTMAX")?),
            };
            let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
            base.checked_add(offset).filter(|number| (RTMIN..=LAST).contains(number))
        };
        named.or_else(realtime).and_then(Self::new).ok_or_else(error)
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0 - 1).ok().and_then(|at| NAMES.get(at));
        match name {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("9", 9),
            ("64", 64),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(text.parse::<SignalNumber>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "-9", "SIG", "SIGSIGTERM", "RTMIN+31", "RTMAX+1", "9x"] {
            assert!(bad.parse::<SignalNumber>().is_err(), "{bad}");
        }
        assert_eq!(
            (SignalNumber::TERM.to_string(), SignalNumber(40).to_string()),
            ("SIGTERM".into(), "40".into())
        );
    }
}

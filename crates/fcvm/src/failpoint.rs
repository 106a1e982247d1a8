//! Places where a test lets this process die, or stand still: the stages of a VM's life.
//!
//! Only with the cargo feature `failpoints`: without it [`reach`] is nothing.

#[cfg(feature = "failpoints")]
pub use armed::{VARIABLE, reach};

/// A place that a test may choose, by its name.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_: &str) {}

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        env, fs,
        io::Write as _,
        sync::{
            OnceLock,
            atomic::{AtomicBool, Ordering},
        },
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// `POINT=kill`, or `POINT=stop`; with a comma and a file behind it, the file gets the process's
    /// number before, in a line.
    pub const VARIABLE: &str = "FCVM_FAILPOINT";

    #[derive(Debug)]
    struct Failpoint {
        point: String,
        signal: Signal,
        file: Option<String>,
    }

    fn parse(text: &str) -> Option<Failpoint> {
        let (point, action) = text.split_once('=')?;
        let (action, file) = match action.split_once(',') {
            Some((action, file)) => (action, Some(file.to_owned())),
            None => (action, None),
        };
        let signal = match action {
            "kill" => Signal::KILL,
            "stop" => Signal::STOP,
            _ => return None,
        };
        Some(Failpoint { point: point.to_owned(), signal, file })
    }

    /// A place that a test may choose, by its name. What it chose happens the first time that this
    /// process gets there.
    pub fn reach(point: &str) {
        static CHOSEN: OnceLock<Option<Failpoint>> = OnceLock::new();
        static REACHED: AtomicBool = AtomicBool::new(false);
        let chosen = CHOSEN.get_or_init(|| parse(&env::var(VARIABLE).ok()?));
        let Some(chosen) = chosen.as_ref().filter(|chosen| chosen.point == point) else { return };
        if REACHED.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(file) = &chosen.file {
            let written = fs::File::options()
                .append(true)
                .open(file)
                .and_then(|mut file| writeln!(file, "{}", std::process::id()));
            if let Err(error) = written {
                tracing::error!(file, %error, "nobody hears of the failpoint");
            }
        }
        if let Err(error) = kill_process(getpid(), chosen.signal) {
            tracing::error!(point, %error, "the failpoint does not work");
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_choice_is_a_point_an_action_and_perhaps_a_file() {
            let chosen = parse("claimed=stop,/tmp/a=b,c").unwrap();
            assert_eq!((chosen.point.as_str(), chosen.signal), ("claimed", Signal::STOP));
            assert_eq!(chosen.file.as_deref(), Some("/tmp/a=b,c"));
            assert_eq!(parse("x=kill").unwrap().signal, Signal::KILL);
            assert!(parse("x").is_none() && parse("x=other").is_none());
        }
    }
}

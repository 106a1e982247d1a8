//! A row of a table: a command line, and how the outcomes are compared.

use fcvm_testkit::Output;

/// A command line for both.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Options before the image or the container.
    pub(crate) options: Vec<String>,
    /// What follows: image or container, and the command.
    pub(crate) rest: Vec<String>,
    /// Standard input; none where it is not given.
    pub(crate) input: Option<Vec<u8>>,
    stdout: Stdout,
    stderr: Stderr,
    differs: Option<Difference>,
}

#[derive(Debug, Clone, Copy)]
enum Stdout {
    Exact,
    /// The variables of an environment come in the order of a hash table, another each time.
    Lines,
    /// The first word of each line is a time.
    Times,
    /// A random id, of a length of its own.
    Id,
    /// Told by the engine, each in its own words.
    Any,
}

#[derive(Debug, Clone, Copy)]
enum Stderr {
    Exact,
    /// It comes from the engine, not from the container: Podman 4 on this host, Podman 5 in the guest and
    /// fcvm have each their own words, as have runc and crun. These must be in all.
    Says(&'static [&'static str]),
}

/// What is to differ.
#[derive(Debug, Clone, Copy)]
struct Difference {
    podman: i32,
    fcvm: i32,
    why: &'static str,
}

impl Case {
    pub(crate) fn new(options: &[&str], rest: &[&str]) -> Self {
        let own = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self {
            options: own(options),
            rest: own(rest),
            input: None,
            stdout: Stdout::Exact,
            stderr: Stderr::Exact,
            differs: None,
        }
    }

    pub(crate) fn input(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { input: Some(bytes.into()), ..self }
    }

    pub(crate) fn lines(self) -> Self {
        Self { stdout: Stdout::Lines, ..self }
    }

    pub(crate) fn times(self) -> Self {
        Self { stdout: Stdout::Times, ..self }
    }

    pub(crate) fn id(self) -> Self {
        Self { stdout: Stdout::Id, ..self }
    }

    pub(crate) fn any_output(self) -> Self {
        Self { stdout: Stdout::Any, ..self }
    }

    pub(crate) fn says(self, words: &'static [&'static str]) -> Self {
        Self { stderr: Stderr::Says(words), ..self }
    }

    /// The outputs differ on purpose.
    pub(crate) fn unlike(self, _why: &'static str) -> Self {
        self.any_output().says(&[])
    }

    /// The codes differ on purpose.
    pub(crate) fn differs(self, podman: i32, fcvm: i32, why: &'static str) -> Self {
        Self { differs: Some(Difference { podman, fcvm, why }), ..self }
    }

    /// What is wrong, a line each.
    pub(crate) fn judge(&self, podman: &Output, fcvm: &Output) -> Vec<String> {
        let mut wrong = Vec::new();
        let codes = (podman.code(), fcvm.code());
        match self.differs {
            None if codes.0 != codes.1 => {
                wrong.push(format!("Podman exits with {}, fcvm with {}", codes.0, codes.1));
            }
            Some(known) if codes != (known.podman, known.fcvm) => wrong.push(format!(
                "Podman exits with {}, fcvm with {}; known are {} and {}, as {}",
                codes.0, codes.1, known.podman, known.fcvm, known.why
            )),
            _ => {}
        }
        let [of_podman, of_fcvm] = [podman, fcvm].map(|output| self.stdout.shown(&output.stdout));
        if of_podman != of_fcvm {
            wrong.push(format!("stdout of Podman: {}", short(&of_podman)));
            wrong.push(format!("stdout of fcvm:   {}", short(&of_fcvm)));
        }
        match self.stderr {
            Stderr::Exact => {
                // Of a log, both streams have times.
                let how = if matches!(self.stdout, Stdout::Times) { Stdout::Times } else { Stdout::Exact };
                let [of_podman, of_fcvm] = [podman, fcvm].map(|output| how.shown(output.stderr.as_bytes()));
                if of_podman != of_fcvm {
                    wrong.push(format!("stderr of Podman: {}", short(&of_podman)));
                    wrong.push(format!("stderr of fcvm:   {}", short(&of_fcvm)));
                }
            }
            Stderr::Says(words) => {
                for (name, output) in [("Podman", podman), ("fcvm", fcvm)] {
                    let missing = words.iter().filter(|word| !output.stderr.contains(**word));
                    wrong.extend(missing.map(|word| {
                        format!("stderr of {name} lacks `{word}`: {}", short(output.stderr.as_bytes()))
                    }));
                }
            }
        }
        wrong
    }
}

impl Stdout {
    fn shown(self, bytes: &[u8]) -> Vec<u8> {
        let text = || String::from_utf8_lossy(bytes);
        match self {
            Self::Exact => bytes.to_owned(),
            Self::Any => Vec::new(),
            Self::Lines => {
                let text = text();
                // Podman before 5 sets it also where there is no terminal.
                let mut lines: Vec<_> = text.lines().filter(|line| *line != "TERM=xterm").collect();
                lines.sort_unstable();
                lines.join("\n").into_bytes()
            }
            Self::Times => {
                let time =
                    |line: &str| line.split_once(' ').map(|(time, rest)| (is_time(time), rest.to_owned()));
                format!("{:?}", text().lines().map(time).collect::<Vec<_>>()).into_bytes()
            }
            Self::Id => {
                let hex = text().trim_end().bytes().all(|byte| byte.is_ascii_hexdigit());
                format!("an id: {hex}").into_bytes()
            }
        }
    }
}

/// `2026-11-21T17:09:39.123Z`, of any precision and zone.
fn is_time(word: &str) -> bool {
    word.len() >= 20 && word.as_bytes()[10] == b'T' && word.starts_with("20")
}

fn short(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(600)].escape_ascii();
    if bytes.len() > 600 { format!("{shown}... ({} bytes)", bytes.len()) } else { shown.to_string() }
}

//! `fcvm cp`.

use std::{path::PathBuf, str::FromStr};

/// Copy files between a container that runs and this machine.
///
/// Of SOURCE and DESTINATION one is VM:PATH. As with `podman cp`, a directory is copied with all that is in it: into
/// DESTINATION where that is a directory, else by its name; SOURCE/. copies what is in it. `-` is a tar
/// archive on standard input or standard output.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// VM:PATH, a path, or -
    #[arg(value_name = "SOURCE")]
    pub from: Place,
    /// VM:PATH, a path, or -
    #[arg(value_name = "DESTINATION")]
    pub to: Place,
    /// Replace a directory by a file of that name, or a file by a directory
    #[arg(long)]
    pub overwrite: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path in a container.
    Vm { vm: String, path: String },
    /// A path of this machine.
    Host(PathBuf),
    /// Standard input or output.
    Stream,
}

impl FromStr for Place {
    type Err = &'static str;

    /// As Podman's: what begins with `/` or `.` is of this machine, also with a colon in it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            _ if text.is_empty() => Err("a path is not empty"),
            _ if text == "-" => Ok(Self::Stream),
            Some((vm, path)) if !vm.is_empty() && !text.starts_with(['/', '.']) => {
                if path.is_empty() {
                    return Err("the path in the container is not empty");
                }
                Ok(Self::Vm { vm: vm.to_owned(), path: path.to_owned() })
            }
            _ => Ok(Self::Host(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_podmans() {
        let vm = |vm: &str, path: &str| Ok(Place::Vm { vm: vm.into(), path: path.into() });
        assert_eq!("web:/etc/passwd".parse(), vm("web", "/etc/passwd"));
        assert_eq!("web:a:b".parse(), vm("web", "a:b"));
        assert_eq!("-".parse(), Ok(Place::Stream));
        for host in ["a", "/a:b", "./a:b", "../a", ":a"] {
            assert_eq!(host.parse(), Ok(Place::Host(host.into())), "{host}");
        }
        assert!("".parse::<Place>().is_err() && "web:".parse::<Place>().is_err());
    }
}

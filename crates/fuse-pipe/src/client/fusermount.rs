//! `fusermount3`: mounts for an ordinary user, and hands the descriptor over a socket.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::{
    cmsg_space,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::{
    device::Device,
    error::MountError,
    options::{Access, Options},
};

const PROGRAM: &str = "fusermount3";

/// Has it mount at `path`.
pub(super) fn mount(path: &Path, options: &Options) -> Result<Device, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Device)?;
    let mut command = Command::new(PROGRAM);
    // Its standard input is the socket: so it needs no descriptor that is not closed on exec.
    command.arg("-o").arg(spell(options)).arg("--").arg(path);
    command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(OwnedFd::from(theirs)));
    run(command, path)?;
    // It has ended: what it sent is there, or will not come.
    let device = received(&ours).and_then(|descriptor| Ok(Device::from_helper(descriptor)?));
    device.map_err(MountError::Device)
}

/// Has it unmount, at once if it can, else as soon as nobody uses the mount.
pub(super) fn unmount(path: &Path) -> Result<(), MountError> {
    let with = |how: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(how).arg("--").arg(path).stdin(Stdio::null());
        run(command, path)
    };
    with(&["-u"]).or_else(|_| with(&["-u", "-z"]))
}

/// `command` is dropped before this returns, and its end of the socket with it.
fn run(mut command: Command, path: &Path) -> Result<(), MountError> {
    let Output { status, stderr, .. } = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::NoHelper),
        Err(source) => return Err(MountError::RunHelper { source }),
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr).trim().to_owned();
    Err(MountError::Helper { path: path.into(), said })
}

/// The options; a comma in a name would begin another.
fn spell(options: &Options) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace(',', r"\,");
    let access = match options.access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
    };
    let (source, subtype) = (escaped(&options.source), escaped(&options.subtype));
    format!("{access},nosuid,nodev,fsname={source},subtype={subtype}{}", options.common())
}

fn received(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no descriptor came"))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::IoSlice, os::fd::AsFd as _};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn names_stay_single_options() {
        let options = Options { source: r"a,b\c".into(), access: Access::ReadOnly, ..Options::default() };
        assert_eq!(spell(&options), r"ro,nosuid,nodev,fsname=a\,b\\c,subtype=fuse-pipe");
    }

    #[test]
    fn a_descriptor_comes_over_the_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&theirs, &[IoSlice::new(&[0])], &mut control, SendFlags::empty()).unwrap();
        drop(theirs);
        received(&ours).unwrap();
        assert!(received(&ours).is_err(), "nothing more came");
    }
}

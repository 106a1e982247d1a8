//! A server in a process of its own, which is confined.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread,
};

use fuse_pipe::{
    passthrough::{Options, Passthrough},
    server::{Server, confine::confine},
    stream::Stream,
};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

use super::Forked;

/// A process that serves; it ends with its client. `None` with a word why where this kernel cannot confine it.
pub(crate) fn serve(path: &Path, options: Options, lanes: usize) -> Option<(Forked, Vec<Stream>)> {
    let (control, theirs) = UnixStream::pair().unwrap();
    let mut ends = Some((control, theirs));
    let process = Forked::start(|| {
        let (control, theirs) = ends.take().unwrap();
        // Else it would never see the end of it.
        drop(control);
        answer(path, options, theirs);
    });
    let (mut control, theirs) = ends.take().unwrap();
    drop(theirs);
    let mut whole = [0];
    control.read_exact(&mut whole).unwrap();
    if whole == [0] {
        fcvm_testkit::skip("this kernel cannot confine a server");
        return None;
    }
    let streams = (0..lanes).map(|_| {
        let (ours, lane) = UnixStream::pair().unwrap();
        give(&control, lane);
        Stream::new(ours).unwrap()
    });
    Some((process, streams.collect()))
}

/// Lanes come by the control socket, whose end is this process's.
fn answer(path: &Path, options: Options, mut control: UnixStream) {
    let report = confine(path, &options).unwrap();
    control.write_all(&[u8::from(report.is_complete())]).unwrap();
    let server = Server::new(Passthrough::new(path, options).unwrap());
    thread::scope(|scope| {
        while let Some(lane) = take(&control) {
            let server = &server;
            scope.spawn(move || server.serve(Stream::new(lane).unwrap()));
        }
    });
}

fn give(control: &UnixStream, lane: UnixStream) {
    let descriptors = [lane.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    assert!(message.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(control, &[IoSlice::new(b"L")], &mut message, SendFlags::empty()).unwrap();
}

fn take(control: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC).unwrap();
    message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

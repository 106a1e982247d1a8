//! From a request to its reply.

use std::io;

use rustix::{fs::AtFlags, io::Errno};

use super::{lane::MAX_DATA, negotiate::negotiate, reply::Reply, request::Request};
use crate::{
    abi::{
        AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne,
        FsyncIn, GetxattrIn, GetxattrOut, InitIn, InterruptIn, IoctlIn, LinkIn, LkIn, LseekIn, LseekOut,
        MkdirIn, MknodIn, Opcode, OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn,
        WriteIn, WriteOut,
    },
    passthrough::{LONGEST_XATTR, Locked, Origin, Passthrough, Told, Wait},
};

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// This frame goes back.
    Frame(&'a [u8]),
    /// It wants none.
    None,
    /// It waits, and is answered by what comes of it.
    Later(Wait),
}

/// Answers a request that came by the lane of that number.
///
/// # Errors
/// Where the frame is no request: who sends such a thing is not listened to any more.
pub(super) fn answer<'a>(
    files: &Passthrough,
    lane: u64,
    frame: &[u8],
    reply: &'a mut Reply,
) -> io::Result<Answer<'a>> {
    let mut request = Request::parse(frame)?;
    reply.begin();
    let unique = request.unique;
    match request.opcode {
        Some(Opcode::Forget) => {
            if let Ok(forget) = request.take::<ForgetIn>() {
                files.forget(request.node, forget.nlookup);
            }
            Ok(Answer::None)
        }
        Some(Opcode::BatchForget) => {
            let count = request.take::<BatchForgetIn>().map_or(0, |batch| batch.count);
            for _ in 0..count {
                // Fewer than it says are what there are.
                let Ok(one) = request.take::<ForgetOne>() else { break };
                files.forget(one.nodeid, one.nlookup);
            }
            Ok(Answer::None)
        }
        // What does not wait for others is answered soon, interrupted or not.
        Some(Opcode::Interrupt) => {
            if let Ok(interrupt) = request.take::<InterruptIn>() {
                files.interrupt(interrupt.unique);
            }
            Ok(Answer::None)
        }
        Some(Opcode::Setlkw) => {
            let origin = Origin { lane, unique };
            let asked = request.take::<LkIn>();
            match asked.and_then(|of| files.wait_for_lock(request.node, &of, origin)) {
                Ok(Locked::Later(wait)) => Ok(Answer::Later(wait)),
                Ok(Locked::Now) => Ok(Answer::Frame(reply.finish(unique, Ok(())))),
                Err(errno) => Ok(Answer::Frame(reply.finish(unique, Err(errno)))),
            }
        }
        Some(opcode) => {
            let result = perform(files, opcode, &mut request, reply);
            tracing::trace!(?opcode, node = request.node, ?result, "answered");
            Ok(Answer::Frame(reply.finish(unique, result)))
        }
        // The client's kernel does without, and does not ask again.
        None => Ok(Answer::Frame(reply.finish(unique, Err(Errno::NOSYS)))),
    }
}

fn perform(
    files: &Passthrough,
    opcode: Opcode,
    request: &mut Request<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let (node, caller) = (request.node, request.caller);
    match opcode {
        Opcode::Init => {
            // Of the kernel before, if it was another.
            files.reset();
            let asked = request.take::<InitIn>()?;
            files.client(asked.minor);
            reply.put(&negotiate(files, &asked)?);
        }
        Opcode::Destroy => files.reset(),
        Opcode::Lookup => reply.put(&files.lookup(node, request.name()?)?),
        Opcode::Getattr => reply.put(&files.getattr(node)?),
        Opcode::Statx => reply.put(&files.statx(node)?),
        Opcode::Setattr => reply.put(&files.setattr(node, &request.take::<SetattrIn>()?)?),
        Opcode::Readlink => reply.bytes(&files.readlink(node)?),
        Opcode::Symlink => {
            let name = request.name()?;
            reply.put(&files.symlink(&caller, node, name, request.text()?)?);
        }
        Opcode::Mknod => {
            let of = request.take::<MknodIn>()?;
            reply.put(&files.mknod(&caller, node, request.name()?, &of)?);
        }
        Opcode::Mkdir => {
            let of = request.take::<MkdirIn>()?;
            reply.put(&files.mkdir(&caller, node, request.name()?, &of)?);
        }
        Opcode::Unlink => files.unlink(node, request.name()?, AtFlags::empty())?,
        Opcode::Rmdir => files.unlink(node, request.name()?, AtFlags::REMOVEDIR)?,
        Opcode::Rename => {
            let to = request.take::<RenameIn>()?.newdir;
            files.rename(node, request.name()?, to, request.name()?, 0)?;
        }
        Opcode::Rename2 => {
            let of = request.take::<Rename2In>()?;
            files.rename(node, request.name()?, of.newdir, request.name()?, of.flags)?;
        }
        Opcode::Link => {
            let old = request.take::<LinkIn>()?.oldnodeid;
            reply.put(&files.link(old, node, request.name()?)?);
        }
        Opcode::Open => reply.put(&files.open(node, &request.take::<OpenIn>()?)?),
        Opcode::Create => {
            let of = request.take::<CreateIn>()?;
            let (entry, opened) = files.create(&caller, node, request.name()?, &of)?;
            reply.put(&entry);
            reply.put(&opened);
        }
        Opcode::Tmpfile => {
            let of = request.take::<CreateIn>()?;
            let (entry, opened) = files.tmpfile(&caller, node, &of)?;
            reply.put(&entry);
            reply.put(&opened);
        }
        Opcode::Release | Opcode::Releasedir => files.release(node, &request.take::<ReleaseIn>()?),
        Opcode::Read => {
            let of = request.take::<ReadIn>()?;
            files.content_goes(node);
            reply.fill((of.size as usize).min(MAX_DATA), |to| files.read(node, &of, to))?;
        }
        Opcode::Write => {
            let of = request.take::<WriteIn>()?;
            files.content_goes(node);
            let size = files.write(node, &of, request.data(of.size)?)?;
            reply.put(&WriteOut { size, padding: 0 });
        }
        Opcode::Flush => files.flush(node, &request.take::<FlushIn>()?)?,
        Opcode::Fsync => files.fsync(node, &request.take::<FsyncIn>()?)?,
        Opcode::Fsyncdir => files.fsyncdir(node, &request.take::<FsyncIn>()?)?,
        Opcode::Syncfs => files.syncfs(node)?,
        Opcode::Opendir => reply.put(&files.opendir(node)?),
        Opcode::Readdir => files.readdir(node, &bounded(request)?, Told::Kind, reply)?,
        Opcode::Readdirplus => files.readdir(node, &bounded(request)?, Told::Entry, reply)?,
        Opcode::Statfs => reply.put(&files.statfs(node)?),
        Opcode::Access => {
            request.take::<AccessIn>()?;
            files.access(node)?;
        }
        Opcode::Getxattr => {
            let size = request.take::<GetxattrIn>()?.size;
            let name = request.text()?;
            files.content_goes(node);
            sized(size, reply, |to| files.getxattr(node, name, to))?;
        }
        Opcode::Listxattr => {
            let size = request.take::<GetxattrIn>()?.size;
            sized(size, reply, |to| files.listxattr(node, to))?;
        }
        Opcode::Setxattr => {
            let of = request.take::<SetxattrIn>()?;
            let name = request.text()?;
            files.setxattr(node, name, request.data(of.size)?, &of)?;
        }
        Opcode::Removexattr => files.removexattr(node, request.text()?)?,
        Opcode::Fallocate => files.fallocate(node, &request.take::<FallocateIn>()?)?,
        Opcode::Lseek => reply.put(&LseekOut { offset: files.lseek(node, &request.take::<LseekIn>()?)? }),
        Opcode::CopyFileRange => {
            let size = files.copy_file_range(node, &request.take::<CopyFileRangeIn>()?)?;
            reply.put(&WriteOut { size, padding: 0 });
        }
        Opcode::Ioctl => {
            let of = request.take::<IoctlIn>()?;
            files.ioctl(node, &of, request.data(of.in_size)?, reply)?;
        }
        // What is there to open is always ready: without this the client's kernel says so itself.
        Opcode::Poll => return Err(Errno::NOSYS),
        Opcode::Getlk => reply.put(&files.get_lock(node, &request.take::<LkIn>()?)?),
        Opcode::Setlk => files.set_lock(node, &request.take::<LkIn>()?)?,
        Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt | Opcode::Setlkw => {}
    }
    Ok(())
}

/// A directory's read, of no more than an answer may have.
fn bounded(request: &mut Request<'_>) -> Result<ReadIn, Errno> {
    let mut of = request.take::<ReadIn>()?;
    of.size = of.size.min(u32::try_from(MAX_DATA).map_err(|_| Errno::INVAL)?);
    Ok(of)
}

/// An answer of so many bytes at most; asked for none, its length.
fn sized(
    size: u32,
    reply: &mut Reply,
    get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    if size == 0 {
        let size = u32::try_from(get(&mut [])?).map_err(|_| Errno::TOOBIG)?;
        reply.put(&GetxattrOut { size, padding: 0 });
        return Ok(());
    }
    reply.fill((size as usize).min(LONGEST_XATTR), get)
}

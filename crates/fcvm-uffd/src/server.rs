//! Serves one memory to many VMs.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tracing::{debug, error, warn};

use crate::{
    Ending, Failure, HandshakeError, Memory, Options, Peer, Region, Released, Report, Statistics, VmId,
    WorkingSet,
    door::Door,
    eager::Seats,
    handshake::check_uffd,
    layout::Layout,
    recording::Recording,
    service::{Over, Service},
    vm::{FINISH, STOP, Vm},
};

/// How long a process may take to end once it was killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a thread's stack: it keeps nothing large on it.
const STACK: usize = 256 << 10;

/// Serves one memory to many VMs, each with a thread of its own.
///
/// A VM that has been taken is served until its process ends. While it lives its uffd is not closed, as
/// what it has not got yet would then read as zeros. Dropping the server is [`Server::stop`] with
/// [`Peer::kill`].
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
    doors: Mutex<Vec<Door>>,
}

pub(crate) struct Inner {
    memory: Arc<Memory>,
    options: Options,
    recording: Recording,
    seats: Seats,
    report: Box<dyn Fn(Report) + Send + Sync>,
    vms: Mutex<BTreeMap<VmId, Served>>,
    next: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Served {
    vm: Arc<Vm>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server without VMs. `report` is told what happens.
    ///
    /// Its working set is read here, if there is one.
    pub fn new(memory: Memory, options: Options, report: impl Fn(Report) + Send + Sync + 'static) -> Self {
        let memory = Arc::new(memory);
        let recording = Recording::new(memory.clone(), options.recording.as_ref());
        let inner = Inner {
            memory,
            options,
            recording,
            seats: Seats::new(),
            report: Box::new(report),
            vms: Mutex::default(),
            next: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner), doors: Mutex::default() }
    }

    /// Takes VMs that connect to a socket, as Firecracker does with backend type `Uffd`.
    ///
    /// Who may connect is decided by the mode of the socket's directory. The file of the socket is the
    /// caller's to remove.
    ///
    /// # Errors
    /// The socket cannot be used, or there can be no thread.
    pub fn listen(&self, listener: UnixListener) -> io::Result<()> {
        let door = Door::open(self.inner.clone(), listener)?;
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
        Ok(())
    }

    /// Takes a VM whose uffd has come by another way.
    ///
    /// # Errors
    /// It cannot be served: then its uffd is closed, and it must not run.
    pub fn register(&self, peer: Peer, uffd: OwnedFd, regions: &[Region]) -> Result<VmId, HandshakeError> {
        self.inner.admit(peer, uffd, regions, None)
    }

    /// What was done so far for each VM that is served.
    #[must_use]
    pub fn statistics(&self) -> Vec<Statistics> {
        self.inner.vms().values().map(|served| served.vm.statistics()).collect()
    }

    /// Ends the recording of the working set now, where one is running.
    pub fn finish_recording(&self) {
        if let Some(vm) = self.inner.recording.running()
            && let Some(served) = self.inner.vms().get(&vm)
        {
            served.vm.order(FINISH);
        }
    }

    /// What new VMs are given in advance.
    #[must_use]
    pub fn working_set(&self) -> Option<Arc<WorkingSet>> {
        self.inner.recording.done()
    }

    /// Ends the service of a VM on the caller's word that it has ended, or that somebody else serves it.
    /// Nothing if it is not served.
    #[must_use]
    pub fn release(&self, vm: VmId) -> Option<Released> {
        let served = self.inner.vms().remove(&vm)?;
        Some(finish(served))
    }

    /// Takes no more VMs, has those that are there killed, and waits for their ends; only then their uffds
    /// are closed.
    ///
    /// `kill` ends a VM, most simply by [`Peer::kill`]. Who lives on for ten seconds is killed, and who
    /// outlives that for ten more, or is unknown, has its uffd given back.
    pub fn stop(self, kill: impl FnMut(&Peer)) -> Vec<Released> {
        self.end(kill)
    }

    fn end(&self, mut kill: impl FnMut(&Peer)) -> Vec<Released> {
        let doors = std::mem::take(&mut *self.doors.lock().unwrap_or_else(PoisonError::into_inner));
        drop(doors);
        let all = {
            let mut vms = self.inner.vms();
            // Under the lock: after it nobody is added.
            self.inner.stopping.store(true, Relaxed);
            std::mem::take(&mut *vms)
        };
        for served in all.values() {
            kill(&served.vm.peer);
        }
        for served in all.values().filter(|served| served.vm.peer.pidfd().is_some()) {
            // They are served meanwhile: who ends in good order may still need pages.
            if !served.vm.peer.wait(PATIENCE)
                && let Err(error) = end_process(&served.vm.peer)
            {
                error!(vm = %served.vm.id, pid = served.vm.peer.pid(), %error, "a VM outlives its page server");
            }
        }
        all.into_values().map(finish).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let released = self.end(|peer| {
            if let Err(error) = peer.kill() {
                warn!(pid = peer.pid(), %error, "a VM was not killed");
            }
        });
        for uffd in released.into_iter().filter_map(|released| released.uffd) {
            // Whoever waits for its pages waits on, and reads no zeros.
            std::mem::forget(uffd);
        }
    }
}

/// Waits for the thread of a VM that is not on the list any more.
fn finish(mut served: Served) -> Released {
    served.vm.order(STOP);
    if let Some(thread) = served.thread.take()
        && thread.join().is_err()
    {
        error!(vm = %served.vm.id, "a thread panicked outside of its service");
    }
    let statistics = served.vm.statistics();
    let uffd = if served.vm.peer.wait(Duration::ZERO) {
        None
    } else {
        // Of the same uffd: it stays open.
        served.vm.uffd.try_clone().inspect_err(|error| error!(%error, "a uffd is lost")).ok()
    };
    Released { statistics, uffd }
}

/// Kills a process and waits for its end.
fn end_process(peer: &Peer) -> io::Result<()> {
    peer.kill()?;
    if peer.wait(PATIENCE) { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

impl Inner {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn report(&self, report: Report) {
        (self.report)(report);
    }

    /// Checks a VM, and starts its thread.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        uffd: OwnedFd,
        regions: &[Region],
        stream: Option<UnixStream>,
    ) -> Result<VmId, HandshakeError> {
        let failed = |what| move |source: io::Error| HandshakeError::Io { what, source };
        let layout = Layout::new(regions, self.memory.len())?;
        self.memory.check().map_err(HandshakeError::Memory)?;
        check_uffd(&uffd)?;
        // To be waited for by poll it must not block.
        let flags = fcntl_getfl(&uffd).map_err(|errno| failed("look at the uffd")(errno.into()))?;
        fcntl_setfl(&uffd, flags | OFlags::NONBLOCK)
            .map_err(|errno| failed("prepare the uffd")(errno.into()))?;
        let id = VmId(self.next.fetch_add(1, Relaxed));
        let pid = peer.pid();
        let vm = Vm::new(id, peer, uffd, stream, layout)
            .map_err(|errno| failed("make an eventfd")(errno.into()))?;
        let vm = Arc::new(vm);
        let mut vms = self.vms();
        if self.stopping.load(Relaxed) {
            return Err(HandshakeError::Stopping);
        }
        if vms.len() >= self.options.max_vms {
            return Err(HandshakeError::TooMany(vms.len()));
        }
        let (server, served) = (self.clone(), vm.clone());
        let thread = thread::Builder::new()
            .name(format!("uffd-{id}"))
            .stack_size(STACK)
            .spawn(move || server.serve(&served, pid))
            .map_err(failed("start a thread"))?;
        vms.insert(id, Served { vm, thread: Some(thread) });
        Ok(id)
    }

    /// A VM's thread.
    fn serve(&self, vm: &Vm, pid: Option<i32>) {
        debug!(vm = %vm.id, pid, "serving");
        self.report(Report::Joined { vm: vm.id, pid });
        let service = || Service::new(vm, &self.memory, &self.recording, &self.seats, &self.options).serve();
        let over = catch_unwind(AssertUnwindSafe(service)).unwrap_or(Err(Failure::Panicked));
        self.recording.forget(vm.id);
        let ending = match over {
            // Whoever has said so gets the statistics.
            Ok(Over::Stopped) => return,
            Ok(Over::Died) => Ending::Died,
            Err(failure) => {
                error!(vm = %vm.id, pid, error = &failure as &dyn std::error::Error, "a VM cannot be served");
                match end_process(&vm.peer) {
                    Ok(()) => Ending::Killed { failure },
                    Err(error) => Ending::Stuck { failure, error },
                }
            }
        };
        if !matches!(ending, Ending::Stuck { .. }) {
            // With it goes, at the end of this thread, the uffd.
            self.vms().remove(&vm.id);
        }
        self.report(Report::Left { statistics: vm.statistics(), ending });
    }

    fn vms(&self) -> MutexGuard<'_, BTreeMap<VmId, Served>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inner").field("memory", &self.memory).finish_non_exhaustive()
    }
}

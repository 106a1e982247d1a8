//! Memory that faults as a VMM's does, in processes of its own, and a server for it.

use std::{
    fs::File,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{
            fs::FileExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use fcvm_testkit::{needs_root, skip};
use fcvm_uffd::{Memory, Options, Peer, Report, Server};
use rustix::{
    cmsg_space,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid},
};

pub(crate) mod sys;

pub(crate) const PAGE: u64 = 4096;
/// A safety net: nothing takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What word `word` of page `page` of the memory file is, if that page is not a hole.
pub(crate) fn pattern(page: u64, word: u64) -> u64 {
    page << 16 | word << 1 | 1
}

/// A page in eight is a hole; also sixteen in a row at 64.
pub(crate) fn is_hole(page: u64) -> bool {
    page % 8 == 5 || (64..80).contains(&page)
}

/// A server with a memory file and a socket.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    server: Option<Server>,
    reports: Receiver<Report>,
    pages: u64,
}

impl World {
    /// Nothing, with a word why, where there is no userfaultfd here.
    pub(crate) fn new(pages: u64) -> Option<Self> {
        Self::with(pages, |_| Options::default())
    }

    pub(crate) fn with(pages: u64, options: impl FnOnce(&Path) -> Options) -> Option<Self> {
        if !needs_root() {
            return None;
        }
        if let Err(errno) = sys::uffd() {
            skip(format!("no userfaultfd: {errno}"));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("memory")).unwrap();
        file.set_len(pages * PAGE).unwrap();
        for page in (0..pages).filter(|page| !is_hole(*page)) {
            let bytes: Vec<u8> = (0..512).flat_map(|word| pattern(page, word).to_ne_bytes()).collect();
            file.write_all_at(&bytes, page * PAGE).unwrap();
        }
        let options = options(directory.path());
        let mut world = Self { directory, server: None, reports: mpsc::channel().1, pages };
        world.serve(options);
        Some(world)
    }

    /// Starts a server in place of the one that there is.
    pub(crate) fn serve(&mut self, options: Options) {
        self.server = None;
        let (sender, reports) = mpsc::channel();
        let memory = Memory::open(self.memory()).unwrap();
        let server = Server::new(memory, options, move |report| sender.send(report).unwrap_or_default());
        std::fs::remove_file(self.socket()).unwrap_or_default();
        server.listen(UnixListener::bind(self.socket()).unwrap()).unwrap();
        self.server = Some(server);
        self.reports = reports;
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.directory.path().join("memory")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn stop(&mut self) -> Vec<fcvm_uffd::Released> {
        self.server.take().unwrap().stop(|peer| peer.kill().unwrap())
    }

    pub(crate) fn drop_server(&mut self) {
        self.server = None;
    }

    /// The next report that is no arrival.
    pub(crate) fn report(&self) -> Report {
        loop {
            match self.reports.recv_timeout(DEADLINE).unwrap() {
                Report::Joined { .. } => {}
                other => return other,
            }
        }
    }

    /// A VMM that has done its handshake, and does what it is told to.
    pub(crate) fn vmm(&self, work: impl FnOnce(&Guest)) -> Vmm {
        let (socket, pages) = (self.socket(), self.pages);
        Vmm::start(|| work(&Guest::restore(&socket, pages)))
    }

    /// Insists on being of use to others still.
    pub(crate) fn assert_serves(&self) {
        self.vmm(Guest::assert_whole).succeed();
        loop {
            match self.report() {
                Report::Left { .. } => return,
                Report::Refused { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A process that stands for a VMM. Dropped, it is killed.
pub(crate) struct Vmm(Option<Pid>);

impl Vmm {
    pub(crate) fn start(work: impl FnOnce()) -> Self {
        Self(Some(sys::fork(work)))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.unwrap().as_raw_nonzero().get()
    }

    pub(crate) fn kill(&self) {
        kill_process(self.0.unwrap(), Signal::KILL).unwrap();
    }

    pub(crate) fn wait(mut self) -> WaitStatus {
        let pid = self.0.take().unwrap();
        // Guests wait for pages; what should not come is ended by this.
        assert!(Peer::of(pid.as_raw_nonzero().get()).unwrap().wait(DEADLINE), "it hangs");
        waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1
    }

    pub(crate) fn succeed(self) {
        let status = self.wait();
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
    }

    pub(crate) fn be_killed(self) {
        let status = self.wait();
        assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()), "{status:?}");
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            kill_process(pid, Signal::KILL).unwrap();
            waitpid(Some(pid), WaitOptions::empty()).unwrap();
        }
    }
}

/// A guest's memory, in two regions where there is enough.
pub(crate) struct Guest {
    pub(crate) address: u64,
    pub(crate) pages: u64,
    pub(crate) uffd: OwnedFd,
    /// Its end is the VMM's.
    pub(crate) stream: UnixStream,
}

impl Guest {
    /// What Firecracker does when it loads a snapshot.
    pub(crate) fn restore(socket: &Path, pages: u64) -> Self {
        Self::restore_with(socket, pages, PAGE)
    }

    pub(crate) fn restore_with(socket: &Path, pages: u64, page_size: u64) -> Self {
        let len = pages * PAGE;
        let address = sys::map(len as usize, page_size > PAGE).unwrap();
        let uffd = sys::uffd().unwrap();
        sys::register(&uffd, address, len);
        let half = len / 2 / page_size * page_size;
        let message = message(&[(address, half, 0), (address + half, len - half, half)], page_size);
        let stream = UnixStream::connect(socket).unwrap();
        send(&stream, message.as_bytes(), &[uffd.as_fd()]);
        Self { address, pages, uffd, stream }
    }

    pub(crate) fn load(&self, page: u64, word: u64) -> u64 {
        sys::load(self.address + page * PAGE + word * 8)
    }

    pub(crate) fn assert_page(&self, page: u64) {
        for word in [0, 1, 255, 511] {
            let expected = if is_hole(page) { 0 } else { pattern(page, word) };
            assert_eq!(self.load(page, word), expected, "word {word} of page {page}");
        }
    }

    /// Looks at each page.
    pub(crate) fn assert_whole(&self) {
        for page in 0..self.pages {
            self.assert_page(page);
        }
    }

    pub(crate) fn give_back(&self, pages: std::ops::Range<u64>) {
        let (address, len) = (self.address + pages.start * PAGE, (pages.end - pages.start) * PAGE);
        sys::give_back(address, len as usize).unwrap();
    }
}

/// Firecracker's description of regions: address, size, offset.
pub(crate) fn message(regions: &[(u64, u64, u64)], page_size: u64) -> String {
    let regions = regions.iter().filter(|(_, size, _)| *size > 0).map(|(address, size, offset)| {
        format!(
            r#"{{"base_host_virt_addr":{address},"size":{size},"offset":{offset},"page_size":{page_size},"page_size_kib":{page_size}}}"#
        )
    });
    format!("[{}]", regions.collect::<Vec<_>>().join(","))
}

pub(crate) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    assert_eq!(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL), Ok(bytes.len()));
}

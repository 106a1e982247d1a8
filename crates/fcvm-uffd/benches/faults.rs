//! What a page costs that a clone touches first, and how soon a clone answers.
//!
//! Run with `make bench-uffd` (5 rounds) or `make bench-uffd-quick` (2), as root. Side by side, one after the
//! other in each round:
//!
//! *memory of a process*: one that stands for a VMM touches 64 MiB page by page, in order and in disorder.
//!
//! *clones*: the tiny guest of the tests in a real Firecracker (`FCVM_FIRECRACKER` or `PATH`), restored with
//! memory mapped from the file, and by uffd: how long it takes to read 32 MiB page by page, and from the spawn
//! of Firecracker until the guest answers a byte.
//!
//! With `--windows` only: how many neighbours to serve, and how long to look for the next fault.
//!
//! `FCVM_UFFD_PEER` names another page server to compare with, which takes a socket and a memory file, and
//! serves one VM: Firecracker's own example, say. Without it there is only ours.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]
#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]
#![expect(dead_code, reason = "the tests need more of the support")]

use std::{
    env, fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use fcvm_uffd::{Memory, Options, Peer, RecordingOptions, Server};

#[path = "../tests/support/clone.rs"]
mod clone;
#[path = "../tests/support/mod.rs"]
mod support;

use clone::{Backend, Snapshot};
use support::{Guest, PAGE, Vmm};

const PAGES: u64 = 64 << 20 >> 12;
/// Pages of the tiny guest's arena.
const ARENA: f64 = 8192.0;
const MEMORY_MIB: u32 = 128;

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The kernel, from the file.
    File,
    Peer,
    /// Page by page.
    Single,
    Ours,
    /// With a working set.
    Recorded,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Peer => "peer",
            Self::Single => "ours, no neighbours",
            Self::Ours => "ours",
            Self::Recorded => "ours, working set",
        }
    }
}

fn main() {
    let rounds = if env::args().any(|argument| argument == "--quick") { 2 } else { 5 };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    if env::args().any(|argument| argument == "--windows") {
        return windows();
    }
    let peer = env::var_os("FCVM_UFFD_PEER").map(PathBuf::from);
    if peer.is_none() {
        println!("skipped: the other page server: FCVM_UFFD_PEER names none");
    }
    let mut table = Table::default();
    processes(rounds, peer.as_deref(), &mut table);
    if let Some(snapshot) = Snapshot::take(MEMORY_MIB) {
        clones(rounds, peer.as_deref(), &snapshot, &mut table);
    }
    table.print();
}

/// A process touches its memory.
fn processes(rounds: usize, peer: Option<&Path>, table: &mut Table) {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("memory");
    fs::write(&memory, vec![7; (PAGES * PAGE) as usize]).unwrap();
    for _ in 0..rounds {
        for who in [Who::Peer, Who::Single, Who::Ours] {
            for order in Order::ALL {
                let socket = directory.path().join("socket");
                let Some(serving) = Serving::start(who, peer, &socket, &memory) else { continue };
                let took = touch(&directory.path().join("result"), &socket, order);
                drop(serving);
                table.add(order.name(), who, took);
            }
        }
    }
}

/// What the choices in [`Options`] are worth.
fn windows() {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("memory");
    fs::write(&memory, vec![7; (PAGES * PAGE) as usize]).unwrap();
    println!(
        "{:>6} {:>6} {:>9}   µs a page: in order, in disorder, one in 64, the same in disorder",
        "least", "most", "eager, µs"
    );
    for (least_window, most_window) in [(1, 1), (4, 64), (8, 8), (8, 64), (8, 256), (16, 64), (32, 64)] {
        for eager in [0, 20, 50, 100] {
            let mut medians = Vec::new();
            for order in Order::ALL {
                let mut values: Vec<_> = (0..3)
                    .map(|_| {
                        let eager = Duration::from_micros(eager);
                        let options = Options { least_window, most_window, eager, ..Options::default() };
                        let socket = directory.path().join("socket");
                        let _serving = Serving::ours(options, &socket, &memory);
                        touch(&directory.path().join("result"), &socket, order)
                    })
                    .collect();
                values.sort_by(f64::total_cmp);
                medians.push(values[1]);
            }
            print!("{least_window:>6} {most_window:>6} {eager:>9}  ");
            for median in medians {
                print!(" {median:>8.2}");
            }
            println!();
        }
    }
}

/// Which pages are touched, one after the other.
#[derive(Clone, Copy)]
enum Order {
    Ascending,
    /// Each once, and no distance twice in a row.
    Shuffled,
    /// One in 64, in order.
    Strides,
    /// As many, in disorder.
    Sparse,
}

impl Order {
    const ALL: [Self; 4] = [Self::Ascending, Self::Shuffled, Self::Strides, Self::Sparse];

    fn name(self) -> &'static str {
        match self {
            Self::Ascending => "touch in order, µs a page",
            Self::Shuffled => "touch in disorder, µs a page",
            Self::Strides => "touch one in 64, µs a page",
            Self::Sparse => "touch one in 64 in disorder, µs a page",
        }
    }

    fn pages(self) -> Vec<u64> {
        // A linear congruential generator whose period is all of a power of two (Hull and Dobell).
        let shuffled = |count: u64| {
            std::iter::successors(Some(0), move |at| Some((at * 1_664_525 + 1_013_904_223) % count))
                .take(count as usize)
        };
        match self {
            Self::Ascending => (0..PAGES).collect(),
            Self::Shuffled => shuffled(PAGES).collect(),
            Self::Strides => (0..PAGES).step_by(64).collect(),
            Self::Sparse => shuffled(PAGES / 64).map(|page| page * 64).collect(),
        }
    }
}

/// Microseconds a page, of those that are touched.
fn touch(result: &Path, socket: &Path, order: Order) -> f64 {
    let pages = order.pages();
    let vmm = Vmm::start(|| {
        let guest = Guest::restore(socket, PAGES);
        guest.load(pages[0], 0);
        let begun = Instant::now();
        for page in &pages[1..] {
            guest.load(*page, 0);
        }
        fs::write(result, begun.elapsed().as_nanos().to_string()).unwrap();
    });
    vmm.succeed();
    let nanoseconds: f64 = fs::read_to_string(result).unwrap().parse().unwrap();
    nanoseconds / 1e3 / (pages.len() - 1) as f64
}

fn clones(rounds: usize, peer: Option<&Path>, snapshot: &Snapshot, table: &mut Table) {
    let socket = snapshot.env.path("uffd");
    for _ in 0..rounds {
        for who in [Who::File, Who::Peer, Who::Single, Who::Ours, Who::Recorded] {
            let serving = Serving::start(who, peer, &socket, &snapshot.memory);
            let backend = match serving {
                Some(_) => Backend::Uffd(&socket),
                None if who == Who::File => Backend::File,
                None => continue,
            };
            if who == Who::Recorded {
                // The first one records.
                let mut vm = snapshot.clone_by(backend);
                assert!(vm.ask("p").starts_with("pong"));
                let server = serving.as_ref().unwrap().server();
                server.finish_recording();
                while server.working_set().is_none() {
                    thread::yield_now();
                }
                vm.kill();
            }
            // One that serves one VM has had it after the first.
            let times = if who == Who::Peer { 1 } else { 5 };
            for _ in 0..times {
                let begun = Instant::now();
                let mut vm = snapshot.clone_by(backend);
                assert!(vm.ask("p").starts_with("pong"));
                table.add("spawn to answer, ms", who, milliseconds(begun.elapsed()));
                let begun = Instant::now();
                assert!(vm.ask("r").contains(" bad=0 "));
                let read = milliseconds(begun.elapsed()) * 1e3 / ARENA;
                table.add("guest reads in order, µs a page", who, read);
                vm.kill();
            }
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A page server that runs. Dropped, it ends.
enum Serving {
    Ours(Option<Server>),
    Peer(Child),
}

impl Serving {
    /// Nothing where there is none of that kind.
    fn start(who: Who, peer: Option<&Path>, socket: &Path, memory: &Path) -> Option<Self> {
        fs::remove_file(socket).unwrap_or_default();
        let file = memory.with_extension("ws");
        fs::remove_file(&file).unwrap_or_default();
        let options = match who {
            Who::File => return None,
            Who::Peer => {
                let mut command = Command::new(peer?);
                command.arg(socket).arg(memory).stdout(Stdio::null()).stderr(Stdio::null());
                let child = command.spawn().unwrap();
                while !socket.exists() {
                    thread::yield_now();
                }
                return Some(Self::Peer(child));
            }
            Who::Single => Options { least_window: 1, most_window: 1, ..Options::default() },
            Who::Ours => Options::default(),
            Who::Recorded => Options { recording: Some(RecordingOptions::new(file)), ..Options::default() },
        };
        Some(Self::ours(options, socket, memory))
    }

    fn ours(options: Options, socket: &Path, memory: &Path) -> Self {
        fs::remove_file(socket).unwrap_or_default();
        let server = Server::new(Memory::open(memory).unwrap(), options, |_| {});
        server.listen(UnixListener::bind(socket).unwrap()).unwrap();
        Self::Ours(Some(server))
    }

    fn server(&self) -> &Server {
        match self {
            Self::Ours(Some(server)) => server,
            _ => unreachable!("only ours is asked"),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match self {
            Self::Ours(server) => {
                if let Some(server) = server.take() {
                    server.stop(|vmm: &Peer| vmm.kill().unwrap());
                }
            }
            Self::Peer(child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
}

/// Medians, with what they are to others'.
#[derive(Default)]
struct Table(Vec<(&'static str, Who, Vec<f64>)>);

impl Table {
    fn add(&mut self, what: &'static str, who: Who, value: f64) {
        match self.0.iter_mut().find(|line| line.0 == what && line.1 == who) {
            Some(line) => line.2.push(value),
            None => self.0.push((what, who, vec![value])),
        }
    }

    fn median(&self, what: &str, who: Who) -> Option<f64> {
        let mut values = self.0.iter().find(|line| line.0 == what && line.1 == who)?.2.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn print(&self) {
        println!("{:<34} {:<20} {:>9} {:>9} {:>9}", "", "", "median", "to peer", "to file");
        let mut whats: Vec<_> = self.0.iter().map(|line| line.0).collect();
        whats.sort_unstable();
        whats.dedup();
        for what in whats {
            for who in [Who::File, Who::Peer, Who::Single, Who::Ours, Who::Recorded] {
                let Some(median) = self.median(what, who) else { continue };
                let ratio = |other| match self.median(what, other) {
                    Some(other) => format!("{:.2}", median / other),
                    None => "-".to_owned(),
                };
                println!(
                    "{what:<34} {:<20} {median:>9.2} {:>9} {:>9}",
                    who.name(),
                    ratio(Who::Peer),
                    ratio(Who::File)
                );
            }
        }
    }
}

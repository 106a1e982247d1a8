//! How long a run takes.
//!
//! Run with `make bench` (20 runs) or `make bench-quick` (5). It measures `fcvm podman run`
//! of a stored image whose container prints a line: from the start of the command to
//! the first byte on its standard output and to its end, both on this program's clock;
//! the stages as `--timings` tells them; the largest resident size of fcvm's own process
//! (not QEMU's) as `/proc` has it, read every 20 ms.
//!
//! Each line has minimum, median and maximum. The first run only warms the page
//! cache and is not counted. Needs what `fcvm setup` makes, and a static
//! `/bin/busybox`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod report;
#[path = "report/rootfs.rs"]
mod rootfs;

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use fcvm::{
    hypervisor::{Wanted, select},
    storage::DataDir,
};
use report::{heading, print};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");
const IMAGE: &str = "localhost/fcvm-bench";

fn main() -> anyhow::Result<()> {
    let runs = if std::env::args().any(|argument| argument == "--quick") { 5 } else { 20 };
    let data = DataDir::open(std::env::var_os("FCVM_DATA_DIR").map(Into::into))?;
    let selection = select(&Wanted::default(), &data)?;
    let cpu = if selection.hypervisor.capabilities().accelerated { "hardware CPU" } else { "emulated CPU" };
    let cores = thread::available_parallelism()?;
    println!("{} with {cpu}; {cores} host CPUs; {runs} runs", selection.hypervisor.name());
    starts(runs)
}

fn starts(runs: usize) -> anyhow::Result<()> {
    rootfs::import(FCVM, IMAGE)?;
    let measured = (0..=runs).map(|_| run_once()).skip(1).collect::<anyhow::Result<Vec<_>>>();
    Command::new(FCVM).args(["image", "rm", IMAGE]).stdout(Stdio::null()).status()?;
    let measured = measured?;
    heading("start");
    let of = |value: fn(&Run) -> f64| measured.iter().map(value).collect();
    print("to first output", "s", of(|run| run.first_output.as_secs_f64()));
    print("total", "s", of(|run| run.total.as_secs_f64()));
    print("fcvm's resident size", "MiB", of(|run| run.resident_kib / 1024.0));
    heading("stage");
    let mut stages: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for run in &measured {
        for (index, (stage, millis)) in run.stages.iter().enumerate() {
            stages.entry((index, stage)).or_default().push(*millis);
        }
    }
    for ((_, stage), millis) in stages {
        print(stage, "ms", millis);
    }
    Ok(())
}

struct Run {
    first_output: Duration,
    total: Duration,
    /// Name and milliseconds, in order.
    stages: Vec<(String, f64)>,
    resident_kib: f64,
}

fn run_once() -> anyhow::Result<Run> {
    let started = Instant::now();
    let mut child: Child = Command::new(FCVM)
        .args(["podman", "run", "--timings", IMAGE, "--", "/bin/busybox", "echo", "hello"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let (mut stdout, mut stderr) =
        (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    let resident = thread::spawn(move || {
        let mut most = 0.0;
        while let Some(now) = peak_resident_kib(pid) {
            most = now;
            thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let messages = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut output = vec![0];
    stdout.read_exact(&mut output).context("the container printed nothing")?;
    let first_output = started.elapsed();
    stdout.read_to_end(&mut output)?;
    let status = child.wait()?;
    let total = started.elapsed();
    let messages = messages.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    if !status.success() || output != b"hello\n" {
        bail!("the run failed ({status}):\n{messages}");
    }
    let resident_kib = resident.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    Ok(Run { first_output, total, stages: stages(&messages), resident_kib })
}

/// `VmHWM` of a process; nothing once it has ended.
fn peak_resident_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The table that `--timings` prints: name, milliseconds, milliseconds since the start.
fn stages(messages: &str) -> Vec<(String, f64)> {
    let table = messages.lines().skip_while(|line| !line.starts_with("stage ")).skip(1);
    table
        .filter_map(|line| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            let _at = words.pop()?;
            let millis = words.pop()?.parse().ok()?;
            Some((words.join(" "), millis))
        })
        .collect()
}

//! How long a run takes, and how long an image's disk.
//!
//! Run with `make bench` (20 runs) or `make bench-quick` (5). It measures, on
//! this machine and in one go:
//!
//! - `fcvm podman run` of a stored image whose container prints a line: from the
//!   start of the command to the first byte on its standard output and to its
//!   end, both on this program's clock; the stages as `--timings` tells them; the
//!   largest resident size of fcvm's own process (not QEMU's) as `/proc` has it,
//!   read every 20 ms.
//! - Making the disk of an image with one generated layer of 200 MB in 8000
//!   files, stored as gzip, zstd and plain tar, beside `umoci unpack` of the very
//!   same image where umoci is there and can read it. The two take turns; what
//!   counts is their ratio.
//!
//! Each line has minimum, median and maximum. The first run only warms the page
//! cache and is not counted. Needs what `fcvm setup` makes, and a static
//! `/bin/busybox`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use fcvm::{
    hash::Digest,
    hypervisor::{Choice, select},
    image::{disk, transport},
    setup::preflight::find_program,
};
use serde_json::json;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");
const IMAGE: &str = "localhost/fcvm-bench";
const LAYER_FILES: usize = 8000;
const LAYER_BYTES: usize = 200_000_000;

fn main() -> anyhow::Result<()> {
    let (runs, disks) = if std::env::args().any(|argument| argument == "--quick") { (5, 3) } else { (20, 7) };
    let selection = select(Choice::Auto)?;
    let cpu = if selection.hypervisor.capabilities().accelerated { "hardware CPU" } else { "emulated CPU" };
    let cores = thread::available_parallelism()?;
    println!("{} with {cpu}; {cores} host CPUs; {runs} runs", selection.hypervisor.name());
    starts(runs)?;
    image_disks(disks)
}

/// Prints minimum, median and maximum; gives the median.
fn print(what: &str, unit: &str, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return f64::NAN };
    let median = values[values.len() / 2];
    println!("{what:<24} {least:>9.2} {median:>9.2} {most:>9.2}  {unit}");
    median
}

fn heading(what: &str) {
    println!("\n{what:<24} {:>9} {:>9} {:>9}", "min", "median", "max");
}

fn starts(runs: usize) -> anyhow::Result<()> {
    import()?;
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

/// Imports an image with busybox in it.
fn import() -> anyhow::Result<()> {
    let busybox =
        fs::read("/bin/busybox").context("failed to read `/bin/busybox` (package busybox-static)")?;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "bin/busybox", &busybox)?;
    let arguments = ["image", "import", IMAGE, "-"];
    let mut command = Command::new(FCVM);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = command.spawn()?;
    import.stdin.take().context("no pipe")?.write_all(&archive.into_inner()?)?;
    if !import.wait()?.success() {
        bail!("the image could not be imported");
    }
    Ok(())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    Ok(archive.append_data(&mut header, path, content)?)
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

fn image_disks(rounds: usize) -> anyhow::Result<()> {
    let umoci = find_program("umoci");
    let directory = tempfile::tempdir()?;
    let layer = layer()?;
    heading("disk of 200 MB");
    for (name, media_type, stored) in [
        ("gzip", "tar+gzip", gzip(&layer)?),
        ("zstd", "tar+zstd", zstd::encode_all(&layer[..], 3)?),
        ("plain", "tar", layer.clone()),
    ] {
        let layout = directory.path().join(name);
        write_layout(&layout, media_type, &layer, &stored)?;
        let target = directory.path().join("disk");
        let unpacked = directory.path().join("unpacked");
        let (mut built, mut umocis) = (Vec::new(), Vec::new());
        let mut size = 0;
        for round in 0..=rounds {
            let started = Instant::now();
            let source = transport::oci_layout(&layout, None)?;
            size = disk::build(&target, &source)?.bytes;
            let took = started.elapsed().as_secs_f64();
            // The disk is durable when it is made; what umoci unpacked is not.
            let umoci = match &umoci {
                Some(program) => unpack(program, &layout, &unpacked)?,
                None => None,
            };
            if round > 0 {
                built.push(took);
                umocis.extend(umoci);
            }
        }
        let ours = print(&format!("fcvm, {name}"), "s", built);
        if umocis.is_empty() {
            println!("{:<24} not there, or cannot read it", format!("umoci unpack, {name}"));
        } else {
            let theirs = print(&format!("umoci unpack, {name}"), "s", umocis);
            println!("{:<24} {:>19.2}  of umoci's time", "ratio", ours / theirs);
        }
        println!("{:<24} {:>19.2}  of the files' sizes", "disk's size", ratio(size, LAYER_BYTES as u64));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "two digits are printed")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// How long umoci takes; nothing where it cannot read the image.
fn unpack(program: &Path, layout: &Path, target: &Path) -> anyhow::Result<Option<f64>> {
    let mut command = Command::new(program);
    command.args(["unpack", "--image", &format!("{}:bench", layout.display())]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--rootless");
    }
    let started = Instant::now();
    let output = command.arg(target).output()?;
    let took = started.elapsed().as_secs_f64();
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    Ok(output.status.success().then_some(took))
}

/// Files of many sizes, half of them text that repeats, half random bytes.
fn layer() -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(LAYER_BYTES + LAYER_FILES * 1536));
    let mut state: u64 = 1;
    let mut next = || {
        // Knuth's linear congruential generator: the same on every machine.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    };
    let mean = LAYER_BYTES / LAYER_FILES;
    for file in 0..LAYER_FILES {
        // 1, 3, 5, … 15 eighths of the mean.
        let size = mean * (2 * (file % 8) + 1) / 8;
        let mut content = Vec::with_capacity(size + 64);
        while content.len() < size {
            if file % 2 == 0 {
                let [word, number, ..] = next();
                let word =
                    ["fn", "let", "match", "return", "struct", "while", "use", "impl"][usize::from(word % 8)];
                writeln!(content, "    {word} value_{number} = {};", number % 16)?;
            } else {
                content.extend(&next()[..4]);
            }
        }
        content.truncate(size);
        append(&mut archive, &format!("usr/lib/part{}/file{file}", file % 100), &content)?;
    }
    Ok(archive.into_inner()?)
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// An OCI layout of one image, tagged `bench`, with one layer.
fn write_layout(directory: &Path, media_type: &str, layer: &[u8], stored: &[u8]) -> anyhow::Result<()> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |media_type: String, bytes: &[u8]| -> anyhow::Result<serde_json::Value> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let oci = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer)] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci("manifest.v1+json"),
        "config": blob(oci("config.v1+json"), &serde_json::to_vec(&config)?)?,
        "layers": [blob(oci(&format!("layer.v1.{media_type}")), stored)?],
    });
    let mut manifest = blob(oci("manifest.v1+json"), &serde_json::to_vec(&manifest)?)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "bench" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

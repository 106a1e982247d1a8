//! How long images take: to fetch, and to make their disks.
//!
//! Run with `make bench` or `make bench-quick` (fewer rounds). On this machine and in one go:
//!
//! - The disk of an image with one generated layer of 200 MB in 8000 files, stored as gzip,
//!   zstd and plain tar, beside `umoci unpack` of the very same image where umoci is there and can
//!   read it. The two take turns; what counts is their ratio.
//! - The disk of the gzip one beside a builder VM, whose Podman loads the same image. Once.
//! - Pulling an image with a layer of 500 MB from a registry on this machine, beside
//!   `skopeo copy` of it to a directory; and until its disk is made too.
//!
//! Each line has minimum, median and maximum. The first round only warms the page cache and is not
//! counted. Needs what `fcvm setup` makes; what compares needs umoci, skopeo and docker-registry, and
//! is left out without them.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod report;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use fcvm::{
    hash::Digest,
    hypervisor::{Wanted, select},
    image::{
        disk::{self, DiskBuilder as _},
        transport,
    },
    setup::{Assets, Overrides, preflight::find_program},
    state::{Registry as Vms, RuntimeDir},
    storage::DataDir,
    vm::GuestBuilder,
};
use fcvm_testkit::{Compression, Entry, Format, Image, Layer, Registry, noise};
use report::{heading, print};
use serde_json::json;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");
const LAYER_FILES: usize = 8000;
const LAYER_BYTES: usize = 200_000_000;
const PULLED_BYTES: usize = 500_000_000;

fn main() -> anyhow::Result<()> {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 3 } else { 7 };
    image_disks(rounds)?;
    builder_vm()?;
    pulls(rounds)
}

/// Our writer and a guest's Podman, each once.
fn builder_vm() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (layout, target) = (directory.path().join("layout"), directory.path().join("disk"));
    let layer = layer()?;
    write_layout(&layout, "tar+gzip", &layer, &gzip(&layer)?)?;
    let source = transport::oci_layout(&layout, None)?;
    heading("disk of 200 MB, gzip");
    let started = Instant::now();
    disk::HostBuilder.build(&target, &source)?;
    let ours = print("fcvm", "s", vec![started.elapsed().as_secs_f64()]);
    let data = DataDir::open(std::env::var_os("FCVM_DATA_DIR").map(Into::into))?;
    let selection = select(&Wanted::default(), &data)?;
    // Where the build puts it beside the program that is measured.
    let agent = Path::new(FCVM).parent().and_then(Path::parent).context("the program is nowhere")?;
    let agent = Some(agent.join("libexec/fcvm/fc-agent"));
    let assets = Assets::locate(&data, &Overrides { agent, ..Overrides::default() })?;
    let vms = Vms::new(&data, RuntimeDir::from_env());
    let builder = GuestBuilder { hypervisor: &*selection.hypervisor, assets: &assets, registry: &vms };
    fs::remove_file(&target)?;
    let started = Instant::now();
    builder.build(&target, &source)?;
    let guest = print("builder VM", "s", vec![started.elapsed().as_secs_f64()]);
    println!("{:<24} {:>19.1}  times as fast", "ratio", guest / ours);
    Ok(())
}

fn pulls(rounds: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    heading("pull of 500 MB");
    let Some(registry) = Registry::plain(directory.path()) else {
        println!("left out: it needs docker-registry and skopeo");
        return Ok(());
    };
    let layer = Layer::new().with(Entry::file("noise", noise(PULLED_BYTES)));
    registry.push(&Image::new().layer(&layer, Compression::None), "large:1", Format::Oci);
    let name = registry.name("large:1");
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let (mut fetched, mut ready, mut skopeos) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let started = Instant::now();
        let source = format!("docker://{name}");
        succeed(
            Command::new("skopeo")
                .args(["copy", "-q", "--src-tls-verify=false", &source])
                .arg(format!("dir:{}", copy.display())),
        )?;
        let skopeo = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let told = succeed(Command::new(FCVM).arg("--data-dir").arg(&data).args(["image", "pull", &name]))?;
        let total = started.elapsed().as_secs_f64();
        if round > 0 {
            skopeos.push(skopeo);
            ready.push(total);
            fetched.push(seconds_of_layer(&told).context("the layer's time is not told")?);
        }
        for left in [&data, &copy] {
            fs::remove_dir_all(left)?;
        }
    }
    let theirs = print("skopeo copy to dir", "s", skopeos);
    let ours = print("fcvm, layer fetched", "s", fetched);
    let all = print("fcvm, disk made too", "s", ready);
    println!("{:<24} {:>19.2}  of skopeo's speed", "fetched", theirs / ours);
    println!("{:<24} {:>19.2}  of skopeo's speed", "disk made too", theirs / all);
    Ok(())
}

/// Runs a command; what it said on standard error.
fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{said}", output.status);
    }
    Ok(said)
}

/// `layer HEX: 500.0 MB (1.4 s)`: 1.4.
fn seconds_of_layer(told: &str) -> Option<f64> {
    let line = told.lines().find(|line| line.starts_with("layer ") && line.ends_with(" s)"))?;
    line.rsplit_once('(')?.1.strip_suffix(" s)")?.parse().ok()
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

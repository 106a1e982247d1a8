//! What the tests' VMs run on.
//!
//! `$FCVM_TEST_HYPERVISOR` is `qemu`, as when it is not set, or `firecracker`: the same tests, on a
//! real Firecracker. Where KVM is that of page-table VMs (`kvm_pvm`) no stock kernel runs, and a
//! directory `shared/pvm` beside the project (or `$FCVM_TEST_PVM`) has one that does.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use lzma_rust2::XzReader;

use crate::firecracker::{find_program, find_shared};

/// What that kernel needs: its CPU has no room for more registers, and one CPU is all it boots.
const PVM_PARAMETERS: &str = "noxsave mitigations=off clearcpuid=308,295,298,145,59,534,288,154,141,151,514";

/// What its programs need: it does not keep AVX's registers for them while another one runs, and the CPUID that they
/// see is the host's. One of 30 that busybox starts dies of that.
const PVM_ENVIRONMENT: &str = "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,\
    -AVX_Fast_Unaligned_Load,-ERMS";

/// The kinds of containers for which machines are prepared, by their options.
const KINDS: [&[&str]; 6] = [&[], &["-i"], &["-it"], &["-m256m"], &["-m256m", "-i"], &["--network=none"]];

/// An engine, and how it is asked for.
#[derive(Debug)]
pub(crate) struct Engine {
    /// As `--hypervisor` takes it.
    pub(crate) name: &'static str,
    /// For every command.
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// For `fcvm podman run`, before the test's own.
    pub(crate) options: Vec<&'static str>,
    /// For `fcvm exec`, the same.
    pub(crate) exec_options: Vec<&'static str>,
    /// The kinds of containers that it has prepared machines for.
    pub(crate) kinds: &'static [&'static [&'static str]],
}

/// The engine of this process's tests, or why there is none here.
pub(crate) fn engine(target: &Path) -> Result<&'static Engine, &'static str> {
    static QEMU: OnceLock<Engine> = OnceLock::new();
    match env::var("FCVM_TEST_HYPERVISOR").as_deref() {
        Ok("firecracker") => firecracker(target),
        Ok("qemu" | "") | Err(_) => Ok(QEMU.get_or_init(|| Engine {
            name: "qemu",
            variables: vec![("FCVM_HYPERVISOR", "qemu".into())],
            options: Vec::new(),
            exec_options: Vec::new(),
            kinds: &KINDS,
        })),
        Ok(other) => panic!("FCVM_TEST_HYPERVISOR=`{other}`: qemu or firecracker"),
    }
}

/// Firecracker, whatever the other tests run on.
pub(crate) fn firecracker(target: &Path) -> Result<&'static Engine, &'static str> {
    static FIRECRACKER: OnceLock<Result<Engine, String>> = OnceLock::new();
    FIRECRACKER.get_or_init(|| find_firecracker(target)).as_ref().map_err(String::as_str)
}

/// How much longer than with QEMU this process's commands may take.
#[must_use]
pub fn slowness() -> u32 {
    if env::var_os("FCVM_TEST_HYPERVISOR").is_some_and(|name| name == "firecracker") { 4 } else { 1 }
}

/// How much of an amount of work a guest of this process's tests is to do, that of QEMU's being all of it.
#[must_use]
pub fn scaled(amount: usize) -> usize {
    amount / (slowness() as usize).pow(3)
}

fn find_firecracker(target: &Path) -> Result<Engine, String> {
    let program = find_program()?;
    let mut engine = Engine {
        name: "firecracker",
        variables: vec![("FCVM_HYPERVISOR", "firecracker".into()), ("FCVM_FIRECRACKER", program.into())],
        options: Vec::new(),
        exec_options: Vec::new(),
        kinds: &KINDS,
    };
    if !has_virtualization() {
        let kernel = pvm_kernel(target)?;
        engine.variables.push(("FCVM_KERNEL", kernel.into()));
        engine.options = vec!["--cpus", "1", "--kernel-args", PVM_PARAMETERS, "-e", PVM_ENVIRONMENT];
        engine.exec_options = vec!["-e", PVM_ENVIRONMENT];
        // All its clocks are the host's: minutes have passed where one goes on, and its Podman gives up.
        engine.kinds = &[];
    }
    Ok(engine)
}

/// Whether KVM runs any kernel here.
fn has_virtualization() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap();
    cfg!(target_arch = "aarch64") || info.split_ascii_whitespace().any(|word| word == "vmx" || word == "svm")
}

/// The kernel for page-table VMs, unpacked once.
fn pvm_kernel(target: &Path) -> Result<PathBuf, String> {
    let no_kernel = || "KVM is that of page-table VMs, and there is no kernel for it".to_owned();
    let directory = find_shared().ok_or_else(no_kernel)?;
    let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let packed = files.find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("vmlinux") && name.ends_with(".xz")
    });
    let packed = packed.ok_or_else(no_kernel)?;
    let kernel = target.join("tmp").join(packed.file_stem().unwrap());
    if !kernel.exists() {
        fs::create_dir_all(kernel.parent().unwrap()).unwrap();
        // Other tests do the same at this moment.
        let mut file = tempfile::NamedTempFile::new_in(kernel.parent().unwrap()).unwrap();
        io::copy(&mut XzReader::new(File::open(packed).unwrap(), true), &mut file).unwrap();
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
        file.persist(&kernel).unwrap();
    }
    Ok(kernel)
}

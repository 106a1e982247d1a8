//! `fc-agent`: PID 1 of an fcvm guest.
//!
//! ```text
//!  kernel -> init: mounts, modules, root        (init)
//!         -> link: waits for the host's session (device, session)
//!         -> Hello -> boot plan                 (session)
//!         -> identity, clock, entropy, network  (guest)
//!         -> volumes of the host                (volumes)
//!         -> podman run                         (container; prepared, where its program comes later)
//!         -> outcome -> power off               (power)
//! ```
//! Every failure before the link stands goes to the console and powers off;
//! every failure after it reaches the host as an outcome. A panic ends the agent and so the
//! guest's kernel: with half of its tasks it would let its host wait. The agent works by
//! system calls: the only programs it starts are Podman and what Podman starts.

mod build;
mod container;
mod descriptor;
mod device;
mod directory;
mod exec;
mod fault;
mod guest;
mod init;
mod input;
mod link;
mod log;
mod machine;
mod output;
mod podman;
mod power;
mod prepared;
mod reaper;
mod renamed;
mod session;
mod sys;
mod tcp;
mod terminal;
mod volumes;

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

use rustix::process::getpid;

/// musl's gives each buffer back to the kernel: in an emulated guest that goes on from a snapshot, and has no
/// translated code yet, maps and unmaps are a tenth of the way to the first command.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    if renamed::is_this_process() {
        return match renamed::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Podman passes it on.
                log::console(&format!("fc-agent: {error:#}"));
                ExitCode::FAILURE
            }
        };
    }
    if !getpid().is_init() {
        if exec::is_rehearsal() {
            // Its end would be as much work, and at the wrong time.
            std::thread::sleep(std::time::Duration::from_secs(1));
            return ExitCode::SUCCESS;
        }
        if prepared::is_wrapper() {
            return prepared::wrap();
        }
        // The only thing a host may ask of this program.
        return log::console(&format!(
            "fc-agent {}: runs as PID 1 of an fcvm guest",
            env!("CARGO_PKG_VERSION")
        ));
    }
    std::panic::set_hook(Box::new(|panic| {
        log::console(&format!("fc-agent: fatal: {panic}"));
        std::process::abort();
    }));
    let ended = init::run().and_then(|guest| {
        let link = link::start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(session::serve(guest, link))
    });
    if let Err(error) = ended {
        // The host finds this line in the console's last ones.
        log::console(&format!("fc-agent: fatal: {error:#}"));
    }
    power::off()
}

//! The client of Firecracker's API against a real Firecracker: what it says is taken and has its
//! effect, what Firecracker refuses comes back in Firecracker's words.
//!
//! Those words are insisted on, as they are what users will read.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "firecracker_api/configuration.rs"]
mod configuration;
#[path = "firecracker_api/going_on.rs"]
mod going_on;
#[path = "firecracker_api/machine.rs"]
mod machine;
#[path = "firecracker_api/network.rs"]
mod network;
#[path = "firecracker_api/process.rs"]
mod process;
#[path = "firecracker_api/running.rs"]
mod running;
#[path = "firecracker_api/snapshots.rs"]
mod snapshots;

use std::fmt::Debug;

use fcvm::hypervisor::firecracker::api::{Action, ApiError, BootSource, Client, MachineConfig};
use fcvm_testkit::{Firecracker, FirecrackerEnv};

/// The guest's arena ends at 64.
const MEMORY_MIB: u32 = 72;

async fn connect(firecracker: &Firecracker) -> Client {
    Client::connect(firecracker.socket()).await.unwrap()
}

/// Tells Firecracker of the guest, and of memory whose written pages are counted.
async fn configure_guest(env: &FirecrackerEnv, client: &Client) {
    let machine = MachineConfig { track_dirty_pages: true, ..MachineConfig::new(1, MEMORY_MIB) };
    client.put_machine_config(&machine).await.unwrap();
    client.put_boot_source(&BootSource::new(env.guest())).await.unwrap();
}

/// Starts the guest, and waits until it takes orders.
async fn start_guest(vm: &mut Firecracker, client: &Client) {
    client.put_action(Action::InstanceStart).await.unwrap();
    assert_eq!(vm.line(), "TINY BOOT");
    assert!(vm.line().starts_with("init pages=2000 "));
}

/// A guest that runs.
async fn boot(env: &FirecrackerEnv) -> (Firecracker, Client) {
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(env, &client).await;
    start_guest(&mut vm, &client).await;
    (vm, client)
}

/// Insists on a refusal with these words in it.
#[track_caller]
fn assert_refused<T: Debug>(result: Result<T, ApiError>, words: &str) {
    assert_refused_with(400, result, words);
}

#[track_caller]
fn assert_refused_with<T: Debug>(expected: u16, result: Result<T, ApiError>, words: &str) {
    match result {
        Err(ApiError::Fault { status, message, .. }) if message.contains(words) => {
            assert_eq!(status, expected)
        }
        other => panic!("not refused with `{words}`: {other:?}"),
    }
}

/// Insists that the process has ended.
async fn assert_gone(client: &Client) {
    let error = client.get_instance_info().await.unwrap_err();
    assert!(matches!(error, ApiError::Gone { .. }), "{error:?}");
}

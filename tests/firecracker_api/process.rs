//! How the process ends, and how many may talk to it.

use std::{io::ErrorKind, os::unix::process::ExitStatusExt as _};

use fcvm::hypervisor::firecracker::api::{ApiError, Client};
use fcvm_testkit::FirecrackerEnv;

use super::{assert_gone, assert_refused_with, boot, connect};

#[test]
fn vm_firecracker_api_of_a_process_that_cannot_start() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let taken = env.file("taken.sock", "");
    let output = env.run(&["--api-sock", taken.to_str().unwrap()]);
    output.assert_code(1);
    assert!(output.stderr.contains("FailedToBindSocket"), "{}", output.stderr);
    env.run(&["--no-such-option"]).assert_code(153);
    env.run(&["--level", "nonsense"]).assert_code(152);
    // A bad configuration is no bad configuration to it, and none at all is a panic.
    let config = env.file("config.json", r#"{"boot-source":{}}"#);
    env.run(&["--no-api", "--config-file", config.to_str().unwrap()]).assert_code(1);
    let none = env.run(&["--no-api", "--config-file", "none.json"]);
    assert_eq!(none.status.signal(), Some(6));
}

#[tokio::test]
async fn vm_firecracker_api_tells_the_version_of_the_program() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let version = client.get_version().await.unwrap().firecracker_version;
    assert_eq!(env.run(&["--version"]).stdout().lines().next(), Some(&*format!("Firecracker v{version}")));
    assert_eq!(client.get_instance_info().await.unwrap().vmm_version, version);
}

#[tokio::test]
async fn vm_firecracker_api_serves_ten_clients() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let client = connect(&vm).await;
        client.get_version().await.unwrap();
        clients.push(client);
    }
    // Firecracker says so and closes the connection, before or while the request comes.
    match connect(&vm).await.get_version().await {
        Err(ApiError::Gone { .. }) => {}
        refused => assert_refused_with(503, refused, "Too many open connections"),
    }
    // Nobody else notices.
    for client in &clients {
        client.get_version().await.unwrap();
    }
}

#[tokio::test]
async fn vm_firecracker_api_of_a_killed_process_is_gone() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let socket = vm.socket().to_owned();
    let client = connect(&vm).await;
    client.get_version().await.unwrap();
    vm.kill();
    assert_gone(&client).await;
    // The socket's name stays, and nobody is behind it.
    let error = Client::connect(&socket).await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Connect { source, .. } if source.kind() == ErrorKind::ConnectionRefused)
    );
}

#[tokio::test]
async fn vm_firecracker_api_ends_with_the_guests_reset() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (mut vm, client) = boot(&env).await;
    assert_eq!(vm.ask("q"), "reboot");
    vm.wait().assert_code(0);
    assert_gone(&client).await;
}

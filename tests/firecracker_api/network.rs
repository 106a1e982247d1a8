//! Network interfaces and metadata, with taps in namespaces of the test's own.

use std::{fs, net::Ipv4Addr};

use fcvm::hypervisor::firecracker::api::{
    Client, MemoryBackend, MmdsConfig, MmdsVersion, NetworkInterface, NetworkInterfaceUpdate,
    NetworkOverride, RateLimiter, SnapshotCreate, SnapshotLoad, SnapshotType, TokenBucket, VmState,
};
use fcvm_testkit::{Firecracker, FirecrackerEnv};
use serde_json::{Value, json};

use super::{assert_refused, assert_refused_with, configure_guest, connect, start_guest};

/// The interfaces that the process sees.
fn interfaces(vm: &Firecracker) -> Vec<String> {
    let devices = fs::read_to_string(format!("/proc/{}/net/dev", vm.pid())).unwrap();
    let names =
        devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "lo").collect()
}

fn interface(id: &str, tap: &str) -> NetworkInterface {
    NetworkInterface::new(id.parse().unwrap(), tap)
}

async fn shown(client: &Client) -> Vec<NetworkInterface> {
    client.get_vm_config().await.unwrap().network_interfaces
}

#[tokio::test]
async fn vm_firecracker_api_has_interfaces_on_taps() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let Some(mut vm) = env.start_in_namespace("ip tuntap add tap0 mode tap") else { return };
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let bucket = TokenBucket { size: 1000, one_time_burst: Some(2000), refill_time: 100 };
    let limiter = RateLimiter { bandwidth: Some(bucket), ops: None };
    let first = NetworkInterface {
        guest_mac: Some("06:00:AC:10:00:02".into()),
        mtu: Some(1400),
        rx_rate_limiter: Some(limiter),
        tx_rate_limiter: None,
        ..interface("eth0", "tap0")
    };
    client.put_network_interface(&first).await.unwrap();
    let first = NetworkInterface { guest_mac: Some("06:00:ac:10:00:02".into()), ..first };
    assert_eq!(shown(&client).await, std::slice::from_ref(&first));

    let put = async |interface: NetworkInterface| client.put_network_interface(&interface).await;
    assert_refused(put(interface("eth1", "tap0")).await, "Device or resource busy");
    let same = NetworkInterface { guest_mac: first.guest_mac.clone(), ..interface("eth1", "tap1") };
    assert_refused(put(same).await, "The MAC address is already in use: 06:00:ac:10:00:02");
    let odd = NetworkInterface { guest_mac: Some("06:00".into()), ..interface("eth1", "tap1") };
    assert_refused(put(odd).await, "The provided MAC address is invalid.");
    let small = NetworkInterface { mtu: Some(67), ..interface("eth1", "tap1") };
    assert_refused(put(small).await, "MTU 67 is out of range [68, 65535]");
    assert_refused(put(interface("eth1", "a/b")).await, "Invalid TUN/TAP Backend provided by a/b.");
    assert_refused(put(interface("eth1", "sixteen_letters_")).await, "Invalid interface name");

    // A tap that is not there is made, by who may: a wrong name is no error.
    assert_eq!(interfaces(&vm), ["tap0"]);
    put(interface("eth1", "no_such_tap")).await.unwrap();
    assert_eq!(interfaces(&vm), ["tap0", "no_such_tap"]);
    // What cannot take the place of another removes it nevertheless.
    assert_refused(put(interface("eth1", "a/b")).await, "Invalid TUN/TAP Backend");
    assert_eq!(shown(&client).await, std::slice::from_ref(&first));
    assert_eq!(interfaces(&vm), ["tap0"]);

    start_guest(&mut vm, &client).await;
    let update = NetworkInterfaceUpdate {
        iface_id: first.iface_id.clone(),
        rx_rate_limiter: None,
        tx_rate_limiter: Some(limiter),
    };
    client.patch_network_interface(&update).await.unwrap();
    assert_eq!(shown(&client).await, [NetworkInterface { tx_rate_limiter: Some(limiter), ..first }]);
    let unknown = NetworkInterfaceUpdate { iface_id: "eth9".parse().unwrap(), ..update };
    assert_refused(client.patch_network_interface(&unknown).await, "Device not found");
}

#[tokio::test]
async fn vm_firecracker_api_has_metadata_on_interfaces() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let Some(mut vm) = env.start_in_namespace("ip tuntap add tap0 mode tap") else { return };
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    client.put_network_interface(&interface("eth0", "tap0")).await.unwrap();
    let config = MmdsConfig {
        ipv4_address: Some(Ipv4Addr::new(169, 254, 169, 253)),
        imds_compat: true,
        ..MmdsConfig::new(vec!["eth0".parse().unwrap()])
    };
    let global = MmdsConfig { ipv4_address: Some(Ipv4Addr::new(10, 0, 0, 1)), ..config.clone() };
    assert_refused(client.put_mmds_config(&global).await, "The MMDS IPv4 address is not link local.");
    let old =
        MmdsConfig { version: MmdsVersion::V1, ipv4_address: None, imds_compat: false, ..config.clone() };
    client.put_mmds_config(&old).await.unwrap();
    client.put_mmds_config(&config).await.unwrap();
    assert_eq!(client.get_vm_config().await.unwrap().mmds_config, Some(config));
    start_guest(&mut vm, &client).await;

    let data = async || client.get_mmds::<Value>().await.unwrap();
    assert_eq!(data().await, json!({}));
    client.put_mmds(&json!({ "a": 1 })).await.unwrap();
    client.patch_mmds(&json!({ "b": 2 })).await.unwrap();
    assert_eq!(data().await, json!({ "a": 1, "b": 2 }));
    let more = client.patch_mmds(&json!({ "c": "x".repeat(51190) })).await;
    assert_refused_with(413, more, "The MMDS patch request doesn't fit.");
    assert_eq!(data().await, json!({ "a": 1, "b": 2 }));
}

#[tokio::test]
async fn vm_firecracker_api_loads_snapshots_onto_other_taps() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let Some(mut vm) = env.start_in_namespace("ip tuntap add tap0 mode tap") else { return };
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    client.put_network_interface(&interface("eth0", "tap0")).await.unwrap();
    client.put_mmds_config(&MmdsConfig::new(vec!["eth0".parse().unwrap()])).await.unwrap();
    client.put_mmds(&json!({ "of": "the source" })).await.unwrap();
    start_guest(&mut vm, &client).await;
    client.patch_vm(VmState::Paused).await.unwrap();
    let create = SnapshotCreate {
        snapshot_type: SnapshotType::Full,
        snapshot_path: env.path("state"),
        mem_file_path: env.path("memory"),
    };
    client.put_snapshot_create(&create).await.unwrap();
    vm.kill();

    let other = NetworkOverride { iface_id: "eth0".parse().unwrap(), host_dev_name: "tap1".into() };
    let load = SnapshotLoad {
        resume_vm: true,
        network_overrides: vec![other],
        ..SnapshotLoad::new(create.snapshot_path, MemoryBackend::file(create.mem_file_path))
    };
    // With metadata of its own, and without: that of the source is not in the snapshot.
    for data in [json!({ "of": "the clone" }), json!({})] {
        let Some(mut vm) = env.start_in_namespace("ip tuntap add tap1 mode tap") else { return };
        let client = connect(&vm).await;
        if data != json!({}) {
            client.put_mmds(&data).await.unwrap();
        }
        client.put_snapshot_load(&load).await.unwrap();
        assert!(vm.ask("r").ends_with(" bad=0 n=1"));
        assert_eq!(client.get_mmds::<Value>().await.unwrap(), data);
        assert_eq!(shown(&client).await[0].host_dev_name, "tap1");
        assert_eq!(interfaces(&vm), ["tap1"]);
    }
    // Without the override the snapshot's own tap is made, unasked.
    let Some(vm) = env.start_in_namespace("ip tuntap add tap1 mode tap") else { return };
    let load = SnapshotLoad { network_overrides: Vec::new(), ..load };
    connect(&vm).await.put_snapshot_load(&load).await.unwrap();
    assert_eq!(interfaces(&vm), ["tap1", "tap0"]);
}

//! Clients that keep to nothing, of random bytes from fixed seeds. The fuzzer finds better ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests; figures are printed")]

use std::fs;

use fcvm_testkit::needs_root;

#[path = "../fuzz/hostile.rs"]
mod hostile;

/// Half a minute of them.
const CLIENTS: u64 = 3000;

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes of a seed, by xorshift.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..4096).map(|_| next()).collect()
}

#[test]
fn root_slow_hostile_clients_get_nowhere() {
    if !needs_root() {
        return;
    }
    let world = hostile::World::new();
    for seed in 1..=CLIENTS {
        world.run(&noise(seed));
    }
    let most = resident_kib();
    println!("{CLIENTS} clients, at most {most} KiB in memory");
    assert!(most < 256 << 10, "{most} KiB");
}

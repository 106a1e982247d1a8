//! The memory balloon, where the machine has one: its driver does the work.

use std::fs;

use anyhow::Context as _;

use super::modules;

/// The kernel's devices on virtio, whether they have a driver or not.
const DEVICES: &str = "/sys/bus/virtio/devices";
/// The device's number in the virtio specification, as the kernel writes it.
const BALLOON: &str = "0x0005";

/// Loads the driver where there is a balloon.
///
/// # Errors
/// Where that cannot be known, or the driver cannot be loaded.
pub(super) fn start() -> anyhow::Result<()> {
    let failed = || format!("failed to list `{DEVICES}`");
    for device in fs::read_dir(DEVICES).with_context(failed)? {
        let number = fs::read_to_string(device.with_context(failed)?.path().join("device"));
        if is_balloon(&number.with_context(failed)?) {
            return modules::load_on_demand("virtio_balloon");
        }
    }
    Ok(())
}

fn is_balloon(number: &str) -> bool {
    number.trim_end() == BALLOON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_is_known_by_its_number() {
        assert!(is_balloon("0x0005\n"));
        for other in ["0x0002\n", "0x0050\n", "5\n", ""] {
            assert!(!is_balloon(other), "{other}");
        }
    }
}

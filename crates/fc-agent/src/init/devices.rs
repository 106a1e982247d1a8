//! Devices that not every machine has: their drivers are loaded where they are.

use std::fs;

use anyhow::Context as _;

use super::modules;

/// The kernel's devices on virtio, whether they have a driver or not.
const DEVICES: &str = "/sys/bus/virtio/devices";
/// Numbers of devices in the virtio specification, as the kernel writes them, and their drivers.
const DRIVERS: [(&str, &str); 2] = [("0x0001", "virtio_net"), ("0x0005", "virtio_balloon")];

/// Loads the drivers of what there is.
///
/// # Errors
/// Where that cannot be known, or a driver cannot be loaded.
pub(super) fn start() -> anyhow::Result<()> {
    let failed = || format!("failed to list `{DEVICES}`");
    for device in fs::read_dir(DEVICES).with_context(failed)? {
        let number = fs::read_to_string(device.with_context(failed)?.path().join("device"));
        if let Some(driver) = driver(&number.with_context(failed)?) {
            modules::load_on_demand(driver)?;
        }
    }
    Ok(())
}

fn driver(number: &str) -> Option<&'static str> {
    DRIVERS.into_iter().find(|(known, _)| *known == number.trim_end()).map(|(_, driver)| driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_their_numbers() {
        assert_eq!(driver("0x0005\n"), Some("virtio_balloon"));
        assert_eq!(driver("0x0001\n"), Some("virtio_net"));
        for other in ["0x0002\n", "0x0050\n", "5\n", ""] {
            assert_eq!(driver(other), None, "{other}");
        }
    }
}

//! The kernel's parameters in a machine of Firecracker: pure.

use fcvm_proto::{Transport, session::LinkKey};

use crate::hypervisor::{HypervisorError, MachineConfig};

/// The longest that Firecracker takes, its own additions included.
const LONGEST: usize = 2048;
/// Room for what Firecracker adds: `pci=off`, and an address for each of 17 devices.
const ADDED: usize = 640;

/// The parameters for a machine.
///
/// # Errors
/// Where the user's make them too many.
pub(super) fn parameters(machine: &MachineConfig) -> Result<String, HypervisorError> {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".into(),
        // A reset by the keyboard's controller is the end of the machine, there is no other.
        "reboot=k".into(),
        "panic=-1".into(),
        format!("{}={}", Transport::PARAMETER, Transport::Vsock.name()),
        format!("{}={}", LinkKey::PARAMETER, machine.link_key.to_hex()),
        // Neither is needed by a guest with a random device and no module signatures of its own.
        "initcall_blacklist=jent_mod_init,load_system_certificate_list,init_encrypted".into(),
    ];
    if cfg!(target_arch = "x86_64") {
        // There is a controller with nothing behind it to look for.
        words.push("i8042.noaux i8042.nomux i8042.dumbkbd".into());
    }
    words.extend(machine.kernel_arguments.clone());
    let words = words.join(" ");
    let limit = LONGEST - ADDED;
    if words.len() > limit {
        return Err(HypervisorError::KernelParameters { length: words.len(), limit });
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::test_machine;

    #[test]
    fn the_user_has_the_last_word_and_not_too_many() {
        let machine = MachineConfig { kernel_arguments: Some("panic=5 x=1".into()), ..test_machine() };
        let words = parameters(&machine).unwrap();
        assert!(words.ends_with(" panic=5 x=1"), "{words}");
        assert!(words.contains(" fcvm.transport=vsock "), "{words}");
        let machine = MachineConfig { kernel_arguments: Some("y".repeat(1500)), ..test_machine() };
        let error = parameters(&machine).unwrap_err();
        assert!(error.to_string().contains("1408"), "{error}");
    }
}

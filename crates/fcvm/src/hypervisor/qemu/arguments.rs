//! QEMU's command line: pure.

use fcvm_proto::session::LinkKey;

use super::fds;
use crate::hypervisor::{Access, Disk, DiskLimits, MachineConfig, Nic, NicBackend};

/// Emulated CPU: x86-64-v2 without AVX, which a translator pays for at every
/// context switch (0.3 s of a boot). Its timer runs in any state (ARAT): without that, and another timer to wake it, a
/// kernel is woken at every tick, and an idle guest takes a tenth of a CPU.
const EMULATED_CPU: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+aes,+pclmulqdq,+rdrand,+arat";
/// Debian's; a kernel of another rate is off only in its busy-wait delays.
const KERNEL_HZ: u64 = 250;

/// The arguments for a machine. `tsc_khz` is the host's counter frequency.
pub(super) fn arguments(machine: &MachineConfig, kvm: bool, tsc_khz: Option<u64>) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |option: &str, value: String| {
        arguments.push(format!("-{option}"));
        if !value.is_empty() {
            arguments.push(value);
        }
    };
    for flag in ["nodefaults", "no-user-config", "no-reboot"] {
        add(flag, String::new());
    }
    add("display", "none".into());
    add("name", format!("{},process=fcvm-qemu", escape(&machine.name)));
    // A guest that breaks out of its devices finds no system call to go on with.
    add("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    add("machine", format!("{},memory-backend=mem,suppress-vmdesc=on", board()));
    add("accel", if kvm { "kvm" } else { "tcg,thread=multi" }.into());
    add("cpu", cpu(kvm).into());
    add("smp", machine.cpus.to_string());
    add("m", format!("{}M", machine.memory_mib));
    add("object", memory(machine));
    // The state of the devices alone has no such section.
    add("global", "migration.send-configuration=off".into());
    if machine.saved.is_some() {
        add("incoming", "defer".into());
    }
    add("kernel", machine.kernel.display().to_string());
    add("initrd", machine.initrd.display().to_string());
    add("append", kernel_command_line(machine, kvm, tsc_khz));

    add("add-fd", format!("fd={},set=1", fds::CONSOLE));
    add("chardev", "file,id=console,path=/dev/fdset/1,append=on".into());
    add("serial", "chardev:console".into());
    add("chardev", format!("socket,id=qmp,fd={},server=on,wait=off", fds::QMP));
    add("mon", "chardev=qmp,mode=control".into());
    add("chardev", format!("socket,id=link,fd={},server=on,wait=off", fds::LINK));
    add("device", "virtio-serial-device,max_ports=2".into());
    add("device", "virtserialport,chardev=link,name=org.fcvm.agent".into());
    add("device", "virtio-rng-device".into());
    for (index, disk) in machine.disks.iter().enumerate() {
        add("drive", drive(index, disk));
        add("device", format!("virtio-blk-device,drive=disk{index},serial={}", escape(&disk.serial)));
    }
    if let Some(nic) = &machine.network {
        add("netdev", netdev(&nic.backend));
        add("device", nic_device(nic));
    }
    arguments
}

fn board() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "virt,gic-version=max"
    } else {
        // Without ACPI a kernel that takes no devices from its command line sees none.
        "microvm,acpi=on,rtc=on"
    }
}

/// That of a machine which was saved is the file's, until it is written to.
fn memory(machine: &MachineConfig) -> String {
    let size = machine.memory_mib;
    match &machine.saved {
        None => format!("memory-backend-ram,id=mem,size={size}M"),
        Some(saved) => {
            let path = escape(&saved.memory.display().to_string());
            format!("memory-backend-file,id=mem,size={size}M,mem-path={path},share=off")
        }
    }
}

fn cpu(kvm: bool) -> &'static str {
    match (kvm, cfg!(target_arch = "aarch64")) {
        (true, _) => "host",
        (false, true) => "max,pauth-impdef=on",
        (false, false) => EMULATED_CPU,
    }
}

/// One value of a comma-separated option.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

fn drive(index: usize, disk: &Disk) -> String {
    let file = escape(&disk.path.display().to_string());
    let access = match disk.access {
        // Shared by machines, whose locks would exclude each other.
        Access::ReadOnly => "readonly=on,file.locking=off,cache=writeback",
        Access::Ephemeral => "cache=unsafe,discard=unmap",
        Access::Durable => "cache=writeback",
    };
    // A full host disk is the guest's I/O error, not a machine that stops silently.
    let errors = if disk.access == Access::ReadOnly { "" } else { ",werror=report" };
    format!(
        "id=disk{index},file={file},format=raw,if=none,{access}{errors},rerror=report{}",
        throttling(disk.limits)
    )
}

fn netdev(backend: &NicBackend) -> String {
    match backend {
        // The kernel's own server of such devices is not for a guest that may be anybody's.
        NicBackend::Tap { name, .. } => {
            format!("tap,id=net,ifname={},script=no,downscript=no,vhost=off", escape(name))
        }
        NicBackend::Stream(path) => {
            let path = escape(&path.display().to_string());
            format!("stream,id=net,server=off,addr.type=unix,addr.path={path}")
        }
    }
}

fn nic_device(nic: &Nic) -> String {
    let mtu = nic.interface.mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
    // A machine that goes on has a network of its own, in which nobody knows it from before: to announce itself
    // there would be half of what its kernel does at first.
    format!("virtio-net-device,netdev=net,guest_announce=off,mac={}{mtu}", nic.mac())
}

/// Reads and writes together, as Firecracker limits them.
fn throttling(limits: DiskLimits) -> String {
    let limit = |name, limit: Option<u64>| {
        limit.map_or_else(String::new, |limit| format!(",throttling.{name}-total={limit}"))
    };
    limit("bps", limits.bytes) + &limit("iops", limits.operations)
}

fn kernel_command_line(machine: &MachineConfig, kvm: bool, tsc_khz: Option<u64>) -> String {
    let console = if cfg!(target_arch = "aarch64") { "ttyAMA0" } else { "ttyS0" };
    let mut words = vec![
        format!("console={console}"),
        "quiet".into(),
        "reboot=t".into(),
        "panic=-1".into(),
        format!("{}={}", LinkKey::PARAMETER, machine.link_key.to_hex()),
        // Neither is needed by a guest with a random device and no module signatures of its own.
        "initcall_blacklist=jent_mod_init,load_system_certificate_list,init_encrypted".into(),
    ];
    if !kvm {
        words.extend(["mitigations=off", "no_timer_check"].map(String::from));
        // Code that runs at every system call or allocation has to be translated, again in every clone: what is for
        // a kernel that is shared goes, as it is one guest's alone here. A container's own sandbox stays possible.
        words.extend(["lsm=landlock,yama", "psi=0", "init_on_alloc=0"].map(String::from));
        words.extend(["randomize_kstack_offset=off", "hardened_usercopy=off"].map(String::from));
        // Kernel memory is then not charged, which keeps the kernel from patching its own code
        // at every new control group: see the agent's cgroups.
        words.push("cgroup.memory=nokmem,nosocket".into());
        if let Some(khz) = tsc_khz {
            words.push(format!("tsc_early_khz={khz} tsc=reliable lpj={}", khz * 1000 / KERNEL_HZ));
        }
    }
    words.extend(machine.kernel_arguments.clone());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use fcvm_proto::Interface;

    use super::*;
    use crate::hypervisor::{nic::test_nic, test_machine};

    #[test]
    fn commas_in_names_stay_within_their_values() {
        let arguments = arguments(&test_machine(), false, Some(2_000_000)).join(" ");
        assert!(arguments.contains("-name a,,b,process="), "{arguments}");
        assert!(arguments.contains("file=/with,,comma,format=raw"), "{arguments}");
    }

    #[test]
    fn only_disks_with_limits_are_throttled() {
        let mut machine = test_machine();
        let unlimited = arguments(&machine, false, None).join(" ");
        assert!(!unlimited.contains("throttling"), "{unlimited}");
        machine.disks[0].limits = DiskLimits { bytes: Some(1 << 20), operations: Some(100) };
        let limited = arguments(&machine, false, None).join(" ");
        let expected = ",throttling.bps-total=1048576,throttling.iops-total=100 -device virtio-blk-device";
        assert!(limited.contains(expected), "{limited}");
    }

    #[test]
    fn a_network_comes_after_the_disks() {
        let mut machine = test_machine();
        machine.network = Some(test_nic());
        let tapped = arguments(&machine, false, None).join(" ");
        let tap = ",serial=base -netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off \
                   -device virtio-net-device,netdev=net,guest_announce=off,mac=02:00:00:00:00:0a,host_mtu=1400";
        assert!(tapped.ends_with(tap), "{tapped}");
        let interface = Interface { mtu: None, ..test_nic().interface };
        machine.network = Some(Nic { interface, backend: NicBackend::Stream("/run/a,b".into()) });
        let streamed = arguments(&machine, false, None).join(" ");
        let stream = " -netdev stream,id=net,server=off,addr.type=unix,addr.path=/run/a,,b \
                      -device virtio-net-device,netdev=net,guest_announce=off,mac=02:00:00:00:00:0a";
        assert!(streamed.ends_with(stream), "{streamed}");
        assert!(!arguments(&test_machine(), false, None).join(" ").contains("net"), "none without a network");
    }

    #[test]
    fn an_emulated_guest_is_told_its_counter_and_a_native_one_is_not() {
        let emulated = kernel_command_line(&test_machine(), false, Some(2_000_000));
        assert!(emulated.contains("tsc_early_khz=2000000 tsc=reliable lpj=8000000"), "{emulated}");
        assert!(emulated.contains("cgroup.memory=nokmem"), "{emulated}");
        assert!(emulated.ends_with(" extra=1"), "{emulated}");
        let native = kernel_command_line(&test_machine(), true, Some(2_000_000));
        assert!(!native.contains("tsc_early_khz") && !native.contains("nokmem"), "{native}");
    }
}

//! The kernel image that a hypervisor boots, out of what distributions ship.
//!
//! On x86-64 that is the ELF `vmlinux`; a `bzImage` holds it compressed (boot
//! protocol: Documentation/arch/x86/boot.rst of the kernel). On aarch64 it is the
//! `Image`, which may be gzipped, or wrapped as an EFI zboot application.

use super::decompress::{self, DecompressError};
use crate::elf::{u16_at, u32_at};

/// A decompressed kernel is at most this large; a cloud kernel has 50 MiB.
pub(super) const KERNEL_LIMIT: usize = 512 << 20;

/// The machine a kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Machine {
    /// That of this host.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// Its number in ELF headers.
    #[must_use]
    pub fn elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// Its name, as Rust and `uname` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// The file is not a kernel we can boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmlinuxError {
    /// Not a kernel.
    #[error("not a Linux kernel for {machine}: {why}", machine = .machine.name())]
    NotAKernel {
        /// The machine it should be for.
        machine: Machine,
        /// What is wrong.
        why: &'static str,
    },
    /// Compressed, and damaged.
    #[error("failed to decompress the kernel")]
    Decompress(#[from] DecompressError),
}

/// The bootable image in `file`.
///
/// # Errors
/// Where it is no kernel for `machine`, or damaged.
pub(super) fn extract(file: &[u8], machine: Machine) -> Result<Vec<u8>, VmlinuxError> {
    extract_bounded(file, machine, KERNEL_LIMIT)
}

fn extract_bounded(file: &[u8], machine: Machine, limit: usize) -> Result<Vec<u8>, VmlinuxError> {
    if decompress::is_compressed(file) {
        let image = decompress::any(file, limit)?;
        return check(&image, machine).map(|()| image);
    }
    let payload = match machine {
        Machine::X86_64 if file.get(0x202..0x206) == Some(b"HdrS") => bzimage_payload(file),
        Machine::Aarch64 if file.get(4..8) == Some(b"zimg") => zboot_payload(file),
        _ => return check(file, machine).map(|()| file.to_owned()),
    };
    let payload =
        payload.ok_or(VmlinuxError::NotAKernel { machine, why: "its header points outside of the file" })?;
    if !decompress::is_compressed(payload) && !payload.starts_with(b"\x7fELF") {
        return Err(VmlinuxError::NotAKernel { machine, why: "its compression is not known" });
    }
    let image = decompress::any(payload, limit)?;
    check(&image, machine).map(|()| image)
}

fn bzimage_payload(file: &[u8]) -> Option<&[u8]> {
    // Boot protocol: 0 means 4, and the payload's place is counted from the protected-mode code.
    let setup_sectors = match *file.get(0x1f1)? {
        0 => 4,
        count => usize::from(count),
    };
    let code = (setup_sectors + 1) * 512;
    let start = code.checked_add(u32_at(file, 0x248)? as usize)?;
    file.get(start..start.checked_add(u32_at(file, 0x24c)? as usize)?)
}

fn zboot_payload(file: &[u8]) -> Option<&[u8]> {
    let start = u32_at(file, 8)? as usize;
    file.get(start..start.checked_add(u32_at(file, 12)? as usize)?)
}

/// Whether this is an image that hypervisors boot as it is.
fn check(image: &[u8], machine: Machine) -> Result<(), VmlinuxError> {
    let why = match machine {
        Machine::X86_64 if !image.starts_with(b"\x7fELF\x02\x01") => "neither a bzImage nor an ELF image",
        Machine::X86_64 if u16_at(image, 0x12) != Some(machine.elf()) => "for another machine",
        Machine::Aarch64 if image.get(0x38..0x3c) != Some(b"ARM\x64") => "no Image",
        _ => return Ok(()),
    };
    Err(VmlinuxError::NotAKernel { machine, why })
}

/// The release (`uname -r`) that a `bzImage` states in its header, or an image in its banner.
#[must_use]
pub(super) fn release(file: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let text = if file.get(0x202..0x206) == Some(b"HdrS") {
        file.get(usize::from(u16_at(file, 0x20e)?) + 0x200..)?
    } else {
        let at = file.windows(BANNER.len()).position(|window| window == BANNER)?;
        &file[at + BANNER.len()..]
    };
    let word = text.split(|byte| !byte.is_ascii_graphic()).next()?;
    let valid = (1..=64).contains(&word.len()) && word[0].is_ascii_digit() && !word.contains(&b'/');
    valid.then(|| String::from_utf8_lossy(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
        image.extend(b"Linux version 6.1.0-test (gcc) #1");
        image
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024 + 16];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        file[0x300..0x306].copy_from_slice(b"6.1.9 ");
        file.extend(payload);
        file.extend([0; 100]);
        file
    }

    #[test]
    fn an_elf_kernel_is_taken_as_it_is() {
        assert_eq!(extract(&elf(62), Machine::X86_64).unwrap(), elf(62));
        assert!(extract(&elf(183), Machine::X86_64).is_err());
        assert_eq!(release(&elf(62)).as_deref(), Some("6.1.0-test"));
    }

    #[test]
    fn a_bzimage_gives_its_payload() {
        let mut payload = zstd::encode_all(&elf(62)[..], 3).unwrap();
        payload.extend(4096_u32.to_le_bytes());
        let file = bzimage(&payload);
        assert_eq!(extract(&file, Machine::X86_64).unwrap(), elf(62));
        assert_eq!(release(&file).as_deref(), Some("6.1.9"));
        let bomb = extract_bounded(&file, Machine::X86_64, 4000).unwrap_err();
        assert!(matches!(bomb, VmlinuxError::Decompress(DecompressError::TooLarge { .. })), "{bomb}");
    }

    #[test]
    fn an_arm_image_may_be_wrapped() {
        let mut image = vec![0; 100];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let gzip = zstd::encode_all(&image[..], 1).unwrap();
        assert_eq!(extract(&image, Machine::Aarch64).unwrap(), image);
        assert_eq!(extract(&gzip, Machine::Aarch64).unwrap(), image);
        let mut zboot = b"MZ\0\0zimg".to_vec();
        zboot.extend(16_u32.to_le_bytes());
        zboot.extend(u32::try_from(gzip.len()).unwrap().to_le_bytes());
        zboot.extend(&gzip);
        assert_eq!(extract(&zboot, Machine::Aarch64).unwrap(), image);
        assert!(extract(&image, Machine::X86_64).is_err());
    }

    #[test]
    fn hostile_headers_are_errors() {
        for (at, value) in [(0x248, u32::MAX), (0x24c, u32::MAX), (0x248, 0x7fff_ffff)] {
            let mut file = bzimage(b"\x28\xb5\x2f\xfd");
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(extract(&file, Machine::X86_64).is_err());
        }
        for length in [0, 0x202, 0x206, 0x24f, 0x300] {
            assert!(extract(&bzimage(b"x")[..length], Machine::X86_64).is_err(), "{length}");
        }
        assert!(extract(&bzimage(b"unknown compression"), Machine::X86_64).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damaged_headers_do_not_panic(at in 0x1f0_usize..0x260, value: u8) {
            let mut file = bzimage(&zstd::encode_all(&elf(62)[..], 1).unwrap());
            file[at] = value;
            drop(extract(&file, Machine::X86_64));
            drop(release(&file));
        }
    }
}

//! What fcvm asks of ELF files and of others with numbers in them (layout: elf(5)).

/// Whether a 64-bit program wants an interpreter, the dynamic linker: it does not run where there are no
/// libraries. `None` where its program headers are damaged, or not all in `bytes`.
pub(crate) fn is_dynamic(bytes: &[u8]) -> Option<bool> {
    const PROGRAM_HEADER: usize = 56;
    const PT_INTERP: u32 = 3;
    let table = usize::try_from(u64_at(bytes, 0x20)?).ok()?;
    let (size, count) = (u16_at(bytes, 0x36)?, u16_at(bytes, 0x38)?);
    if usize::from(size) != PROGRAM_HEADER || count == 0 {
        return None;
    }
    let mut dynamic = false;
    for index in 0..usize::from(count) {
        dynamic |= u32_at(bytes, table.checked_add(index * PROGRAM_HEADER)?)? == PT_INTERP;
    }
    Some(dynamic)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The smallest program for tests; `kind` is the type of its one program header.
#[cfg(test)]
pub(crate) fn program(machine: u16, kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
    bytes[0x20..0x28].copy_from_slice(&64_u64.to_le_bytes());
    bytes[0x36..0x38].copy_from_slice(&56_u16.to_le_bytes());
    bytes[0x38..0x3a].copy_from_slice(&1_u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes
}

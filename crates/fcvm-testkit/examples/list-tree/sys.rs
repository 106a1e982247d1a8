//! Extended attributes, which the standard library does not have; of the link, not of its target.

use std::{
    ffi::{CString, c_char, c_void},
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

unsafe extern "C" {
    fn llistxattr(path: *const c_char, list: *mut c_char, size: usize) -> isize;
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: usize) -> isize;
}

/// The largest list or value that the kernel gives.
const MAX: usize = 64 << 10;

/// Names and values, by name.
pub(crate) fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut names = vec![0_u8; MAX];
    // SAFETY: `path` ends in NUL and outlives the call; `names` is writable for the size given.
    let length = unsafe { llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(filled(length)?);
    let mut attributes = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name)?;
        let mut value = vec![0_u8; MAX];
        // SAFETY: both strings end in NUL and outlive the call; `value` is writable for the size given.
        let length =
            unsafe { lgetxattr(path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(filled(length)?);
        attributes.push((name.to_vec(), value));
    }
    attributes.sort();
    Ok(attributes)
}

fn filled(length: isize) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

//! Extended attributes, and with them access control lists.

use std::{
    ffi::{CStr, CString},
    os::fd::AsRawFd as _,
};

use rustix::{
    fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr},
    io::Errno,
};

use super::{Passthrough, nodes::Node};

/// Longest value, and longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub(crate) const LONGEST: usize = 64 << 10;

impl Passthrough {
    /// The value; its length where `to` is empty.
    pub(crate) fn getxattr(&self, node: u64, name: &CStr, to: &mut [u8]) -> Result<usize, Errno> {
        getxattr(path(&*self.nodes.get(node)?), name, to)
    }

    /// The names, each with its NUL; their length where `to` is empty.
    pub(crate) fn listxattr(&self, node: u64, to: &mut [u8]) -> Result<usize, Errno> {
        listxattr(path(&*self.nodes.get(node)?), to)
    }

    pub(crate) fn setxattr(&self, node: u64, name: &CStr, value: &[u8], flags: u32) -> Result<(), Errno> {
        self.may_change()?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        setxattr(path(&*self.nodes.get(node)?), name, value, flags)
    }

    pub(crate) fn removexattr(&self, node: u64, name: &CStr) -> Result<(), Errno> {
        self.may_change()?;
        removexattr(path(&*self.nodes.get(node)?), name)
    }
}

/// No call takes a descriptor that was opened for its path only, nor one relative to a directory.
fn path(node: &Node) -> CString {
    CString::new(format!("/proc/self/fd/{}", node.fd().as_raw_fd())).unwrap_or_default()
}

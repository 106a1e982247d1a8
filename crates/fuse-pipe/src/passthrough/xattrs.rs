//! Extended attributes, and with them access control lists.

use std::{
    ffi::{CStr, CString},
    os::fd::AsRawFd as _,
};

use rustix::{
    fs::{AtFlags, Mode, XattrFlags, chmodat, getxattr, listxattr, removexattr, setxattr},
    io::Errno,
};

use super::{Passthrough, acls::is_list, nodes::Node, number};
use crate::abi::{SETXATTR_ACL_KILL_SGID, SetxattrIn};

/// Longest value, and longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub(crate) const LONGEST: usize = 64 << 10;

impl Passthrough {
    /// The value; its length where `to` is empty.
    pub(crate) fn getxattr(&self, node: u64, name: &CStr, to: &mut [u8]) -> Result<usize, Errno> {
        let length = getxattr(path(&*self.nodes.get(node)?), name, &mut *to)?;
        if is_list(name.to_bytes()) {
            let filled = length.min(to.len());
            self.identity.list_to_guest(&mut to[..filled]);
        }
        Ok(length)
    }

    /// The names, each with its NUL; their length where `to` is empty.
    pub(crate) fn listxattr(&self, node: u64, to: &mut [u8]) -> Result<usize, Errno> {
        listxattr(path(&*self.nodes.get(node)?), to)
    }

    pub(crate) fn setxattr(
        &self,
        node: u64,
        name: &CStr,
        value: &[u8],
        of: &SetxattrIn,
    ) -> Result<(), Errno> {
        self.may_change()?;
        let flags = XattrFlags::from_bits(of.flags).ok_or(Errno::INVAL)?;
        let node = self.nodes.get(node)?;
        if is_list(name.to_bytes()) {
            let mut list = value.to_vec();
            self.identity.list_to_host(&mut list)?;
            setxattr(path(&node), name, &list, flags)?;
        } else {
            setxattr(path(&node), name, value, flags)?;
        }
        if of.setxattr_flags & SETXATTR_ACL_KILL_SGID == 0 {
            return Ok(());
        }
        // The host's kernel does so for others than root.
        let mode = Mode::from_raw_mode(node.statx()?.stx_mode.into());
        if !mode.contains(Mode::SGID) {
            return Ok(());
        }
        chmodat(&self.descriptors, number(&node), mode.difference(Mode::SGID), AtFlags::empty())
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

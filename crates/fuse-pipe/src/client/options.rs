//! How a mount is to be.

use std::time::Duration;

use crate::spin::Spin;

/// How a mount is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What `/proc/mounts` shows as its source.
    pub source: String,
    /// The part after `fuse.` of its type.
    pub subtype: String,
    /// Whether it may be written to.
    pub access: Access,
    /// Who may use it.
    pub audience: Audience,
    /// Who decides what a user may do.
    pub permissions: Permissions,
    /// The most that the kernel reads at once, in bytes, where the server does not say.
    pub max_read: Option<u32>,
    /// Whether threads look again for a while before they sleep.
    pub spin: Spin,
    /// How long the server may take to greet, and then to answer the kernel's first request.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: "fuse-pipe".into(),
            subtype: "fuse-pipe".into(),
            access: Access::ReadWrite,
            audience: Audience::Owner,
            permissions: Permissions::Server,
            max_read: None,
            spin: Spin::default(),
            patience: Duration::from_secs(10),
        }
    }
}

/// Whether a mount may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// The kernel refuses to.
    ReadOnly,
}

/// Who may use a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who made it.
    Owner,
    /// All users: `allow_other`.
    Everyone,
}

/// Who decides what a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// The server, for each request.
    Server,
    /// The kernel, by owner and mode: `default_permissions`.
    Kernel,
}

impl Options {
    /// What mount and `fusermount3` both understand.
    pub(super) fn common(&self) -> String {
        let mut options = String::new();
        if self.audience == Audience::Everyone {
            options.push_str(",allow_other");
        }
        if self.permissions == Permissions::Kernel {
            options.push_str(",default_permissions");
        }
        if let Some(max_read) = self.max_read {
            options.push_str(&format!(",max_read={max_read}"));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_spelled_as_the_kernel_has_them() {
        assert_eq!(Options::default().common(), "");
        let all = Options {
            audience: Audience::Everyone,
            permissions: Permissions::Kernel,
            max_read: Some(4096),
            ..Options::default()
        };
        assert_eq!(all.common(), ",allow_other,default_permissions,max_read=4096");
    }
}

//! `/boot-source`: what a machine boots.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSource {
    /// The kernel: on x86-64 an ELF file, not compressed. Empty where none was set.
    pub kernel_image_path: PathBuf,
    /// The initial RAM file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
    /// The kernel's command line, at most 2048 bytes together with what Firecracker adds; where it is
    /// not set, Firecracker has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

impl BootSource {
    /// A kernel alone.
    pub fn new(kernel_image_path: impl Into<PathBuf>) -> Self {
        Self { kernel_image_path: kernel_image_path.into(), initrd_path: None, boot_args: None }
    }
}

impl Client {
    /// Sets what is booted, before the start. Firecracker opens the files now.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_boot_source(&self, source: &BootSource) -> Result<(), ApiError> {
        self.put("/boot-source", source).await
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked, nobody};

    #[tokio::test]
    async fn requests_are_frozen() {
        let source = BootSource::new("/k");
        asked(NO_CONTENT, async |client| client.put_boot_source(&source).await.unwrap())
            .await
            .is("PUT /boot-source", json!({ "kernel_image_path": "/k" }));
        let source = BootSource {
            initrd_path: Some("/i".into()),
            boot_args: Some("quiet".into()),
            ..BootSource::new("/k")
        };
        asked(NO_CONTENT, async |client| client.put_boot_source(&source).await.unwrap()).await.is(
            "PUT /boot-source",
            json!({ "kernel_image_path": "/k", "initrd_path": "/i", "boot_args": "quiet" }),
        );
    }

    #[tokio::test]
    async fn a_path_that_is_no_utf8_is_not_sent() {
        let client = nobody().await;
        let error = client.put_boot_source(&BootSource::new(OsStr::from_bytes(b"/\xff"))).await.unwrap_err();
        assert!(matches!(&error, ApiError::Encode { path, .. } if path == "/boot-source"), "{error:?}");
        assert_eq!(error.to_string(), "failed to write the request `PUT /boot-source`");
        assert_eq!(error.hint().unwrap(), "Firecracker takes paths of UTF-8 only");
    }
}

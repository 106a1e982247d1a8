//! `/drives/ID`: disks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, Client, DeviceId, RateLimiter};

/// A disk: a raw image or a block device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// Its name in the API; the guest sees the order in which the drives were made.
    pub drive_id: DeviceId,
    /// Of the partition that the guest boots from, where that is on this drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Whether it is the guest's root: it comes first then, and the command line gets a `root=`.
    pub is_root_device: bool,
    /// What a guest's flush does.
    #[serde(default)]
    pub cache_type: CacheType,
    /// Whether the guest may not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_read_only: Option<bool>,
    /// The image or device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_on_host: Option<PathBuf>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
    /// How Firecracker reads and writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_engine: Option<IoEngine>,
}

/// What a guest's flush does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// The guest is not told that there is something to flush.
    #[default]
    Unsafe,
    /// `fsync` on the host.
    Writeback,
}

/// How Firecracker reads and writes a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// By system calls that block; the default.
    Sync,
    /// By `io_uring`.
    Async,
}

/// A change of a drive after the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriveUpdate {
    /// Which.
    pub drive_id: DeviceId,
    /// Another file or device behind it, or the same one anew: the guest sees its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_on_host: Option<PathBuf>,
    /// Other limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

impl Drive {
    /// A disk that the guest may write.
    pub fn new(drive_id: DeviceId, path_on_host: impl Into<PathBuf>) -> Self {
        Self {
            drive_id,
            partuuid: None,
            is_root_device: false,
            cache_type: CacheType::Unsafe,
            is_read_only: Some(false),
            path_on_host: Some(path_on_host.into()),
            rate_limiter: None,
            io_engine: None,
        }
    }
}

impl Client {
    /// Adds a drive, or replaces the one of that name, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_drive(&self, drive: &Drive) -> Result<(), ApiError> {
        self.put(&format!("/drives/{}", drive.drive_id), drive).await
    }

    /// Changes a drive, after the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn patch_drive(&self, update: &DriveUpdate) -> Result<(), ApiError> {
        self.patch(&format!("/drives/{}", update.drive_id), update).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::hypervisor::firecracker::api::{
        TokenBucket,
        testing::{NO_CONTENT, asked},
    };

    #[tokio::test]
    async fn requests_are_frozen() {
        let drive = Drive::new("data".parse().unwrap(), "/disk");
        asked(NO_CONTENT, async |client| client.put_drive(&drive).await.unwrap()).await.is(
            "PUT /drives/data",
            json!({
                "drive_id": "data",
                "is_root_device": false,
                "cache_type": "Unsafe",
                "is_read_only": false,
                "path_on_host": "/disk",
            }),
        );
        let ops = TokenBucket { size: 1, one_time_burst: None, refill_time: 2 };
        let drive = Drive {
            partuuid: Some("0eaa91a0-01".into()),
            is_root_device: true,
            cache_type: CacheType::Writeback,
            is_read_only: Some(true),
            rate_limiter: Some(RateLimiter { bandwidth: None, ops: Some(ops) }),
            io_engine: Some(IoEngine::Sync),
            ..drive
        };
        asked(NO_CONTENT, async |client| client.put_drive(&drive).await.unwrap()).await.is(
            "PUT /drives/data",
            json!({
                "drive_id": "data",
                "partuuid": "0eaa91a0-01",
                "is_root_device": true,
                "cache_type": "Writeback",
                "is_read_only": true,
                "path_on_host": "/disk",
                "rate_limiter": { "ops": { "size": 1, "refill_time": 2 } },
                "io_engine": "Sync",
            }),
        );
        let update =
            DriveUpdate { drive_id: drive.drive_id, path_on_host: Some("/new".into()), rate_limiter: None };
        asked(NO_CONTENT, async |client| client.patch_drive(&update).await.unwrap())
            .await
            .is("PATCH /drives/data", json!({ "drive_id": "data", "path_on_host": "/new" }));
    }

    #[test]
    fn what_firecracker_shows_is_read() {
        let seen: Drive = from_value(json!({
            "drive_id": "a", "partuuid": null, "is_root_device": true, "cache_type": "Unsafe",
            "is_read_only": true, "path_on_host": "/d", "rate_limiter": null, "io_engine": "Async", "socket": null,
        }))
        .unwrap();
        let expected = Drive {
            is_root_device: true,
            is_read_only: Some(true),
            io_engine: Some(IoEngine::Async),
            ..Drive::new("a".parse().unwrap(), "/d")
        };
        assert_eq!(seen, expected);
    }
}

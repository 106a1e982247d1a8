//! `/balloon`: memory that the guest gives back.

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// The balloon device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// MiB that the guest is to give back.
    pub amount_mib: u32,
    /// Whether the guest takes memory back before it runs out.
    pub deflate_on_oom: bool,
    /// Seconds between statistics of the guest; none with 0, and that stays so after the start.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// Whether the guest can be asked which pages are free.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// Whether the guest gives back what becomes free, by itself.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// Another size of the balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalloonUpdate {
    /// MiB that the guest is to give back.
    pub amount_mib: u32,
}

/// Another interval of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalloonStatisticsUpdate {
    /// Seconds: not 0 where it was not 0, and the other way round.
    pub stats_polling_interval_s: u16,
}

/// What the balloon holds, and what the guest last told of its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BalloonStatistics {
    /// Pages of 4 KiB that the guest is to give back.
    pub target_pages: u32,
    /// Pages of 4 KiB that it has given back.
    pub actual_pages: u32,
    /// The same as `target_pages` in MiB.
    pub target_mib: u32,
    /// The same as `actual_pages` in MiB.
    pub actual_mib: u32,
    /// Bytes swapped in.
    pub swap_in: Option<u64>,
    /// Bytes swapped out.
    pub swap_out: Option<u64>,
    /// Page faults that needed a disk.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Bytes that nothing uses.
    pub free_memory: Option<u64>,
    /// Bytes in all.
    pub total_memory: Option<u64>,
    /// Bytes that programs could get without swapping.
    pub available_memory: Option<u64>,
    /// Bytes of caches that could be dropped at once.
    pub disk_caches: Option<u64>,
    /// Huge pages that were given out.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that were asked for in vain.
    pub hugetlb_failures: Option<u64>,
    /// Processes killed for want of memory; this and the rest by Linux 6.12 and later.
    pub oom_kill: Option<u64>,
    /// Times that memory had to be waited for.
    pub alloc_stall: Option<u64>,
    /// Pages looked at in the background.
    pub async_scan: Option<u64>,
    /// Pages looked at while memory was waited for.
    pub direct_scan: Option<u64>,
    /// Pages won in the background.
    pub async_reclaim: Option<u64>,
    /// Pages won while memory was waited for.
    pub direct_reclaim: Option<u64>,
}

impl Client {
    /// Adds or replaces the balloon, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_balloon(&self, balloon: &Balloon) -> Result<(), ApiError> {
        self.put("/balloon", balloon).await
    }

    /// Changes the balloon's size, after the start.
    ///
    /// # Errors
    /// Where Firecracker refuses, a machine without balloon too, or cannot be asked.
    pub async fn patch_balloon(&self, update: BalloonUpdate) -> Result<(), ApiError> {
        self.patch("/balloon", &update).await
    }

    /// The balloon as it was set.
    ///
    /// # Errors
    /// Where there is none, or Firecracker cannot be asked.
    pub async fn get_balloon(&self) -> Result<Balloon, ApiError> {
        self.get("/balloon").await
    }

    /// What the balloon holds, after the start.
    ///
    /// # Errors
    /// Where it has no statistics, or Firecracker cannot be asked.
    pub async fn get_balloon_statistics(&self) -> Result<BalloonStatistics, ApiError> {
        self.get("/balloon/statistics").await
    }

    /// Changes the statistics' interval, after the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn patch_balloon_statistics(&self, update: BalloonStatisticsUpdate) -> Result<(), ApiError> {
        self.patch("/balloon/statistics", &update).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked, ok};

    #[tokio::test]
    async fn requests_are_frozen() {
        let balloon = Balloon { amount_mib: 8, deflate_on_oom: true, ..Balloon::default() };
        let body = json!({
            "amount_mib": 8,
            "deflate_on_oom": true,
            "stats_polling_interval_s": 0,
            "free_page_hinting": false,
            "free_page_reporting": false,
        });
        asked(NO_CONTENT, async |client| client.put_balloon(&balloon).await.unwrap())
            .await
            .is("PUT /balloon", body.clone());
        asked(ok(body), async |client| assert_eq!(client.get_balloon().await.unwrap(), balloon))
            .await
            .is_get("/balloon");
        let update = BalloonUpdate { amount_mib: 9 };
        asked(NO_CONTENT, async |client| client.patch_balloon(update).await.unwrap())
            .await
            .is("PATCH /balloon", json!({ "amount_mib": 9 }));
        let update = BalloonStatisticsUpdate { stats_polling_interval_s: 5 };
        asked(NO_CONTENT, async |client| client.patch_balloon_statistics(update).await.unwrap())
            .await
            .is("PATCH /balloon/statistics", json!({ "stats_polling_interval_s": 5 }));
    }

    #[tokio::test]
    async fn statistics_that_the_guest_does_not_tell_are_none() {
        let answer = json!({
            "target_pages": 256, "actual_pages": 1, "target_mib": 1, "actual_mib": 0,
            "free_memory": 5_000_000_000_u64, "pages_of_tomorrow": 1,
        });
        let asked = asked(ok(answer), async |client| {
            let expected = BalloonStatistics {
                target_pages: 256,
                actual_pages: 1,
                target_mib: 1,
                free_memory: Some(5_000_000_000),
                ..BalloonStatistics::default()
            };
            assert_eq!(client.get_balloon_statistics().await.unwrap(), expected);
        });
        asked.await.is_get("/balloon/statistics");
    }
}

//! Limits of bandwidth and operations, of drives, interfaces and the entropy device.

use serde::{Deserialize, Serialize};

/// How much a device may move; what is not set is not limited.
///
/// In an update, what is not set stays as it is, and a bucket of size or refill time 0 lifts the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimiter {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// In operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A bucket of tokens that refills at a constant rate: `size` in `refill_time`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Tokens that it holds.
    pub size: u64,
    /// Tokens on top, used first and never refilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// Milliseconds in which it becomes full again.
    pub refill_time: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn bodies_are_frozen() {
        assert_eq!(to_value(RateLimiter::default()).unwrap(), json!({}));
        let bandwidth = TokenBucket { size: 1 << 20, one_time_burst: Some(7), refill_time: 100 };
        let ops = TokenBucket { size: 10, one_time_burst: None, refill_time: 1000 };
        let both = RateLimiter { bandwidth: Some(bandwidth), ops: Some(ops) };
        let body = json!({
            "bandwidth": { "size": 1_048_576, "one_time_burst": 7, "refill_time": 100 },
            "ops": { "size": 10, "refill_time": 1000 },
        });
        assert_eq!(to_value(both).unwrap(), body);
        assert_eq!(serde_json::from_value::<RateLimiter>(body).unwrap(), both);
    }

    #[test]
    fn what_firecracker_does_not_limit_is_null() {
        let seen = json!({ "bandwidth": null, "ops": { "size": 1, "one_time_burst": null, "refill_time": 2, "new": 3 } });
        let ops = TokenBucket { size: 1, one_time_burst: None, refill_time: 2 };
        let expected = RateLimiter { bandwidth: None, ops: Some(ops) };
        assert_eq!(serde_json::from_value::<RateLimiter>(seen).unwrap(), expected);
    }
}

//! `/logger`: where Firecracker's log goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// Firecracker's log. What is not set stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logger {
    /// A file or named pipe; at first standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_path: Option<PathBuf>,
    /// What is logged; at first [`LogLevel::Info`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Whether lines have their levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_level: Option<bool>,
    /// Whether lines have their places in Firecracker's source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_log_origin: Option<bool>,
    /// The only module of Firecracker that logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// The least that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What is odd.
    #[serde(rename = "Warning", alias = "Warn")]
    Warning,
    /// Every request.
    Info,
    /// More.
    Debug,
    /// All.
    Trace,
}

impl Client {
    /// Sets the log, before the start; before a snapshot's load, too.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_logger(&self, logger: &Logger) -> Result<(), ApiError> {
        self.put("/logger", logger).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        let logger = Logger { level: Some(LogLevel::Off), ..Logger::default() };
        asked(NO_CONTENT, async |client| client.put_logger(&logger).await.unwrap())
            .await
            .is("PUT /logger", json!({ "level": "Off" }));
        let logger = Logger {
            log_path: Some("/log".into()),
            level: Some(LogLevel::Warning),
            show_level: Some(true),
            show_log_origin: Some(false),
            module: Some("api_server".into()),
        };
        asked(NO_CONTENT, async |client| client.put_logger(&logger).await.unwrap()).await.is(
            "PUT /logger",
            json!({
                "log_path": "/log",
                "level": "Warning",
                "show_level": true,
                "show_log_origin": false,
                "module": "api_server",
            }),
        );
    }

    #[test]
    fn levels_have_their_names() {
        use LogLevel::{Debug, Error, Info, Off, Trace, Warning};
        let names = json!(["Off", "Error", "Warning", "Info", "Debug", "Trace"]);
        assert_eq!(to_value([Off, Error, Warning, Info, Debug, Trace]).unwrap(), names);
    }
}

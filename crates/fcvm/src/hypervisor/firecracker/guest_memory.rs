//! What a guest tells of its memory, by way of its balloon.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use super::{
    api::{ApiError, BalloonStatistics, Client},
    places::RUN,
    process::API_SOCKET,
};
use crate::hypervisor::GuestMemory;

/// Firecracker answers in a millisecond, unless a snapshot is being made.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks the machine with this directory of sockets.
pub(in crate::hypervisor) async fn guest_memory(runtime_dir: &Path) -> Option<GuestMemory> {
    let asked = async {
        let client = Client::connect(&runtime_dir.join(RUN).join(API_SOCKET)).await?;
        client.get_balloon_statistics().await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(statistics)) => Some(of(&statistics)),
        // It has no balloon.
        Ok(Err(ApiError::Fault { .. })) => None,
        Ok(Err(error)) => {
            tracing::debug!(target: "firecracker", %error, "no statistics of the guest's memory");
            None
        }
        Err(_) => {
            tracing::debug!(target: "firecracker", "no statistics of the guest's memory in time");
            None
        }
    }
}

fn of(statistics: &BalloonStatistics) -> GuestMemory {
    let pages = |pages: u32| u64::from(pages) << 12;
    GuestMemory {
        total: statistics.total_memory,
        free: statistics.free_memory,
        available: statistics.available_memory,
        cached: statistics.disk_caches,
        balloon: pages(statistics.actual_pages),
        balloon_target: pages(statistics.target_pages),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// What is told of a machine that answers so; one without an answer says nothing at all.
    async fn told(answer: Option<&str>) -> Option<GuestMemory> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(RUN)).unwrap();
        let listener = UnixListener::bind(directory.path().join(RUN).join(API_SOCKET)).unwrap();
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read(&mut [0; 1024]).await.unwrap();
            assert!(length > 0);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
            // Until the client has read it.
            stream.readable().await.unwrap();
        };
        tokio::select! {
            told = guest_memory(directory.path()) => told,
            () = served => panic!("the client left before it had an answer"),
        }
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn pages_become_bytes() {
        let body = r#"{"target_pages":256,"actual_pages":3,"target_mib":1,"actual_mib":0,"free_memory":5,"disk_caches":7}"#;
        let expected = GuestMemory {
            free: Some(5),
            cached: Some(7),
            balloon: 3 << 12,
            balloon_target: 1 << 20,
            ..GuestMemory::default()
        };
        assert_eq!(told(Some(&http("200 OK", body))).await, Some(expected));
    }

    #[tokio::test]
    async fn a_machine_that_does_not_tell_holds_nobody_up() {
        let refused = http("400 Bad Request", r#"{"fault_message":"Device not found"}"#);
        assert_eq!(told(Some(&refused)).await, None);
        assert_eq!(guest_memory(Path::new("/nonexistent")).await, None);
        let begun = Instant::now();
        assert_eq!(told(None).await, None);
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    }
}

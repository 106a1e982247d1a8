use std::io::ErrorKind;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::hypervisor::firecracker::api::{
    Action, InstanceInfo, MemoryBackend, SnapshotLoad, Version,
    testing::{NO_CONTENT, Socket, answer, asked, nobody, ok, read_request},
};

/// What a `GET` makes of an answer.
async fn get(answer: impl AsRef<[u8]>) -> Result<Value, ApiError> {
    let mut result = None;
    asked(answer, async |client| result = Some(client.get("/x").await)).await.is_get("/x");
    result.unwrap()
}

#[tokio::test]
async fn requests_share_a_connection() {
    let socket = Socket::new();
    let client = Client::connect(&socket.path).await.unwrap();
    let served = async {
        let mut stream = socket.accept().await;
        read_request(&mut stream).await.is("PUT /actions", json!({ "action_type": "InstanceStart" }));
        stream.write_all(NO_CONTENT).await.unwrap();
        read_request(&mut stream).await.is("PATCH /x", json!([1]));
        stream.write_all(&answer("400", r#"{"fault_message":"no"}"#)).await.unwrap();
        read_request(&mut stream).await.is_get("/version");
        stream.write_all(&ok(json!({ "firecracker_version": "1" }))).await.unwrap();
        stream
    };
    let asked = async {
        client.put_action(Action::InstanceStart).await.unwrap();
        client.patch("/x", &[1]).await.unwrap_err();
        assert_eq!(client.get_version().await.unwrap(), Version { firecracker_version: "1".into() });
    };
    tokio::join!(served, asked);
}

#[tokio::test]
async fn requests_made_at_once_take_turns() {
    let socket = Socket::new();
    let client = Client::connect(&socket.path).await.unwrap();
    let served = async {
        let mut stream = socket.accept().await;
        for _ in 0..3 {
            read_request(&mut stream).await;
            stream.write_all(NO_CONTENT).await.unwrap();
        }
        stream
    };
    let (_, a, b, c) =
        tokio::join!(served, client.put("/a", "1"), client.put("/b", "2"), client.patch("/c", "3"));
    a.and(b).and(c).unwrap();
}

#[tokio::test]
async fn nobody_at_the_socket_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let error = Client::connect(&path).await.unwrap_err();
    assert_eq!(error.to_string(), format!("failed to connect to Firecracker's API at `{}`", path.display()));
    assert!(matches!(&error, ApiError::Connect { source, .. } if source.kind() == ErrorKind::NotFound));
    assert_eq!(error.hint(), None);

    let error = Client::connect(&directory.path().join("x".repeat(108))).await.unwrap_err();
    assert!(error.hint().unwrap().contains("FCVM_RUNTIME_DIR"), "{error:?}");
}

#[tokio::test]
async fn a_fault_is_told_in_its_own_words_without_control_characters() {
    let body = json!({ "fault_message": "The \u{1b}[31mkernel\u{7} is\r bad: \u{202e}x" });
    let error = get(answer("400", body.to_string())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Firecracker refused `GET /x` (HTTP 400): The \\u{1b}[31mkernel\\u{7} is\\r bad: \\u{202e}x"
    );
    let ApiError::Fault { method, path, status, .. } = error else { panic!("{error:?}") };
    assert_eq!((method, &*path, status), (Method::GET, "/x", 400));
}

#[tokio::test]
async fn errors_that_are_no_json_are_told_all_the_same() {
    let said = |status: &'static str, body: &'static [u8]| async move {
        match get(answer(status, body)).await.unwrap_err() {
            ApiError::Fault { status, message, .. } => (status, message),
            error => panic!("{error:?}"),
        }
    };
    // As Firecracker's HTTP layer writes it: a line break within a string.
    let broken = b"{ \"error\": \"Invalid header.\nAll previous unanswered requests will be dropped.\" }";
    assert_eq!(said("400", broken).await, (400, String::from_utf8_lossy(broken).into_owned()));
    assert_eq!(said("500", b" <html>\x1b \xff\n").await, (500, "<html>\\u{1b} \u{fffd}".into()));
    assert_eq!(said("503", b"").await, (503, String::new()));
    assert_eq!(said("400", br#"{"fault_message":5}"#).await, (400, r#"{"fault_message":5}"#.into()));
    assert_eq!(said("302", b"elsewhere").await, (302, "elsewhere".into()));
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let body = json!({ "fault_message": "é".repeat(5000) });
    let ApiError::Fault { message, .. } = get(answer("400", body.to_string())).await.unwrap_err() else {
        panic!("no fault");
    };
    assert_eq!(message, "é".repeat(MAX_SAID));
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error() {
    for body in
        ["", "{}", "[1", "null", "\u{0}", r#"{"id":"a","state":"Dancing","vmm_version":"","app_name":""}"#]
    {
        let mut result = None;
        asked(answer("200", body), async |client| result = Some(client.get_instance_info().await))
            .await
            .is_get("/");
        let error = result.unwrap().unwrap_err();
        assert!(matches!(error, ApiError::Body { .. }), "{body}: {error:?}");
        assert_eq!(error.to_string(), "Firecracker's answer to `GET /` is not understood");
    }
}

#[tokio::test]
async fn silence_is_a_time_out_and_the_end_of_the_connection() {
    let socket = Socket::new();
    let limit = Duration::from_millis(50);
    let client =
        Client::connect_with(&socket.path, Limits { answer: limit, ..Limits::default() }).await.unwrap();
    // Connected, asked, and told nothing.
    let mut stream = socket.accept().await;
    let error = client.get_instance_info().await.unwrap_err();
    assert_eq!(error.to_string(), "Firecracker did not answer `GET /` within 50ms");
    assert!(error.hint().is_some());
    // What comes late is not taken for the answer of another request.
    read_request(&mut stream).await.is_get("/");
    drop(stream.write_all(&ok(json!({ "firecracker_version": "late" }))).await);
    let error = client.get_version().await.unwrap_err();
    assert!(matches!(&error, ApiError::Gone { path, .. } if path == "/version"), "{error:?}");
}

#[tokio::test]
async fn snapshots_have_a_limit_of_their_own() {
    let socket = Socket::new();
    let snapshot = Duration::from_millis(50);
    let client = Client::connect_with(&socket.path, Limits { snapshot, ..Limits::default() }).await.unwrap();
    let load = SnapshotLoad::new("/s", MemoryBackend::file("/m"));
    let error = client.put_snapshot_load(&load).await.unwrap_err();
    assert!(matches!(error, ApiError::TimedOut { limit, .. } if limit == snapshot), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_a_time_out() {
    let socket = Socket::new();
    let limits = Limits { answer: Duration::from_millis(50), ..Limits::default() };
    let client = Client::connect_with(&socket.path, limits).await.unwrap();
    let mut stream = socket.accept().await;
    stream.writable().await.unwrap();
    let served = async {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n{}").await.unwrap();
        stream
    };
    let (_, result) = tokio::join!(served, client.get::<Value>("/x"));
    assert!(matches!(result, Err(ApiError::TimedOut { .. })), "{result:?}");
}

#[tokio::test]
async fn a_connection_that_ends_too_early_means_that_the_process_is_gone() {
    for part in ["", "HTTP/1.1 2", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n{}"] {
        let socket = Socket::new();
        let client = Client::connect(&socket.path).await.unwrap();
        let served = async {
            let mut stream = socket.accept().await;
            read_request(&mut stream).await;
            stream.write_all(part.as_bytes()).await.unwrap();
        };
        let ((), result) = tokio::join!(served, client.get_version());
        let error = result.unwrap_err();
        assert!(matches!(error, ApiError::Gone { .. }), "{part:?}: {error:?}");
        assert_eq!(error.to_string(), "Firecracker went away during `GET /version`");
        // Nor does it come back.
        assert!(matches!(client.put("/x", "").await.unwrap_err(), ApiError::Gone { .. }));
    }
}

#[tokio::test]
async fn a_process_that_died_between_requests_is_gone() {
    let client = nobody().await;
    let error = client.get::<InstanceInfo>("/").await.unwrap_err();
    assert!(matches!(error, ApiError::Gone { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_http_is_an_error_of_its_own() {
    let error = get(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap_err();
    assert!(matches!(error, ApiError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    for status in ["200", "400"] {
        let socket = Socket::new();
        let client = Client::connect(&socket.path).await.unwrap();
        let served = async {
            let mut stream = socket.accept().await;
            read_request(&mut stream).await;
            // Refused in the middle.
            drop(stream.write_all(&answer(status, vec![b' '; 10 << 20])).await);
            stream
        };
        let (_, result) = tokio::join!(served, client.get::<Value>("/x"));
        let error = result.unwrap_err();
        assert!(matches!(error, ApiError::AnswerTooLarge { limit: MAX_ANSWER, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_request_that_firecracker_would_not_take_is_not_sent() {
    let socket = Socket::new();
    let client = Client::connect(&socket.path).await.unwrap();
    // With the quotes one byte too many.
    let error = client.put_mmds(&"x".repeat(51199)).await.unwrap_err();
    assert_eq!(error.to_string(), "`PUT /mmds` has 51201 bytes, more than the 51200 that Firecracker takes");
    drop(client);
    let mut sent = Vec::new();
    socket.accept().await.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"");
}

#[tokio::test]
async fn a_path_that_is_none_is_not_sent() {
    let error = nobody().await.get::<Value>("/a b").await.unwrap_err();
    assert!(matches!(error, ApiError::Encode { .. }), "{error:?}");
}

//! Engines that lie, fail and do not answer.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use super::{
    EngineError, Engines, TransportError, docker_daemon,
    docker_daemon::DockerHost,
    engine::{EngineImage, SaveFormat},
    podman,
};
use crate::{
    hash::Digest,
    image::testing::{Layout, layer_bytes, tarball},
};

const SHORT: Duration = Duration::from_millis(300);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Engines with a Podman that is this script.
    fn podman(&self, script: &str) -> Engines {
        let path = self.path("podman");
        // Written by another process: see the tests of credentials.
        let mut child =
            Command::new("tee").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Engines::only(Some(&path), "")
    }
}

fn image(format: SaveFormat) -> EngineImage {
    EngineImage { id: Digest::of(b""), names: Vec::new(), format }
}

#[test]
fn podman_is_asked_and_told_in_which_format() {
    let place = Place::new();
    std::fs::write(place.path("image.tar"), Layout::with_image("x").tar()).unwrap();
    for (kind, format) in [
        ("application/vnd.oci.image.manifest.v1+json", SaveFormat::OciArchive),
        ("application/vnd.docker.distribution.manifest.v2+json", SaveFormat::DockerArchive),
    ] {
        let inspected = json!([{
            "Id": Digest::of(b"").hex(), "RepoTags": ["localhost/x:y"], "ManifestType": kind, "More": 1,
        }]);
        let script = format!(
            "cd '{}'; echo \"$@\" >> log; [ $1 = save ] && exec cat image.tar; echo '{inspected}'",
            place.0.path().display()
        );
        let engines = place.podman(&script);
        let found = podman::find(&engines, "x").unwrap().unwrap();
        let names = vec!["localhost/x:y".to_owned()];
        assert_eq!(found, EngineImage { id: Digest::of(b""), names, format });
        let saved = podman::save(&engines, &found, &place.path("cache"));
        match format {
            SaveFormat::OciArchive => {
                assert_eq!(layer_bytes(&saved.unwrap(), 0), tarball(&[("hello", b"x")]));
            }
            // What comes is no such archive.
            SaveFormat::DockerArchive => {
                let error = saved.unwrap_err();
                assert!(matches!(error, TransportError::NotALayout { .. }), "{error:?}");
            }
        }
    }
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.starts_with("image inspect --format json -- x\nsave --quiet --format oci-archive -- e3b0c44"),
        "{log}"
    );
    assert_eq!(std::fs::read_dir(place.path("cache")).unwrap().count(), 0);
}

#[test]
fn a_podman_that_fails_is_told_from_one_that_has_no_such_image() {
    let place = Place::new();
    let find = |script: &str| podman::find(&place.podman(script), "x");
    assert_eq!(find("[ $2 = exists ] && exit 1; exit 125").unwrap(), None);
    let error = find("echo 'no \u{1b}[31mstorage' >&2; exit 125").unwrap_err();
    assert!(
        matches!(&error, EngineError::Failed { said, .. } if said == "no \\u{1b}[31mstorage"),
        "{error:?}"
    );
    for answer in ["", "[]", "[{}]", "{", "[{\"Id\":\"../..\"}]"] {
        let error = find(&format!("echo '{answer}'")).unwrap_err();
        assert!(matches!(error, EngineError::Answer { .. }), "{answer} {error:?}");
    }
    let missing = Engines::only(Some(&place.path("none")), "");
    let error = podman::find(&missing, "x").unwrap_err();
    assert!(matches!(error, EngineError::NoPodman { .. }) && error.hint().is_some(), "{error:?}");
    let never = Engines { answer: SHORT, ..place.podman("exec sleep 1000") };
    let error = podman::find(&never, "x").unwrap_err();
    assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
    for (script, cache_is_empty) in [("echo broken >&2; exit 1", true), ("echo no archive", true)] {
        let saved = podman::save(&place.podman(script), &image(SaveFormat::OciArchive), &place.path("cache"));
        assert!(saved.is_err());
        assert_eq!(std::fs::read_dir(place.path("cache")).unwrap().count() == 0, cache_is_empty);
    }
}

/// A Docker engine that says one thing, whatever it is asked, and then closes or is silent.
fn engine(answer: &[u8], then: Then) -> Engines {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let answer = answer.to_vec();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            request.push(byte[0]);
        }
        stream.write_all(&answer).ok();
        match then {
            Then::Close => stream.shutdown(Shutdown::Both).ok(),
            // Until the client has gone.
            Then::BeSilent => stream.read(&mut byte).ok().map(drop),
        }
    });
    Engines { answer: SHORT, export: SHORT, ..Engines::only(None, &host) }
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    BeSilent,
}

fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_docker_engine_that_lies_is_not_believed() {
    let id = Digest::of(b"");
    let good = json!({ "Id": id, "RepoTags": null }).to_string().into_bytes();
    let find = |answer: &[u8], then| docker_daemon::find(&engine(answer, then), "x");
    let found = find(&response("200 OK", good.len(), &good), Then::BeSilent).unwrap();
    assert_eq!(found, image(SaveFormat::DockerArchive));

    let text = |result: Result<_, EngineError>| format!("{:?}", result.unwrap_err());
    for (answer, then, expected) in [
        (response("404 Not Found", 2, b"{}"), Then::Close, "NoImage"),
        (
            response("500 Oops", 9, b"out \x1b of m"),
            Then::Close,
            "Status { status: 500, said: \"out \\\\u{1b} of\" }",
        ),
        (response("500 Oops", 9999, b"x"), Then::BeSilent, "Status { status: 500, said: \"\" }"),
        (response("200 OK", 9999, &good), Then::Close, "Broken"),
        (response("200 OK", 9999, &good), Then::BeSilent, "TimedOut"),
        (response("200 OK", 2, b"{}"), Then::Close, "Answer"),
        (response("200 OK", 14, b"{\"Id\":\"sha1:0\"}"), Then::Close, "Answer"),
        (response("200 OK", 5 << 20, &vec![b' '; 5 << 20]), Then::Close, "Answer"),
        (b"what?\r\n\r\n".to_vec(), Then::Close, "Unreachable"),
        (Vec::new(), Then::Close, "Unreachable"),
        (Vec::new(), Then::BeSilent, "TimedOut"),
    ] {
        let error = text(find(&answer, then));
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
}

#[test]
fn an_export_that_is_not_whole_is_refused() {
    let place = Place::new();
    let archive = tarball(&[("manifest.json", b"[]")]);
    let save = |answer: &[u8], then| {
        let saved = docker_daemon::save(
            &engine(answer, then),
            &image(SaveFormat::DockerArchive),
            &place.path("cache"),
        );
        assert_eq!(std::fs::read_dir(place.path("cache")).unwrap().count(), 0);
        format!("{:?}", saved.unwrap_err())
    };
    for (answer, then, expected) in [
        (response("200 OK", archive.len(), &archive), Then::Close, "Empty"),
        (response("200 OK", archive.len() + 1, &archive), Then::Close, "Engine(Broken"),
        (response("200 OK", archive.len() + 1, &archive), Then::BeSilent, "Engine(TimedOut"),
        (response("200 OK", 513, &archive[..513]), Then::Close, "Damaged"),
        (response("200 OK", 0, b""), Then::Close, "NotAnArchive"),
        (response("404 Not Found", 0, b""), Then::Close, "Engine(NoImage"),
    ] {
        let error = save(&answer, then);
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
}

#[test]
fn the_engine_is_where_the_environment_says() {
    let host = |variables: &[(&str, &str)], user| {
        let variable =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        DockerHost::in_environment(variable, user).map(|host| host.to_string())
    };
    let docker = |value: &'static str| host(&[("DOCKER_HOST", value)], 0);
    assert_eq!(docker("unix:///a/b.sock").unwrap(), "unix:///a/b.sock");
    assert_eq!(docker("tcp://h.example:2375").unwrap(), "tcp://h.example:2375");
    assert_eq!(docker("").unwrap(), "unix:///var/run/docker.sock");
    for value in ["ssh://h.example", "unix://relative", "tcp://", "npipe:////./pipe", "x"] {
        assert_eq!(docker(value), Err(value.to_owned()));
        let error = docker_daemon::find(&Engines::only(None, value), "x").unwrap_err();
        assert!(matches!(&error, EngineError::DockerHost { .. }) && error.hint().is_some(), "{error:?}");
    }
    let tls = [("DOCKER_HOST", "tcp://h.example:2376"), ("DOCKER_TLS_VERIFY", "1")];
    assert!(host(&tls, 0).is_err(), "not in the open where the user wants TLS");
    let nowhere = Engines::only(None, "unix:///nonexistent/docker.sock");
    let error = docker_daemon::find(&nowhere, "x").unwrap_err();
    assert_eq!(error.to_string(), "no Docker engine can be reached at `unix:///nonexistent/docker.sock`");
    assert!(error.hint().is_some());
}

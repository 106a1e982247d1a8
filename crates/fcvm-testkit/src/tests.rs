//! The fixtures that are programs of their own.

use std::{io::Read as _, io::Write as _, net::TcpStream, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    Act, Compression, Entry, Format, Image, Layer, Proxy, Registry, RegistryOptions, Rule, needs_programs,
    noise,
};

fn image() -> Image {
    let layer = Layer::new().with(Entry::file("noise", noise(10_000)));
    Image::new().layer(&layer, Compression::Gzip)
}

/// Status, head and body of a request.
fn request(address: &str, method: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{accept}\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

#[test]
fn a_registry_gives_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::plain(directory.path()) else { return };
    let digest = registry.push(&image(), "team/app:1", Format::Oci);
    let (status, head, body) = request(registry.address(), "GET", "/v2/team/app/manifests/1", "");
    assert!(status == 200 && head.contains(&digest), "{head}");
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(
        format!("sha256:{}", crate::sha256(std::fs::File::open(registry.blob(layer)).unwrap())),
        layer
    );

    let arm = image().platform("linux/arm64/v8");
    let digest = registry.push_index(&[image(), arm], "team/app:2");
    let name = format!("docker://{}", registry.name("team/app:2"));
    let raw = registry.skopeo("inspect", "").args(["--raw", &name]).output().unwrap();
    assert_eq!(format!("sha256:{}", crate::sha256(raw.stdout.as_slice())), digest);
    let index: Value = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v8");

    let digest = registry.push(&image(), "docker:1", Format::Docker);
    let name = format!("docker://{}@{digest}", registry.name("docker"));
    let raw = registry.skopeo("inspect", "").args(["--raw", &name]).output().unwrap();
    let manifest: Value = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["layers"][0]["digest"], *layer);
    registry.delete("team/app:1");
    assert_eq!(request(registry.address(), "GET", "/v2/team/app/manifests/1", "").0, 404);
}

#[test]
fn a_registry_can_want_a_login_and_speak_https() {
    if !needs_programs(&["curl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = RegistryOptions::new().login("alice", "s3cret:x").tls();
    let Some(registry) = options.start(directory.path()) else { return };
    registry.push(&image(), "x:1", Format::Oci);
    let status = |options: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]).args(options);
        let output = command.arg(format!("https://{}/v2/", registry.address())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let authority = registry.authority();
    let authority = authority.to_str().unwrap();
    assert_eq!(status(&[]), "000", "nobody knows who signed its certificate");
    assert_eq!(status(&["--cacert", authority]), "401");
    assert_eq!(status(&["--cacert", authority, "--user", "alice:wrong"]), "401");
    assert_eq!(status(&["--cacert", authority, "--user", "alice:s3cret:x"]), "200");
}

#[test]
fn a_registry_dies_with_its_fixture() {
    let directory = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::plain(directory.path()) else { return };
    let address = registry.address().to_owned();
    drop(registry);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_proxy_lies_as_it_is_told_and_remembers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::plain(directory.path()) else { return };
    registry.push(&image(), "x:1", Format::Oci);
    let proxy = Proxy::to(&registry);
    let address = proxy.address();
    let (_, _, manifest) = request(&address, "GET", "/v2/x/manifests/1", "");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let blob = format!("/v2/x/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let get = |headers: &str| request(&address, "GET", &blob, headers);
    let (status, _, whole) = get("");
    assert!(status == 200 && whole.len() > 10_000);
    let (_, head, body) = request(&address, "HEAD", &blob, "");
    assert!(head.to_lowercase().contains(&format!("content-length: {}", whole.len())) && body.is_empty());

    proxy.rule(Rule::on("/blobs/", Act::Cut(100)).times(1));
    let (_, head, body) = get("");
    assert!(head.contains(&whole.len().to_string()) && body == whole[..100]);
    proxy.rule(Rule::on("/blobs/", Act::Corrupt(5)).times(1));
    let (_, _, body) = get("");
    let differing: Vec<_> = (0..whole.len()).filter(|&at| body[at] != whole[at]).collect();
    assert_eq!((body.len(), differing), (whole.len(), vec![5]));
    proxy.rule(Rule::on("/blobs/", Act::Length(-10)).times(1));
    let (_, head, _) = get("");
    assert!(head.contains(&format!("{}", whole.len() - 10)), "{head}");
    let range = "Range: bytes=7-\r\n";
    assert_eq!(get(range).2, whole[7..]);
    proxy.rule(Rule::on("/blobs/", Act::WrongRange(2)).times(1));
    let (status, _, body) = get(range);
    assert_eq!((status, body.as_slice()), (206, &whole[9..]));
    proxy.rule(Rule::on("/blobs/", Act::IgnoreRange).times(1));
    assert_eq!(get(range).0, 200);
    proxy.rule(Rule::on("/blobs/", Act::status_with(429, "Retry-After", "7")).after(1).times(1));
    assert_eq!((get("").0, get("").0, get("").0), (200, 429, 200));
    proxy.rule(Rule::on("/blobs/", Act::status(401)).unless_authorized("Bearer x"));
    assert_eq!((get("").0, get("Authorization: Bearer x\r\n").0), (401, 200));
    proxy.clear_rules();

    proxy.forget();
    assert_eq!(get(range).2, whole[7..]);
    assert_eq!((proxy.count("GET", "/blobs/"), proxy.count("GET", "/manifests/")), (1, 0));
    assert_eq!(proxy.ranges(&blob), [Some(7)]);
}

#[test]
fn a_proxy_redirects_stalls_and_never_ends() {
    let directory = tempfile::tempdir().unwrap();
    let Some(registry) = RegistryOptions::new().login("alice", "x").start(directory.path()) else { return };
    registry.push(&image(), "x:1", Format::Oci);
    let (proxy, storage) = (Proxy::to(&registry), Proxy::logged_in(&registry));
    assert_eq!(request(&proxy.address(), "GET", "/v2/", "").0, 401);
    assert_eq!(request(&storage.address(), "GET", "/v2/", "").0, 200);
    proxy.rule(Rule::on("/v2/x/", Act::Redirect(storage.address())));
    let (status, head, _) = request(&proxy.address(), "GET", "/v2/x/manifests/1", "");
    let target = format!("location: http://{}/v2/x/manifests/1", storage.address());
    assert!(status == 307 && head.contains(&target), "{head}");
    assert_eq!(storage.arrived()[0].header("authorization"), None);

    storage.rule(Rule::on("/manifests/", Act::Endless).times(1));
    let mut endless = TcpStream::connect(storage.address()).unwrap();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    endless
        .write_all(format!("GET /v2/x/manifests/1 HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n").as_bytes())
        .unwrap();
    endless.read_exact(&mut vec![0; 5 << 20]).unwrap();

    storage.rule(Rule::on("/manifests/", Act::Stall(3)));
    let mut stalled = TcpStream::connect(storage.address()).unwrap();
    stalled
        .write_all(format!("GET /v2/x/manifests/1 HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stalled.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    while !answer.ends_with(b"\r\n\r\n{\"c") {
        let mut byte = [0];
        stalled.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    // Neither keeps it from going.
    drop(storage);
    assert_eq!(stalled.read_to_end(&mut answer).unwrap(), 0);
}

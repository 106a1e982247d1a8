//! Pulling from a real registry, and through a proxy that lies.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fcvm::{
    image::{
        ImageError, Store, StoredImage,
        disk::HostBuilder,
        registries::RegistryFiles,
        registry::{Access, Patience, RegistryError, pull},
    },
    output::Printer,
    storage::DataDir,
};
use fcvm_testkit::{
    Act, Compression, Entry, Format, Image, Layer, LoopMount, Proxy, Registry, RegistryOptions, Rule,
    TestEnv, needs_root, noise, sha256, skip,
};
use serde_json::json;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// Three layers: small, larger, small.
fn image(content: &str) -> Image {
    Image::new()
        .layer(&Layer::new().with(Entry::file("content", content)), Compression::Gzip)
        .layer(&Layer::new().with(Entry::file("noise", noise(3_000_000))), Compression::None)
        .layer(&Layer::new().with(Entry::file("more", "more")), Compression::Zstd)
        .config(json!({ "Cmd": ["/content"] }))
}

/// A registry behind a proxy, and a store.
struct Place {
    env: TestEnv,
    registry: Registry,
    proxy: Proxy,
}

impl Place {
    fn new() -> Option<Self> {
        let env = TestEnv::new(FCVM);
        let registry = Registry::plain(env.root())?;
        let proxy = Proxy::to(&registry);
        Some(Self { env, registry, proxy })
    }

    /// The largest blob of an image behind the proxy: its path there.
    fn large_blob(&self) -> String {
        let layer = Layer::new().with(Entry::file("noise", noise(3_000_000)));
        format!("blobs/sha256:{}", sha256(layer.to_tar().as_slice()))
    }

    /// Pulls in this process, with little patience.
    fn pull(&self, name: &str) -> Result<StoredImage, ImageError> {
        let access = Access {
            patience: Patience {
                connect: Duration::from_secs(10),
                silence: Duration::from_secs(2),
                first_pause: Duration::from_millis(10),
                ..Patience::default()
            },
            ..Access::default()
        };
        let data = DataDir::open(Some(self.env.data().to_owned())).unwrap();
        let store = Store::with_registries(&data, RegistryFiles::none());
        let name = self.proxy.name(name).parse().unwrap();
        pull(&store, &name, &access, &Printer::quiet(), &HostBuilder)
    }

    fn fcvm(&self, arguments: &[&str]) -> fcvm_testkit::Output {
        self.env.fcvm().arg("image").args(arguments).run()
    }

    /// Names of the images, as `fcvm image ls` knows them.
    fn names(&self) -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(&self.fcvm(&["ls", "--json"]).ok()).unwrap();
        let images = list.as_array().unwrap().iter();
        images.flat_map(|image| image["names"].as_array().unwrap()).map(|name| name.to_string()).collect()
    }

    fn remove_all(&self) {
        self.proxy.clear_rules();
        for directory in ["images", "blobs"] {
            drop(fs::remove_dir_all(self.env.data().join(directory)));
        }
        self.proxy.forget();
    }

    /// Every blob that has a name is what its name says.
    fn assert_blobs_are_whole(&self) {
        for path in blobs(self.env.data(), "sha256") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(sha256(fs::File::open(&path).unwrap()), name);
        }
    }
}

fn blobs(data: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("blobs").join(kind)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn registry_error(error: ImageError) -> RegistryError {
    match error {
        ImageError::Pull { source, .. } => *source,
        error => panic!("{error:?}"),
    }
}

/// What goes wrong for a while is overcome, and costs no more requests than it must.
#[test]
fn what_may_pass_is_overcome() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let large = place.large_blob();
    let at = |act: Act| Rule::on(&large, act);
    let cases: Vec<(&str, Rule, &[Option<u64>])> = vec![
        ("nothing", at(Act::Delay(Duration::ZERO)).times(0), &[None]),
        ("cut once", at(Act::Cut(1_000_000)).times(1), &[None, Some(1_000_000)]),
        ("cut at once", at(Act::Cut(0)).times(2), &[None, None, None]),
        (
            "cut again and again",
            at(Act::Cut(900_000)),
            &[None, Some(900_000), Some(1_800_000), Some(2_700_000)],
        ),
        ("stalled", at(Act::Stall(500_000)).times(1), &[None, Some(500_000)]),
        ("all of it, and a promise of more", at(Act::Length(10)), &[None]),
        ("late", at(Act::Delay(Duration::from_millis(300))).times(1), &[None]),
        ("closed", at(Act::Hang).times(2), &[None, None, None]),
        ("busy", at(Act::status_with(429, "Retry-After", "0")).times(2), &[None, None, None]),
        ("broken", at(Act::status(500)).times(3), &[None, None, None, None]),
        ("down", at(Act::status(503)).times(1), &[None, None]),
    ];
    for (what, rule, ranges) in cases {
        place.remove_all();
        place.proxy.rule(rule);
        place.pull("app:1").unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(place.proxy.ranges(&large), ranges, "{what}");
        place.assert_blobs_are_whole();
        assert!(blobs(place.env.data(), "partial").is_empty(), "{what}");
    }
    for act in [Act::status(502), Act::Hang, Act::Cut(10)] {
        place.remove_all();
        place.proxy.rule(Rule::on("manifests/1", act.clone()).times(2));
        place.pull("app:1").unwrap_or_else(|error| panic!("{act:?}: {error:?}"));
        assert_eq!(place.proxy.count("GET", "manifests/1"), 3);
    }
    // A server that knows no ranges sends all of it again; that is taken too.
    place.remove_all();
    place.proxy.rule(at(Act::Cut(1_000_000)).times(1));
    place.proxy.rule(at(Act::IgnoreRange));
    place.pull("app:1").unwrap();
    assert_eq!(place.proxy.ranges(&large), [None, Some(1_000_000)]);
    place.assert_blobs_are_whole();
}

/// What does not pass is told, with advice, and never gets into the store.
#[test]
fn what_does_not_pass_is_told() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let large = place.large_blob();
    let refused = |message: &str| {
        let body = json!({ "errors": [{ "code": "DENIED", "message": message }] }).to_string();
        Act::Answer(403, Vec::new(), body)
    };
    type Expected = fn(&RegistryError) -> bool;
    let cases: Vec<(&str, Act, Expected)> = vec![
        (&large, Act::Corrupt(2_000_000), |error| matches!(error, RegistryError::Digest { .. })),
        (&large, Act::Cut(0), |error| matches!(error, RegistryError::Broken { .. })),
        (&large, Act::Stall(0), |error| matches!(error, RegistryError::Stalled { .. })),
        (&large, Act::Length(-10), |error| matches!(error, RegistryError::CutOff { .. })),
        (&large, Act::Endless, |error| matches!(error, RegistryError::Size { .. })),
        (&large, Act::status(404), |error| matches!(error, RegistryError::NotFound { .. })),
        (&large, Act::status(401), |error| matches!(error, RegistryError::Challenge { .. })),
        (&large, Act::status(500), |error| matches!(error, RegistryError::Status { status: 500, .. })),
        (&large, Act::Hang, |error| matches!(error, RegistryError::Broken { .. })),
        (&large, Act::Redirect("127.0.0.1:1".into()), |error| {
            matches!(error, RegistryError::Unreachable { .. })
        }),
        ("manifests/", Act::Endless, |error| matches!(error, RegistryError::TooLarge { .. })),
        ("manifests/", Act::Corrupt(0), |error| matches!(error, RegistryError::Manifest { .. })),
        ("manifests/", Act::Stall(5), |error| matches!(error, RegistryError::Stalled { .. })),
        ("manifests/", Act::status(404), |error| matches!(error, RegistryError::NotFound { .. })),
        (
            "manifests/",
            refused("not\u{1b}[31m for you"),
            |error| matches!(error, RegistryError::Denied { message, .. } if message == ": not\\u{1b}[31m for you"),
        ),
        ("manifests/", Act::status_with(401, "WWW-Authenticate", "Basic realm=\"x\""), |error| {
            matches!(error, RegistryError::LoginNeeded { .. })
        }),
        (
            "manifests/",
            Act::status_with(429, "Retry-After", "3600"),
            |error| matches!(error, RegistryError::TooMany { retry_after: Some(pause), .. } if pause.as_secs() == 3600),
        ),
        ("manifests/", Act::Redirect(place.proxy.address()), |error| {
            matches!(error, RegistryError::Redirect { .. })
        }),
    ];
    for (path, act, expected) in cases {
        place.remove_all();
        place.proxy.rule(Rule::on(path, act.clone()));
        let error = place.pull("app:1").expect_err(&format!("{act:?}"));
        let error = registry_error(error);
        assert!(expected(&error), "{act:?}: {error:?}");
        assert!(
            error.hint().is_some()
                || matches!(
                    error,
                    RegistryError::Manifest { .. }
                        | RegistryError::Redirect { .. }
                        | RegistryError::Challenge { .. }
                ),
            "{error:?}"
        );
        place.assert_blobs_are_whole();
        assert!(place.names().is_empty(), "{act:?}");
        // Nothing that came is in the way of what is right.
        place.proxy.clear_rules();
        place.pull("app:1").unwrap_or_else(|error| panic!("after {act:?}: {error:?}"));
        place.assert_blobs_are_whole();
    }
}

#[test]
fn a_wrong_range_is_noticed() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let large = place.large_blob();
    place.proxy.rule(Rule::on(&large, Act::Cut(1_000_000)).times(1));
    place.proxy.rule(Rule::on(&large, Act::WrongRange(1000)).times(1));
    place.pull("app:1").unwrap();
    place.assert_blobs_are_whole();
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let env = TestEnv::new(FCVM);
    let Some(registry) = RegistryOptions::new().login("alice", "secret").start(env.root()) else { return };
    registry.push(&image("x"), "private:1", Format::Oci);
    let (front, storage) = (Proxy::to(&registry), Proxy::logged_in(&registry));
    front.rule(Rule::on("/blobs/", Act::Redirect(storage.address())));
    let auth = json!({ "auths": { front.address(): { "auth": "YWxpY2U6c2VjcmV0" } } });
    let auth = env.file("auth.json", auth.to_string());
    let name = front.name("private:1");
    let pull = |auth: &Path| env.fcvm().args(["image", "pull", "--authfile"]).arg(auth).arg(&name).run();
    pull(&auth).assert_code(0);
    assert!(front.arrived().iter().any(|request| request.header("authorization").is_some()));
    assert!(storage.count("GET", "/blobs/") > 0);
    assert!(storage.arrived().iter().all(|request| request.header("authorization").is_none()));

    let wrong = json!({ "auths": { front.address(): { "auth": "YWxpY2U6d3Jvbmc=" } } });
    for (auth, error) in [
        (env.file("none.json", "{}"), "wants a login for `private`"),
        (env.file("wrong.json", wrong.to_string()), "does not accept this login for `private`"),
    ] {
        let output = pull(&auth);
        output.assert_code(125);
        assert!(output.stderr.contains(error) && output.stderr.contains("fcvm login"), "{}", output.stderr);
        assert!(!output.stderr.contains("secret") && !output.stderr.contains("wrong`"), "{}", output.stderr);
    }
}

#[test]
fn https_needs_an_authority_that_is_known() {
    let env = TestEnv::new(FCVM);
    let Some(registry) = RegistryOptions::new().tls().start(env.root()) else { return };
    registry.push(&image("x"), "app:1", Format::Oci);
    let name = registry.name("app:1");
    let refused = env.fcvm().args(["image", "pull", "--tls-verify", &name]).run();
    refused.assert_code(125);
    assert!(refused.stderr.contains("ca.crt"), "{}", refused.stderr);
    let authority = registry.authority();
    let known = env.fcvm().args(["image", "pull", "--tls-verify", "--cert-dir"]);
    known.arg(authority.parent().unwrap()).arg(&name).run().assert_code(0);
    env.fcvm().args(["image", "rm", &name]).run().assert_code(0);
    env.fcvm().args(["image", "pull", "--tls-verify=false", &name]).run().assert_code(0);
}

#[test]
fn policies_decide_what_is_asked() {
    let Some(place) = Place::new() else { return };
    let name = place.proxy.name("app:1");
    let pull = |policy: &str| place.fcvm(&["pull", "-q", "--policy", policy, &name]);
    let never = pull("never");
    never.assert_code(125);
    assert_eq!(place.proxy.arrived().len(), 0);
    place.registry.push(&image("one"), "app:1", Format::Oci);
    let one = pull("missing").ok();
    place.proxy.forget();
    for policy in ["missing", "never"] {
        assert_eq!(pull(policy).ok(), one);
        assert_eq!(place.proxy.arrived(), [], "no request at all with {policy}");
    }
    assert_eq!(pull("newer").ok(), one);
    assert_eq!((place.proxy.count("HEAD", "manifests"), place.proxy.count("GET", "/app/")), (1, 0));
    assert_eq!(pull("always").ok(), one);
    assert_eq!(place.proxy.count("GET", "blobs"), 0, "what is here is not fetched again");

    place.registry.push(&image("two").compressed(Compression::Gzip), "app:1", Format::Docker);
    assert_eq!(pull("missing").ok(), one);
    place.proxy.forget();
    let two = pull("newer").ok();
    assert_ne!(two, one);
    // The new configuration and the changed layer; as Docker's manifest every layer is gzip.
    assert!(place.proxy.count("GET", "blobs") >= 2);
    for method in ["GET", "HEAD"] {
        place.proxy.rule(Rule::on("/manifests/", Act::status(404)).method(method));
    }
    let output = pull("newer");
    assert_eq!(output.ok(), two);
    assert!(output.stderr.contains("warning: using the stored image"), "{}", output.stderr);
    pull("always").assert_code(125);
    assert_eq!(pull("missing").ok(), two);
}

#[test]
fn the_image_for_the_machine_is_taken() {
    let Some(place) = Place::new() else { return };
    let host = fcvm::image::spec::Platform::host().to_string();
    let other = if host.ends_with("amd64") { "linux/arm64/v8" } else { "linux/amd64" };
    let images = [image("host"), image("other").platform(other), image("arm").platform("linux/arm/v7")];
    let index = place.registry.push_index(&images, "multi:1");
    let pull = |arguments: &[&str]| place.env.fcvm().args(["image", "pull", "-q"]).args(arguments).run();
    let name = place.proxy.name("multi:1");
    let own = pull(&[&name]).ok();
    let foreign = pull(&["--platform", other, &name]).ok();
    assert_ne!(own, foreign);
    // The name is the other's now, which this machine cannot run: asked for, its own is taken.
    assert_eq!(pull(&["--policy", "missing", &name]).ok(), own);
    let digested = format!("{}@{index}", place.proxy.name("multi"));
    assert_eq!(pull(&[&digested]).ok(), own);
    place.proxy.forget();
    for name in [&digested, &format!("{}@{index}", place.proxy.name("multi:tag-is-not-looked-at"))] {
        assert_eq!(pull(&["--policy", "missing", name]).ok(), own);
    }
    assert_eq!(place.proxy.arrived(), []);
    let none = pull(&["--platform", "linux/s390x", &name]);
    none.assert_code(125);
    assert!(none.stderr.contains("linux/arm/v7") && none.stderr.contains("linux/s390x"), "{}", none.stderr);
    let unknown = format!("{}@sha256:{}", place.proxy.name("multi"), "0".repeat(64));
    pull(&[&unknown]).assert_code(125);
    // A single image of another machine is refused before its layers are fetched.
    place.registry.push(&image("z").platform(other), "single:1", Format::Oci);
    place.proxy.forget();
    let refused = pull(&[&place.proxy.name("single:1")]);
    refused.assert_code(125);
    assert!(refused.stderr.contains(&format!("is for {other}")), "{}", refused.stderr);
    assert_eq!(place.proxy.count("GET", "blobs"), 1, "the configuration alone");
}

#[test]
fn two_at_once_fetch_once() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let name = place.proxy.name("app:1");
    // Slow enough that all of them want it while it comes.
    place.proxy.rule(Rule::on(&place.large_blob(), Act::Delay(Duration::from_millis(500))));
    let running: Vec<_> =
        (0..4).map(|_| place.env.fcvm().args(["image", "pull", "-q", &name]).spawn()).collect();
    let ids: Vec<_> = running.into_iter().map(|running| running.wait().ok()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_eq!(place.proxy.count("GET", "/blobs/"), 4, "three layers and the configuration");
    assert!(blobs(place.env.data(), "partial").is_empty());
}

fn begun_with(place: &Place, bytes: u64) -> bool {
    let sizes =
        blobs(place.env.data(), "partial").into_iter().map(|path| fs::metadata(path).map(|file| file.len()));
    sizes.flatten().any(|size| size >= bytes)
}

fn whole(place: &Place) -> usize {
    let names = blobs(place.env.data(), "sha256").into_iter();
    names.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).count()
}

#[test]
fn after_a_kill_it_is_gone_on_with() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let (name, large) = (place.proxy.name("app:1"), place.large_blob());
    let pull = || place.env.fcvm().args(["image", "pull", "-q", &name]);
    // Held at each stage in turn, and killed there.
    for (path, act) in
        [("manifests/1", Act::Stall(0)), ("/blobs/", Act::Stall(0)), (large.as_str(), Act::Stall(2_000_000))]
    {
        place.proxy.clear_rules();
        place.proxy.forget();
        place.proxy.rule(Rule::on(path, act));
        let running = pull().spawn();
        // The last one when all else is there.
        let held = || path != large || (begun_with(&place, 2_000_000) && whole(&place) == 4);
        while place.proxy.count("GET", path) == 0 || !held() {
            std::thread::yield_now();
        }
        assert_eq!(running.kill().code(), 137);
        assert!(place.names().is_empty());
    }
    place.proxy.clear_rules();
    place.proxy.forget();
    pull().run().assert_code(0);
    assert_eq!(place.proxy.ranges(&large), [Some(2_000_000)]);
    assert_eq!(place.proxy.count("GET", "/blobs/"), 1, "what was whole is not fetched again");
    place.assert_blobs_are_whole();
    assert!(blobs(place.env.data(), "partial").is_empty());
    // While the disk is made.
    let images = place.env.data().join("images");
    place.fcvm(&["rm", &name]).assert_code(0);
    assert!(blobs(place.env.data(), "sha256").is_empty());
    let running = pull().spawn();
    let begun = || {
        let entries = fs::read_dir(&images).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"))
    };
    while !begun() {
        std::thread::yield_now();
    }
    assert_eq!(running.kill().code(), 137);
    pull().run().assert_code(0);
    assert_eq!(place.names().len(), 1);
    place.fcvm(&["rm", &name]).assert_code(0);
    assert!(blobs(place.env.data(), "sha256").is_empty() && blobs(place.env.data(), "partial").is_empty());
}

/// A blob that was damaged in the store is fetched again when a disk is to be made of it.
#[test]
fn a_damaged_blob_is_fetched_again() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let stored = place.pull("app:1").unwrap();
    let large = place.large_blob();
    let blob = place.env.data().join("blobs/sha256").join(large.rsplit(':').next().unwrap());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[1_500_000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    fs::remove_dir_all(stored.disk.parent().unwrap()).unwrap();
    place.proxy.forget();
    place.pull("app:1").unwrap();
    assert_eq!(place.proxy.ranges(&large), [None]);
    assert_eq!(place.proxy.count("GET", "/blobs/"), 1);
    place.assert_blobs_are_whole();
    // Damaged after the disk was made, the image is made anew from the registry.
    fs::write(&stored.disk, "?").unwrap();
    fs::write(&blob, "?").unwrap();
    let name = place.proxy.name("app:1");
    place.fcvm(&["pull", "--policy", "missing", &name]).assert_code(0);
    place.assert_blobs_are_whole();
}

#[test]
fn damage_that_is_found_is_repaired_from_the_registry() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let disk = place.pull("app:1").unwrap().disk;
    let good = fs::read(&disk).unwrap();
    // The name is another image's there by now: that is not what is missing here.
    place.registry.push(&image("y"), "app:1", Format::Oci);
    for blob in blobs(place.env.data(), "sha256") {
        fs::write(&blob, "damaged").unwrap();
        place.fcvm(&["verify"]).assert_code(1);
        let repaired = place.fcvm(&["verify", "--repair"]).ok();
        assert_eq!(repaired.lines().count(), 1, "{repaired}");
        assert!(repaired.contains(blob.to_str().unwrap()) && repaired.ends_with("; repaired"), "{repaired}");
        place.assert_blobs_are_whole();
    }
    // With the disk too.
    let large = blobs(place.env.data(), "sha256").into_iter();
    let large = large.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    fs::write(&large, "damaged").unwrap();
    fs::write(&disk, "damaged").unwrap();
    assert_eq!(place.fcvm(&["verify", "--repair"]).ok().lines().count(), 2);
    assert!(fs::read(&disk).unwrap() == good);
    // The registry cannot be asked: said, and what is known to be bad goes all the same.
    fs::write(&large, "damaged").unwrap();
    place.proxy.rule(Rule::on("/v2/", Act::Answer(403, Vec::new(), String::new())));
    let removed = place.fcvm(&["verify", "--repair"]);
    removed.assert_code(1);
    assert!(removed.stdout().trim().ends_with("; removed"), "{}", removed.stdout());
    assert!(removed.stderr.contains("cannot be fetched again"), "{}", removed.stderr);
    place.proxy.clear_rules();
    place.fcvm(&["verify", "--repair"]).assert_code(0);
    assert_eq!(place.fcvm(&["verify"]).ok(), "");
    assert_eq!(place.names().len(), 1);
}

#[test]
fn the_environments_proxy_is_used() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&image("x"), "app:1", Format::Oci);
    let pull = |variables: &[(&str, &str)]| {
        let command = place.env.fcvm().args(["image", "pull", "-q", "--tls-verify=false"]);
        // Nobody else knows where that is.
        let command = command.arg("registry.example/app:1");
        variables.iter().fold(command, |command, (name, value)| command.env(name, value)).run()
    };
    let proxy = format!("http://{}", place.proxy.address());
    let refused = pull(&[("HTTP_PROXY", &proxy), ("NO_PROXY", "other.example,registry.example")]);
    refused.assert_code(125);
    assert!(refused.stderr.contains("proxies are taken from"), "{}", refused.stderr);
    assert_eq!(place.proxy.arrived(), []);
    pull(&[("HTTP_PROXY", &proxy), ("NO_PROXY", "other.example")]).assert_code(0);
    assert!(place.proxy.count("GET", "http://registry.example/v2/app/blobs/") >= 4);
    assert_eq!(place.names(), ["\"registry.example/app:1\""]);
}

#[test]
fn root_a_full_disk_is_told_and_the_store_stays_whole() {
    if !needs_root() {
        return;
    }
    let mount = match LoopMount::new(160 << 20) {
        Ok(mount) => mount,
        Err(reason) => return skip(reason),
    };
    let env = TestEnv::new(FCVM).with_data(mount.path().join("data"));
    let Some(registry) = Registry::plain(env.root()) else { return };
    registry.push(&image("x"), "small:1", Format::Oci);
    let noise = Layer::new().with(Entry::file("noise", noise(200_000_000)));
    registry.push(&Image::new().layer(&noise, Compression::None), "large:1", Format::Oci);
    let proxy = Proxy::to(&registry);
    let pull = |name: &str| env.fcvm().args(["image", "pull", "-q", &proxy.name(name)]).run();
    pull("small:1").assert_code(0);
    // Seen before anything is fetched.
    let refused = pull("large:1");
    refused.assert_code(125);
    assert!(refused.stderr.contains("not enough space in `"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: free "), "{}", refused.stderr);
    // Seen only when it happens: another takes the space meanwhile.
    env.fcvm().args(["image", "rm", &proxy.name("small:1")]).run().assert_code(0);
    let filler = mount.fill(1 << 20);
    fs::remove_file(&filler).unwrap();
    let layer = Layer::new().with(Entry::file("noise", fcvm_testkit::noise(3_000_000)));
    let large = format!("blobs/sha256:{}", sha256(layer.to_tar().as_slice()));
    proxy.rule(Rule::on(&large, Act::Stall(1_000_000)).times(1));
    let running = env.fcvm().args(["image", "pull", "-q", &proxy.name("small:1")]).spawn();
    while proxy.count("GET", &large) == 0 {
        std::thread::yield_now();
    }
    let filler = mount.fill(64 << 10);
    proxy.clear_rules();
    let output = running.wait();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: free "), "{}", output.stderr);
    fs::remove_file(filler).unwrap();
    pull("small:1").assert_code(0);
}

#[test]
fn mirrors_and_short_names_are_as_configured() {
    let Some(place) = Place::new() else { return };
    let one = place.registry.push(&image("mirrored"), "mirror/app:1", Format::Oci);
    let configuration = format!(
        "unqualified-search-registries = ['registry.example']\n\
         [aliases]\nshort = 'registry.example/app'\n\
         [[registry]]\nlocation = 'registry.example'\nblocked = false\n\
         [[registry.mirror]]\nlocation = '{}/mirror'\ninsecure = true\n\
         [[registry]]\nlocation = 'blocked.example'\nblocked = true\n",
        place.proxy.address()
    );
    let file = place.env.file("registries.conf", configuration);
    let pull = |name: &str| {
        place.env.fcvm().env("CONTAINERS_REGISTRIES_CONF", &file).args(["image", "pull", name]).run()
    };
    pull("registry.example/app:1").assert_code(0);
    pull("short:1").assert_code(0);
    pull("app:1").assert_code(0);
    assert_eq!(place.names(), ["\"registry.example/app:1\""]);
    assert!(place.proxy.count("GET", "/v2/mirror/app/manifests/1") > 0);
    pull(&format!("registry.example/app@{one}")).assert_code(0);
    let blocked = pull("blocked.example/app:1");
    blocked.assert_code(125);
    assert!(blocked.stderr.contains("blocked"), "{}", blocked.stderr);
}

//! Images of a real registry: what a container of fcvm sees is what one of the host's Podman does.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use fcvm_testkit::{
    Compression, Entry, Format, Image, Layer, Registry, TestEnv, list_tree, needs_programs, needs_root,
    noise, skip,
};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// `cap_net_bind_service=ep` as the kernel stores it.
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// The host's Podman, with storage of its own.
struct Podman {
    directory: PathBuf,
}

impl Podman {
    fn new(env: &TestEnv) -> Self {
        let directory = env.root().join("podman");
        fs::create_dir(&directory).unwrap();
        let [graph, run] = ["graph", "run"].map(|name| directory.join(name));
        let config = format!("[storage]\ndriver = \"overlay\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
        fs::write(directory.join("storage.conf"), config).unwrap();
        Self { directory }
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new("podman")
            .env("CONTAINERS_STORAGE_CONF", self.directory.join("storage.conf"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Standard output of a command in a container of an image, which is pulled.
    fn run(&self, image: &str, command: &[&str]) -> String {
        // `runc` and limits within what a restricted host allows; what is tested is the image.
        let fixed = ["--runtime=runc", "run", "--rm", "--tls-verify=false", "--network=none"];
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000", image];
        let output = self.command(&[&fixed[..], &limits[..], command].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.command(&["rm", "--all", "--force"]);
        // Overlay keeps its directory mounted.
        let mounted = self.directory.join("graph/overlay");
        drop(Command::new("umount").arg("-q").arg(mounted).status());
    }
}

struct Place {
    podman: Podman,
    registry: Registry,
    lister: Vec<u8>,
    env: TestEnv,
}

impl Place {
    fn new() -> Option<Self> {
        if !needs_root() || !needs_programs(&["podman", "runc", "tar"]) {
            return None;
        }
        let env = TestEnv::set_up(FCVM)?;
        let registry = Registry::plain(env.root())?;
        let lister = match list_tree(FCVM) {
            Ok(lister) => fs::read(lister).unwrap(),
            Err(reason) => {
                skip(reason);
                return None;
            }
        };
        Some(Self { podman: Podman::new(&env), registry, lister, env })
    }

    /// The bottom of every image.
    fn base(&self) -> Layer {
        Layer::new()
            .busybox()
            .with(Entry::file("bin/list-tree", self.lister.clone()))
            .with(Entry::directory("t").mode(0o755))
    }

    /// Insists that a container sees the same under both.
    fn compare(&self, image: &str, least: usize) {
        self.compare_with(image, image, least);
    }

    /// Insists that a container of the image sees what one of the reference does under Podman.
    fn compare_with(&self, reference: &str, image: &str, least: usize) {
        let name = self.registry.name(image);
        let list = ["list-tree", "/", "t", "bin"];
        let podman = self.podman.run(&self.registry.name(reference), &list);
        let fcvm = self.env.run(&["--tls-verify=false", &name]).args(list).run();
        fcvm.assert_code(0);
        let lines = |text: &str| text.lines().map(but_for_what_layers_show).collect::<Vec<_>>();
        let (podman, fcvm) = (lines(&podman), lines(&fcvm.stdout()));
        assert!(podman.len() >= least, "{image}: {} lines", podman.len());
        let [known_to_podman, known_to_fcvm] =
            [&podman, &fcvm].map(|lines| lines.iter().collect::<HashSet<_>>());
        let missing = podman.iter().filter(|line| !known_to_fcvm.contains(line));
        let more = fcvm.iter().filter(|line| !known_to_podman.contains(line));
        let different: Vec<_> =
            missing.map(|line| format!("- {line}")).chain(more.map(|line| format!("+ {line}"))).collect();
        assert!(podman == fcvm, "{image}: Podman says -, fcvm +\n{}", different.join("\n"));
    }
}

/// A line of the list without what depends on the number of layers on the disk: ours has one,
/// Podman's as many as the image. A directory that a layer only passes through is made anew in
/// it, with the time of that; a name that an upper layer removes still counts as a link below.
fn but_for_what_layers_show(line: &str) -> String {
    let mut fields: Vec<_> = line.split(' ').collect();
    if fields.get(1) == Some(&"dir") {
        fields.remove(4);
    }
    if fields.len() > 3 && fields[fields.len() - 3] == "is" {
        fields.pop();
    }
    let line = fields.join(" ");
    match line.rsplit_once(" is ") {
        Some((rest, first)) if rest.starts_with(&format!("{first} ")) => rest.to_owned(),
        _ => line,
    }
}

/// A layer with `t/made`, as GNU tar writes it.
fn gnu_tar(env: &TestEnv, name: &str, options: &[String], fill: impl Fn(&Path)) -> Vec<u8> {
    let root = env.root().join(format!("tar-{name}"));
    let directory = root.join("t/made");
    fs::create_dir_all(&directory).unwrap();
    fill(&directory);
    let output = Command::new("tar")
        .args(["--create", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", "--mtime=@1600000000"])
        .args(options)
        .arg("-C")
        .arg(&root)
        .arg("t/made")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Holes at the start, within and at the end.
fn sparse(directory: &Path) {
    use std::os::unix::fs::FileExt as _;
    for (name, data, length) in [
        ("middle", &[(3 << 20, 5000), (40 << 20, 4096)][..], 64 << 20),
        ("end", &[(8 << 20, 100_000)], (8 << 20) + 100_000),
        ("nothing", &[], 16 << 20),
        ("many", &[(0, 4096), (1 << 20, 4096), (2 << 20, 4096), (3 << 20, 4096), (4 << 20, 4096)], 5 << 20),
    ] {
        let file = fs::File::create(directory.join(name)).unwrap();
        file.set_len(length).unwrap();
        for (at, bytes) in data {
            file.write_all_at(&noise(*bytes), *at).unwrap();
        }
    }
}

fn odd_names(directory: &Path) {
    let long = "l".repeat(255);
    for name in
        [&b"a\nb"[..], b"\xff\xfe bytes", b"tab\there", b" ", b"-rf", b"\\back", b".wh", long.as_bytes()]
    {
        fs::write(directory.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let deep = (0..30).fold(directory.to_owned(), |path, number| path.join(format!("directory-{number}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
}

/// Twelve layers, with all that can go wrong in them.
fn eventful(place: &Place) -> Image {
    let mut image = Image::new().layer(&place.base(), Compression::Gzip);
    let below = ["gone", "hidden", "kept", "replaced", "linked"]
        .into_iter()
        .fold(Layer::new(), |layer, name| layer.with(Entry::directory(&format!("t/{name}"))))
        .with(Entry::file("t/gone/file", "gone"))
        .with(Entry::file("t/hidden/old", "old"))
        .with(Entry::file("t/kept/file", "kept").mode(0o600).owner(1000, 1001).mtime(1_000_000_000))
        .with(Entry::file("t/kept/removed", "removed"))
        .with(Entry::file("t/replaced/by-a-file", "x"))
        .with(Entry::file("t/linked/first", "linked"))
        .with(Entry::hard_link("t/linked/second", "t/linked/first"));
    let special = Layer::new()
        .with(Entry::directory("t/special").mode(0o2750).owner(0, 1001))
        .with(Entry::file("t/special/setuid", "s").mode(0o4755))
        .with(Entry::file("t/special/setgid", "g").mode(0o2755).owner(1000, 1001))
        .with(Entry::directory("t/special/sticky").mode(0o1777))
        .with(Entry::file("t/special/xattrs", "x").xattr("user.one", b"1").xattr("user.two", b"\x00\xff\n"))
        .with(Entry::file("t/special/capable", "c").xattr("security.capability", CAPABILITY))
        .with(Entry::fifo("t/special/fifo"))
        .with(Entry::file("t/special/empty", ""))
        .with(Entry::file("t/special/large-owner", "o").owner(2_000_000, 2_000_001));
    let across = Layer::new()
        .with(Entry::file("t/linked/third", "anew"))
        .with(Entry::hard_link("t/linked/fourth", "t/linked/third"))
        .with(Entry::symlink("t/linked/relative", "../kept/file"))
        .with(Entry::symlink("t/linked/dangling", "/nowhere"));
    let whiteouts = Layer::new()
        .whiteout("t/gone")
        .opaque("t/hidden")
        .with(Entry::file("t/hidden/new", "new"))
        .whiteout("t/kept/removed")
        .whiteout("t/replaced")
        .with(Entry::file("t/replaced", "a file"))
        .whiteout("t/linked/second");
    let back = Layer::new().with(Entry::directory("t/gone")).with(Entry::file("t/gone/back", "back"));
    for (layer, compression) in [
        (below, Compression::Gzip),
        (special, Compression::Zstd),
        (across, Compression::Gzip),
        (whiteouts, Compression::None),
        (back, Compression::Gzip),
    ] {
        image = image.layer(&layer, compression);
    }
    // In both forms; the second replaces the first, which must not be seen.
    for format in ["gnu", "pax"] {
        let options = [format!("--format={format}")];
        let tar = gnu_tar(&place.env, &format!("names-{format}"), &options, odd_names);
        image = image.tarball(tar, Compression::Gzip);
    }
    let last = |name: &str| Layer::new().with(Entry::file(&format!("t/kept/{name}"), name));
    ["ninth", "tenth", "eleventh", "twelfth"]
        .into_iter()
        .fold(image, |image, name| image.layer(&last(name), Compression::Gzip))
}

#[test]
fn root_vm_pulled_images_are_what_podman_pulls() {
    let Some(place) = Place::new() else { return };
    place.registry.push(&eventful(&place), "eventful:1", Format::Oci);
    place.compare("eventful:1", 100);

    // Some versions of Podman refuse the older form, which says the same.
    for format in ["gnu", "pax"] {
        let options = ["--sparse".to_owned(), format!("--format={format}")];
        let tar = gnu_tar(&place.env, format, &options, sparse);
        let image = Image::new().layer(&place.base(), Compression::Gzip).tarball(tar, Compression::Gzip);
        place.registry.push(&image, &format!("sparse-{format}:1"), Format::Oci);
    }
    place.compare_with("sparse-pax:1", "sparse-gnu:1", 40);
    place.compare("sparse-pax:1", 40);

    let of = |what: &str| {
        let layer = Layer::new().with(Entry::file("t/which", what));
        Image::new().layer(&place.base(), Compression::Gzip).layer(&layer, Compression::Gzip)
    };
    let others = ["linux/s390x", "linux/arm/v7"].map(|platform| of(platform).platform(platform));
    let [one, two] = others;
    place.registry.push_index(&[one, of("this machine"), two], "several:1");
    place.compare("several:1", 30);
    let name = place.registry.name("several:1");
    place.env.run(&[&name, "cat", "/t/which"]).run().assert_stdout("this machine");

    place.registry.push(&of("Docker"), "docker:1", Format::Docker);
    place.compare("docker:1", 30);
}

#[test]
fn root_slow_vm_large_images_are_what_podman_pulls() {
    let Some(place) = Place::new() else { return };
    let halves: Vec<_> = (0..5_u8)
        .map(|number| {
            let mut bytes = noise(100_000_000);
            bytes[0] = number;
            Layer::new().with(Entry::file(&format!("t/noise-{number}"), bytes))
        })
        .collect();
    let mut image = Image::new().layer(&place.base(), Compression::Gzip);
    for layer in &halves {
        image = image.layer(layer, Compression::None);
    }
    place.registry.push(&image, "large:1", Format::Oci);
    place.compare("large:1", 35);

    let files = (0..50_000).fold(Layer::new(), |layer, number| {
        let directory = number / 500;
        let layer =
            if number % 500 == 0 { layer.with(Entry::directory(&format!("t/{directory}"))) } else { layer };
        layer.with(Entry::file(&format!("t/{directory}/{number}"), number.to_string()).mode(0o644))
    });
    let image = Image::new().layer(&place.base(), Compression::Gzip).layer(&files, Compression::Gzip);
    place.registry.push(&image, "small-files:1", Format::Oci);
    place.compare("small-files:1", 50_000);
}

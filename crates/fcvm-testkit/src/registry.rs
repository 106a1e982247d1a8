//! A registry of a test's own: Debian's `docker-registry`.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::{Image, collect::Collector, needs_programs};

/// Longest time for the registry to listen. A safety net.
const DEADLINE: Duration = Duration::from_secs(60);

/// The programs that a [`Registry`] needs, for [`needs_programs`].
pub const REGISTRY_PROGRAMS: [&str; 3] = ["docker-registry", "setpriv", "skopeo"];

/// How a registry is to be.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    login: Option<(String, String)>,
    tls: bool,
}

/// A registry on 127.0.0.1, at a port that was free. Dropped, or with its test, it is gone.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    directory: PathBuf,
    address: String,
    options: RegistryOptions,
    log: Collector,
}

/// How manifests are written when an image is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As OCI has them.
    Oci,
    /// As Docker has them: schema 2.
    Docker,
}

impl RegistryOptions {
    /// Plain http, open to all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only for those who say this name and password, in `Authorization: Basic`.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.into(), password.into()));
        self
    }

    /// By https, with a certificate of an authority that nobody knows: see
    /// [`Registry::authority`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it, with its files in `directory/registry`. Nothing, with a word why, where this
    /// machine has no such program.
    #[must_use]
    pub fn start(self, directory: &Path) -> Option<Registry> {
        needs_programs(&REGISTRY_PROGRAMS).then(|| Registry::start(self, directory))
    }
}

impl Registry {
    /// Plain http, open to all: as [`RegistryOptions::start`].
    #[must_use]
    pub fn plain(directory: &Path) -> Option<Self> {
        RegistryOptions::new().start(directory)
    }

    fn start(options: RegistryOptions, parent: &Path) -> Self {
        let directory = parent.join("registry");
        fs::create_dir(&directory).unwrap();
        let configuration = directory.join("config.yml");
        // JSON is YAML. The system chooses the port and the log tells it: nothing can take it
        // in between.
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": directory.join("data") },
                "delete": { "enabled": true },
            },
            "http": { "addr": "127.0.0.1:0", "secret": "none" },
        });
        if let Some((user, password)) = &options.login {
            // The least that there is: what it protects is a test.
            let hash = bcrypt::hash(password, 4).unwrap();
            let file = directory.join("htpasswd");
            fs::write(&file, format!("{user}:{hash}\n")).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "tests", "path": file } });
        }
        if options.tls {
            let (certificate, key) = write_certificates(&directory);
            config["http"]["tls"] = json!({ "certificate": certificate, "key": key });
        }
        fs::write(&configuration, config.to_string()).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&configuration)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Collector::read(child.stderr.take().unwrap());
        let mut registry = Self { child, directory, address: String::new(), options, log };
        registry.address = registry.listening();
        registry
    }

    /// Where it listens, by its log. From that line on connections are accepted.
    fn listening(&self) -> String {
        const SAYS: &str = "listening on ";
        let found = self.log.wait_for(SAYS, Instant::now() + DEADLINE)
            && self.log.wait_for("version=2", Instant::now() + DEADLINE);
        let log = self.log.text();
        assert!(found, "the registry does not listen\n{log}");
        let rest = &log[log.find(SAYS).unwrap() + SAYS.len()..];
        let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap();
        rest[..end].to_owned()
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The full name of an image of it: `127.0.0.1:PORT/NAME`.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The user and password it wants.
    #[must_use]
    pub fn login(&self) -> Option<(&str, &str)> {
        self.options.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The certificate, in PEM, of the authority that signed the registry's own: a file `ca.crt`
    /// in a directory that has nothing else, as `certs.d` has it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("authority/ca.crt")
    }

    /// The file with a blob's bytes, to be damaged or removed.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.directory.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Pushes an image as `NAME[:TAG]`; the digest of its manifest.
    pub fn push(&self, image: &Image, name: &str, format: Format) -> String {
        let layout = self.layout();
        image.write_layout(layout.path());
        match format {
            Format::Oci => self.copy(layout.path(), name, &["--preserve-digests"]),
            Format::Docker => self.copy(layout.path(), name, &["--format", "v2s2"]),
        }
    }

    /// Pushes images for several platforms as one; the digest of their index.
    pub fn push_index(&self, images: &[Image], name: &str) -> String {
        let layout = self.layout();
        Image::write_index(images, layout.path());
        self.copy(layout.path(), name, &["--all", "--preserve-digests"])
    }

    fn layout(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.directory).unwrap()
    }

    fn copy(&self, layout: &Path, name: &str, options: &[&str]) -> String {
        let digest = layout.join("digest");
        let mut command = self.skopeo("copy", "dest-");
        command.args(options).arg("--digestfile").arg(&digest);
        command.arg(format!("oci:{}:latest", layout.display()));
        run(command.arg(format!("docker://{}", self.name(name))));
        fs::read_to_string(digest).unwrap().trim().to_owned()
    }

    /// Removes a manifest.
    pub fn delete(&self, name: &str) {
        run(self.skopeo("delete", "").arg(format!("docker://{}", self.name(name))));
    }

    /// `skopeo COMMAND` with what this registry wants of it; `side` is `dest-`, `src-` or nothing.
    #[must_use]
    pub fn skopeo(&self, subcommand: &str, side: &str) -> Command {
        let mut command = Command::new("skopeo");
        // Signatures are not asked for, whatever this machine's policy is.
        command.args(["--insecure-policy", subcommand]);
        if self.options.tls {
            command.arg(format!("--{side}cert-dir")).arg(self.authority().parent().unwrap());
        } else {
            command.arg(format!("--{side}tls-verify=false"));
        }
        if let Some((user, password)) = &self.options.login {
            command.arg(format!("--{side}creds={user}:{password}"));
        }
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command:?}` failed ({})\n{messages}", output.status);
}

/// An authority, and a certificate of its for 127.0.0.1; the certificate's file and its key's.
fn write_certificates(directory: &Path) -> (PathBuf, PathBuf) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of fcvm's tests");
    let authority_key = KeyPair::generate().unwrap();
    let signed = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(["127.0.0.1", "localhost"].map(String::from)).unwrap();
    server.distinguished_name.push(DnType::CommonName, "registry of fcvm's tests");
    let server = server.signed_by(&key, &issuer).unwrap();
    let [certificate_file, key_file] = ["server.crt", "server.key"].map(|name| directory.join(name));
    fs::create_dir(directory.join("authority")).unwrap();
    fs::write(directory.join("authority/ca.crt"), signed.pem()).unwrap();
    fs::write(&certificate_file, server.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    (certificate_file, key_file)
}

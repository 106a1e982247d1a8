//! Snapshots of a tiny guest in a real Firecracker, and clones of them.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use fcvm_testkit::{Firecracker, FirecrackerEnv};

/// Where a clone's memory comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend<'a> {
    File,
    Uffd(&'a Path),
}

/// A snapshot of a guest that has written its pattern.
pub(crate) struct Snapshot {
    pub(crate) env: FirecrackerEnv,
    pub(crate) memory: PathBuf,
    state: PathBuf,
}

impl Snapshot {
    /// Nothing, with a word why, where no Firecracker runs.
    pub(crate) fn take(memory_mib: u32) -> Option<Self> {
        let env = FirecrackerEnv::with_guest()?;
        let (memory, state) = (env.path("memory"), env.path("state"));
        let mut vm = env.start();
        put(&vm, "/machine-config", &format!(r#"{{"vcpu_count":1,"mem_size_mib":{memory_mib}}}"#));
        put(&vm, "/boot-source", &format!(r#"{{"kernel_image_path":"{}"}}"#, env.guest().display()));
        put(&vm, "/actions", r#"{"action_type":"InstanceStart"}"#);
        assert_eq!(vm.line(), "TINY BOOT");
        assert!(vm.line().starts_with("init "));
        assert!(vm.ask("w").starts_with("write pages=2000 "));
        request(&vm, "PATCH", "/vm", r#"{"state":"Paused"}"#);
        let body = format!(
            r#"{{"snapshot_type":"Full","snapshot_path":"{}","mem_file_path":"{}"}}"#,
            state.display(),
            memory.display()
        );
        put(&vm, "/snapshot/create", &body);
        vm.kill();
        Some(Self { env, memory, state })
    }

    /// A clone that runs.
    pub(crate) fn clone_by(&self, backend: Backend<'_>) -> Firecracker {
        let vm = self.env.start();
        let (kind, path) = match backend {
            Backend::File => ("File", self.memory.as_path()),
            Backend::Uffd(socket) => ("Uffd", socket),
        };
        let body = format!(
            r#"{{"snapshot_path":"{}","mem_backend":{{"backend_type":"{kind}","backend_path":"{}"}},"resume_vm":true}}"#,
            self.state.display(),
            path.display()
        );
        put(&vm, "/snapshot/load", &body);
        vm
    }
}

fn put(vm: &Firecracker, path: &str, body: &str) {
    request(vm, "PUT", path, body);
}

fn request(vm: &Firecracker, method: &str, path: &str, body: &str) {
    let mut stream = UnixStream::connect(vm.socket()).unwrap();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: vm\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.starts_with("HTTP/1.1 204 "), "{method} {path}: {answer}");
}

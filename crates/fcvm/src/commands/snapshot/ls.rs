//! `fcvm snapshot ls`.

use std::{collections::BTreeMap, process::ExitCode};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::snapshot::Ls,
    output::{Printer, ago, table},
    snapshot::{Contents, Engine, Listed, SnapshotTag, Store},
    state::{HealthStatus, Registry, RuntimeDir},
    storage::DataDir,
};

/// Digits of an id that people are shown.
const SHORT: usize = 12;

/// A line of `fcvm snapshot ls --json`; of a damaged snapshot only what is known without it.
#[derive(Debug, Serialize)]
struct Line {
    tag: SnapshotTag,
    id: Option<String>,
    created: Option<Timestamp>,
    contents: Option<Contents>,
    /// As the user wrote it.
    image: Option<String>,
    hypervisor: Option<Engine>,
    /// Of the host's disk, in bytes.
    size: u64,
    /// How many live VMs came from it.
    clones: usize,
    /// Who serves it.
    servers: Vec<ServerLine>,
    /// Why it cannot be used, where it cannot be understood.
    error: Option<String>,
}

/// A process of `fcvm snapshot serve`.
#[derive(Debug, Clone, Serialize)]
struct ServerLine {
    pid: i32,
    health: HealthStatus,
    /// How many live VMs are with it.
    clones: usize,
}

pub(super) fn run(args: &Ls, store: &Store, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let all = store.list()?;
    if args.quiet {
        for Listed { tag, .. } in all {
            printer.data(tag)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let clones = store.all_clones();
    let clones = |tag: &SnapshotTag| clones.get(tag.as_str()).map_or(0, Vec::len);
    let servers = servers(&Registry::new(data, RuntimeDir::from_env()))?;
    let servers = |tag: &SnapshotTag| servers.get(tag.as_str()).cloned().unwrap_or_default();
    let lines: Vec<_> = all
        .into_iter()
        .map(|listed| Line { servers: servers(&listed.tag), ..line(clones(&listed.tag), listed) })
        .collect();
    if args.json {
        printer.data(serde_json::to_string_pretty(&lines)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Line { tag, error, .. } in &lines {
        if let Some(error) = error {
            printer.warn(format_args!("snapshot `{tag}` cannot be used: {error}"));
        }
    }
    let now = Timestamp::now();
    let rows: Vec<_> = lines.iter().map(|line| row(line, now)).collect();
    let heading = ["TAG", "ID", "CREATED", "CONTENTS", "IMAGE", "HYPERVISOR", "SIZE", "CLONES", "SERVERS"];
    printer.data(table(heading, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// The processes that serve each snapshot.
fn servers(registry: &Registry) -> anyhow::Result<BTreeMap<String, Vec<ServerLine>>> {
    let vms = registry.list()?;
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for server in registry.servers()? {
        let pid = server.owner.pid;
        let clones = vms.iter().filter(|vm| vm.serve_pid == Some(pid)).count();
        let line = ServerLine { pid, health: server.health_status, clones };
        all.entry(server.snapshot_name.unwrap_or_default()).or_default().push(line);
    }
    Ok(all)
}

fn line(clones: usize, Listed { tag, manifest, allocated }: Listed) -> Line {
    let (manifest, error) = match manifest {
        Ok(manifest) => (Some(manifest), None),
        Err(error) => (None, Some(crate::output::sanitize(&format!("{:#}", anyhow::Error::from(error))))),
    };
    let mut line = Line {
        tag,
        id: None,
        created: None,
        contents: None,
        image: None,
        hypervisor: None,
        size: allocated,
        clones,
        servers: Vec::new(),
        error,
    };
    if let Some(manifest) = manifest {
        line.id = Some(manifest.id);
        line.created = Some(manifest.created);
        line.contents = Some(manifest.contents);
        line.image = Some(manifest.image.reference);
        line.hypervisor = Some(manifest.hypervisor);
    }
    line
}

fn row(line: &Line, now: Timestamp) -> [String; 9] {
    let none = || "-".to_owned();
    let contents = match line.contents {
        Some(Contents::Machine) => "machine",
        Some(Contents::Disk) => "disk",
        None => "unusable",
    };
    [
        line.tag.to_string(),
        line.id.as_ref().map_or_else(none, |id| id.chars().take(SHORT).collect()),
        line.created.map_or_else(none, |created| ago(now, created)),
        contents.to_owned(),
        line.image.clone().unwrap_or_else(none),
        line.hypervisor.as_ref().map_or_else(none, Engine::title),
        ByteSize(line.size).display().si().to_string(),
        line.clones.to_string(),
        line.servers.iter().map(|server| server.pid.to_string()).collect::<Vec<_>>().join(","),
    ]
}

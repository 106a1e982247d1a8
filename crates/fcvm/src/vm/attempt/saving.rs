//! Snapshots of a machine that runs, made by its owner.
//!
//! ```text
//!  ahead      memory is written while all goes on
//!  Freeze     the guest's scratch file system is synced; whoever writes to it, or uses a volume, waits
//!  copy       of the disk, which does not change; of what the volumes' servers know
//!  save       the machine stands still: devices, and what of the memory has changed
//!  resume     it runs; where its connections broke, in another session
//!  Thaw       whoever wrote goes on
//!  commit     files are read once more and get their name, while all goes on
//! ```
//! Whatever fails, the machine runs on, its disk is thawed, and nothing is left of the snapshot.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fcvm_proto::{PROTOCOL, ToGuest, session::SessionId};
use jiff::Timestamp;
use rustix::{
    fs::{Mode, OFlags, fchmod, fchown, open},
    process::{getegid, geteuid},
};
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::Attempt;
use crate::{
    exit,
    hypervisor::{HypervisorError, Pages},
    setup::Assets,
    snapshot::{
        Asset, ContainerRecord, Contents, Cpu, FORMAT, ImageRecord, MEMORY, MachineRecord, Manifest, Origin,
        Partial, SCRATCH, STATE, SnapshotError, SnapshotTag, Store,
    },
    storage::cow,
    vm::{
        VmError,
        control::{Reply, Saved, Wanted},
        guest::Guest,
        run::{Keep, random},
    },
    volume::{Map, VolumeError, state_file},
};

/// How long the server of a volume may take to write what it knows: it has it in memory.
const SERVER: Duration = Duration::from_secs(20);
/// How long a guest may take to write its disk's changes, of one that is not emulated.
const FREEZE: Duration = Duration::from_secs(20);
/// The same, to answer in a session after the one that broke.
const RECONNECT: Duration = Duration::from_secs(10);

/// There is no snapshot.
#[derive(Debug, thiserror::Error)]
enum SavingError {
    #[error("its container does not run")]
    NotRunning,
    #[error("the guest cannot freeze its disk: {why}")]
    NotFrozen { why: String },
    #[error("the guest did not freeze its disk within {seconds} s")]
    Slow { seconds: u64 },
    #[error("its container ended meanwhile")]
    Ended,
    #[error(
        "its memory lies in huge pages, which only a page server fills: make a snapshot of it with \
         `fcvm snapshot create`, and start clones from `fcvm snapshot serve`"
    )]
    Served,
    #[error("failed to move `{path}` into the snapshot")]
    Move { path: PathBuf, source: io::Error },
    #[error("failed to look at `{path}`")]
    Asset { path: PathBuf, source: io::Error },
    #[error("the host does not tell its processor")]
    Cpu(#[source] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Vm(#[from] VmError),
}

impl SavingError {
    /// What it is, so that it can be told what to do about it.
    fn itself(self) -> anyhow::Error {
        match self {
            Self::Snapshot(error) => error.into(),
            Self::Hypervisor(error) => error.into(),
            Self::Volume(error) => error.into(),
            Self::Vm(error) => error.into(),
            error => error.into(),
        }
    }
}

fn not_saved(error: &anyhow::Error) -> Reply {
    Reply::NotSaved { reason: format!("{error:#}"), hint: exit::hint(error) }
}

/// A snapshot that only lacks its name.
struct Written {
    partial: Partial,
    manifest: Manifest,
    times: Saved,
}

impl Attempt<'_> {
    /// Makes a snapshot; who asked hears of it once it has its name.
    ///
    /// # Errors
    /// Where the machine is lost on the way, or the link to it.
    pub(super) async fn snapshot(
        &mut self,
        wanted: Wanted,
        reply: oneshot::Sender<Reply>,
        guest: &mut Guest,
    ) -> Result<(), VmError> {
        let begun = Instant::now();
        let store = Store::open(self.claim.data());
        let written = self.write(&store, &wanted, guest).await;
        self.clear();
        let Written { partial, manifest, mut times } = match written {
            Ok(written) => written,
            Err(error) => {
                let error = match self.lost(error).await {
                    Ok(lost) => anyhow::Error::from(lost),
                    Err(error) => error.itself(),
                };
                tracing::debug!(tag = %wanted.tag, error = format!("{error:#}"), "no snapshot");
                // Who asked may be gone.
                drop(reply.send(not_saved(&error)));
                return error.downcast::<VmError>().map_or(Ok(()), Err);
            }
        };
        self.writing.spawn(async move {
            let abandoned = reply.is_closed();
            let named = spawn_blocking(move || {
                // Nobody waits for it any more: it is not to be there.
                if abandoned { Ok(()) } else { partial.commit(manifest).map(drop) }
            });
            let answer = match named.await {
                Ok(Ok(())) => {
                    times.all = begun.elapsed();
                    tracing::debug!(?times, "snapshot");
                    Reply::Saved(times)
                }
                Ok(Err(error)) => not_saved(&error.into()),
                Err(error) => not_saved(&error.into()),
            };
            drop(reply.send(answer));
        });
        Ok(())
    }

    /// How the machine was lost, where that is why there is no snapshot.
    async fn lost(&mut self, error: SavingError) -> Result<VmError, SavingError> {
        match error {
            SavingError::Vm(error) => Ok(self.settle(error).await),
            SavingError::Hypervisor(error) if error.may_be_its_end() => Ok(self.settle(error.into()).await),
            error => Err(error),
        }
    }

    /// Saves the machine for others to go on from.
    ///
    /// # Errors
    /// Where there is no snapshot of it.
    pub(super) async fn keep(&mut self, keep: &Keep, guest: &mut Guest) -> Result<(), VmError> {
        let wanted = Wanted { tag: keep.tag.clone(), contents: Contents::Machine, base: None, unnamed: None };
        let written = self.write(&keep.store, &wanted, guest).await;
        self.clear();
        let named = match written {
            Ok(Written { partial, manifest, .. }) => spawn_blocking(move || partial.commit(manifest))
                .await
                .map_err(|error| VmError::NotSaved { source: error.into() })?
                .map_err(SavingError::from),
            Err(error) => Err(error),
        };
        named.map(drop).map_err(|error| VmError::NotSaved { source: error.into() })
    }

    async fn write(
        &mut self,
        store: &Store,
        wanted: &Wanted,
        guest: &mut Guest,
    ) -> Result<Written, SavingError> {
        let &Wanted { ref tag, contents, ref base, ref unnamed } = wanted;
        if !self.started && self.plan.keep.is_none() {
            return Err(SavingError::NotRunning);
        }
        if unnamed.is_some() && self.plan.machine.pages == Pages::Huge {
            return Err(SavingError::Served);
        }
        self.clear();
        let manifest = self.manifest(tag, contents)?;
        let mut partial = match unnamed {
            Some(name) => store.begin_unnamed(name, tag)?,
            None => store.begin(tag)?,
        };
        if let Some(base) = base {
            partial.share(store.get(base)?)?;
        }
        if contents == Contents::Machine {
            self.save.ahead().await?;
            crate::failpoint::reach("saved-ahead");
        }
        let frozen = Instant::now();
        let patience = FREEZE * self.hypervisor.capabilities().slowness;
        let answered = timeout(patience, guest.frozen()).await;
        let copied = match answered {
            Ok(answer) => match answer? {
                Ok(()) => self.copy(&partial, contents).await,
                Err(why) => Err(SavingError::NotFrozen { why }),
            },
            Err(_) => Err(SavingError::Slow { seconds: patience.as_secs() }),
        };
        let paused = match copied {
            Ok(()) if contents == Contents::Machine => {
                let paused = self.stand_still().await;
                self.go_on(guest).await?;
                paused
            }
            copied => copied.map(|()| Duration::ZERO),
        };
        // Also where it is not known to be frozen.
        guest.order(ToGuest::Thaw);
        let times = Saved { frozen: frozen.elapsed(), paused: paused?, all: Duration::ZERO };
        crate::failpoint::reach("thawed");
        // What would go on from it would end at once.
        if guest.has_ended() {
            return Err(SavingError::Ended);
        }
        for name in contents.files().iter().filter(|name| **name != SCRATCH) {
            let path = self.save_dir.join(name);
            let moved = fs::rename(&path, partial.path(name)).and_then(|()| own(&partial.path(name)));
            moved.map_err(|source| SavingError::Move { path, source })?;
        }
        Ok(Written { partial, manifest, times })
    }

    /// Of a guest whose disk is frozen, and that leaves its volumes alone: what is beside the machine.
    async fn copy(&self, partial: &Partial, contents: Contents) -> Result<(), SavingError> {
        crate::failpoint::reach("frozen");
        let (from, to) = (self.claim.directory().join(SCRATCH), partial.path(SCRATCH));
        let path = to.clone();
        let copied = spawn_blocking(move || cow::copy(&from, &to)).await;
        copied.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|source| SnapshotError::Io {
            action: "copy the scratch disk to",
            path,
            source,
        })?;
        crate::failpoint::reach("disk-copied");
        if contents == Contents::Disk {
            return Ok(());
        }
        for (number, server) in self.volumes.servers.iter().enumerate() {
            let path = partial.path(&state_file(number));
            let file = File::create_new(&path);
            let file = file.map_err(|source| SnapshotError::Io { action: "make", path, source })?;
            server.save(file, SERVER).await?;
        }
        Ok(())
    }

    /// Saves the machine itself: how long it stood still.
    async fn stand_still(&self) -> Result<Duration, SavingError> {
        let paused = Instant::now();
        let saved = self.save.save().await;
        // At once: what is left to do it need not wait for.
        self.save.resume().await?;
        let paused = paused.elapsed();
        saved?;
        crate::failpoint::reach("resumed");
        Ok(paused)
    }

    /// After the machine was to be saved, whether it was or not: it runs, and the link to it stands.
    async fn go_on(&mut self, guest: &mut Guest) -> Result<(), VmError> {
        self.save.resume().await?;
        if !self.save.breaks_connections() {
            return Ok(());
        }
        let key = self.link_key;
        let restore = ToGuest::Restore(Box::new(self.restore()?));
        let link = self.hypervisor.reconnect(self.claim.runtime_dir());
        let connect = async {
            let mut next = Guest::connect(link.pipe().await?, key, SessionId(random()?), restore).await?;
            next.restored().await?;
            Ok::<_, VmError>(next)
        };
        let patience = RECONNECT * self.hypervisor.capabilities().slowness;
        let lost = |_| VmError::Violation { what: "it did not answer after it was saved".into() };
        guest.follow(timeout(patience, connect).await.map_err(lost)??);
        let beside = || self.hypervisor.stream(self.claim.runtime_dir());
        self.ways = self.volumes.connect(&guest.opener(), beside).await?;
        crate::failpoint::reach("reconnected");
        Ok(())
    }

    /// Removes what a snapshot before has left, or this one.
    fn clear(&self) {
        for name in [STATE, MEMORY] {
            match fs::remove_file(self.save_dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, name, "a file of a snapshot is left behind");
                }
                _ => {}
            }
        }
    }

    fn manifest(&self, tag: &SnapshotTag, contents: Contents) -> Result<Manifest, SavingError> {
        let state = self.claim.state();
        let Some(digest) = state.image_digest else { return Err(SavingError::NotRunning) };
        let own_name = self.plan.hostname == state.id.short();
        Ok(Manifest {
            format: FORMAT,
            id: hex::encode(random::<16>()?),
            tag: tag.clone(),
            created: Timestamp::now(),
            contents,
            origin: Origin {
                vm: state.id.clone(),
                name: state.name.clone(),
                snapshot: self.plan.origin.as_ref().map(|origin| origin.id.clone()),
            },
            hypervisor: self.hypervisor.engine(self.claim.data())?,
            cpu: Cpu::of_this_host().map_err(SavingError::Cpu)?,
            protocol: PROTOCOL,
            link_key: self.link_key.to_hex(),
            machine: self.machine_record()?,
            container: ContainerRecord {
                command: state.command.clone(),
                program: self.plan.program().cloned(),
                labels: state.labels.clone(),
                mounts: state.mounts.clone(),
                hostname: (!own_name).then(|| self.plan.hostname.clone()),
                stop_signal: self.plan.stop_signal.number(),
                interactive: self.plan.takes_input(),
                terminal: self.plan.has_terminal(),
                health: self.plan.health.clone(),
            },
            volumes: self.plan.maps.iter().map(Map::record).collect::<Result<_, _>>()?,
            image: ImageRecord { reference: state.image.clone(), digest },
            network: state.network.clone(),
            ports: state.ports.clone(),
            files: std::collections::BTreeMap::new(),
            base: None,
        })
    }

    fn machine_record(&self) -> Result<MachineRecord, SavingError> {
        let Assets { kernel, kernel_digest, initrd, agent_digest, base, base_digest, .. } = &self.plan.assets;
        let root = self.claim.data().root();
        let asset = |path: &Path, sha256| {
            let path = fs::canonicalize(path)
                .map_err(|source| SavingError::Asset { path: path.to_owned(), source })?;
            let path = path.strip_prefix(root).map_or_else(|_| path.clone(), Path::to_owned);
            Ok::<_, SavingError>(Asset { path, sha256 })
        };
        Ok(MachineRecord {
            cpus: self.cpus,
            memory_mib: self.plan.memory_mib,
            kernel_arguments: self.plan.kernel_arguments.clone(),
            huge_pages: self.plan.machine.pages == Pages::Huge,
            jail: self.plan.machine.jail.clone(),
            kernel: asset(kernel, *kernel_digest)?,
            initrd: asset(initrd, *agent_digest)?,
            base: asset(base, *base_digest)?,
            interfaces: self.network.interfaces.clone(),
        })
    }
}

/// Takes a file that a hypervisor has written, which is not trusted: where it is another thing than a file, what
/// it leads to is left alone.
fn own(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what the hypervisor has written is no file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        fchown(file.as_fd(), Some(geteuid()), Some(getegid()))?;
    }
    Ok(fchmod(file.as_fd(), Mode::RUSR | Mode::WUSR)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_a_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "x").unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink(path("file"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        for other in ["link", "directory", "fifo", "nothing"] {
            assert!(own(&path(other)).is_err(), "{other}");
        }
        let mode = || fs::metadata(path("file")).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        own(&path("file")).unwrap();
        assert_eq!(mode(), 0o600);
    }
}

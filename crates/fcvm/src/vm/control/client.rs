//! The asking end.

use std::{io, path::PathBuf};

use fcvm_link::channel::{ChannelError, Receiver, Sender};
use fcvm_proto::Port;
use tokio::net::UnixStream;

use super::{Reply, Request, SOCKET, Saved, Wanted};
use crate::{
    output::sanitize,
    process::SignalNumber,
    state::{Registry, Status, VmName, VmState},
};

/// A connection to a VM's owner, for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    name: VmName,
}

/// A VM's owner could not be reached or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The VM has exited.
    #[error("VM `{name}` does not run")]
    NotRunning {
        /// Its name.
        name: VmName,
    },
    /// The VM boots.
    #[error("VM `{name}` is not ready yet: it is {status}")]
    NotReady {
        /// Its name.
        name: VmName,
        /// What it does.
        status: Status,
    },
    /// The socket is there, and nobody to connect to.
    #[error("failed to connect to VM `{name}` at `{path}`")]
    Connect {
        /// Its name.
        name: VmName,
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The owner ended, or closed the connection.
    #[error("VM `{name}` ended before it answered")]
    Gone {
        /// Its name.
        name: VmName,
    },
    /// The conversation broke.
    #[error("the connection to VM `{name}` broke")]
    Broken {
        /// Its name.
        name: VmName,
        /// Why.
        #[source]
        source: ChannelError,
    },
    /// The owner could not make a snapshot.
    #[error("there is no snapshot of VM `{name}`: {reason}")]
    NotSaved {
        /// Its name.
        name: VmName,
        /// The owner's words, cleaned.
        reason: String,
        /// The owner's advice, cleaned.
        hint: Option<String>,
    },
    /// The owner refused.
    #[error("VM `{name}` refused: {reason}")]
    Refused {
        /// Its name.
        name: VmName,
        /// Its words, cleaned.
        reason: String,
    },
}

impl ControlError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some("`fcvm ls` lists the VMs that run".into()),
            Self::NotReady { name, .. } => {
                Some(format!("`fcvm wait --condition running {name}` waits for its container"))
            }
            Self::NotSaved { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

impl Client {
    /// Connects to the owner of a VM.
    ///
    /// # Errors
    /// Where the VM does not run, or not yet.
    pub async fn connect(vm: &VmState, registry: &Registry) -> Result<Self, ControlError> {
        let name = vm.name.clone();
        let path = registry.runtime_dir(&vm.id).join(SOCKET);
        match UnixStream::connect(&path).await {
            // Who listens there lives; only where nobody does is it looked up.
            Ok(stream) => Ok(Self { stream, name }),
            Err(_) if !vm.is_alive() => Err(ControlError::NotRunning { name }),
            // Listens only between `Hello` and the end; what a killed owner left is refused while
            // the rest of it ends.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(match registry.get(&vm.id).map(|vm| vm.status) {
                    Some(status @ (Status::Created | Status::Starting)) => {
                        ControlError::NotReady { name, status }
                    }
                    _ => ControlError::NotRunning { name },
                })
            }
            Err(source) => Err(ControlError::Connect { name, path, source }),
        }
    }

    /// Sends the container's first process a signal.
    ///
    /// # Errors
    /// Where the owner refuses or ends.
    pub async fn signal(mut self, signal: SignalNumber) -> Result<(), ControlError> {
        self.done(Request::Signal(signal.number())).await
    }

    /// Ends the machine, whatever its container does. Does not wait for it.
    ///
    /// # Errors
    /// Where the owner refuses or ends.
    pub async fn end(mut self) -> Result<(), ControlError> {
        self.done(Request::End).await
    }

    /// Asks the container to end, and has it killed after so many seconds. Does not wait for it.
    ///
    /// # Errors
    /// Where the owner refuses or ends.
    pub async fn stop(mut self, seconds: u32) -> Result<(), ControlError> {
        self.done(Request::Stop { seconds }).await
    }

    /// Asks the container to end, has it killed after so many seconds, and waits until it runs again.
    ///
    /// # Errors
    /// Where the owner refuses or ends.
    pub async fn restart(mut self, seconds: u32) -> Result<(), ControlError> {
        self.done(Request::Restart { seconds }).await
    }

    /// Gives the VM another name.
    ///
    /// # Errors
    /// Where it is taken, or the owner ends.
    pub async fn rename(mut self, name: &VmName) -> Result<(), ControlError> {
        self.done(Request::Rename(name.to_string())).await
    }

    /// A stream to a port of the guest.
    ///
    /// # Errors
    /// Where the owner refuses or ends.
    pub async fn stream(mut self, port: Port) -> Result<UnixStream, ControlError> {
        self.done(Request::Stream(port.number())).await?;
        Ok(self.stream)
    }

    /// Waits for the container's end; its status.
    ///
    /// # Errors
    /// Where the VM ends without a status.
    pub async fn wait(mut self) -> Result<u8, ControlError> {
        match self.ask(Request::Wait).await? {
            Reply::Ended(status) => Ok(status),
            Reply::Refused(reason) => Err(self.refused(&reason)),
            _ => Err(ControlError::Gone { name: self.name }),
        }
    }

    /// Has a snapshot made, and waits for it.
    ///
    /// # Errors
    /// Where the owner cannot make it, or ends.
    pub async fn snapshot(mut self, wanted: Wanted) -> Result<Saved, ControlError> {
        match self.ask(Request::Snapshot(wanted)).await? {
            Reply::Saved(saved) => Ok(saved),
            Reply::NotSaved { reason, hint } => Err(ControlError::NotSaved {
                name: self.name,
                reason: sanitize(&reason),
                hint: hint.as_deref().map(sanitize),
            }),
            Reply::Refused(reason) => Err(self.refused(&reason)),
            Reply::Done | Reply::Ended(_) => Err(ControlError::Gone { name: self.name }),
        }
    }

    async fn done(&mut self, request: Request) -> Result<(), ControlError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            Reply::Refused(reason) => Err(self.refused(&reason)),
            _ => Err(ControlError::Gone { name: self.name.clone() }),
        }
    }

    fn refused(&self, reason: &str) -> ControlError {
        ControlError::Refused { name: self.name.clone(), reason: sanitize(reason) }
    }

    async fn ask(&mut self, request: Request) -> Result<Reply, ControlError> {
        let name = self.name.clone();
        let broken = |source| match source {
            // What a connection ends with whose other end was killed.
            ChannelError::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                ) =>
            {
                ControlError::Gone { name: name.clone() }
            }
            source => ControlError::Broken { name: name.clone(), source },
        };
        Sender::new(&mut self.stream).send(&request).await.map_err(broken)?;
        let reply = Receiver::new(&mut self.stream).receive().await.map_err(broken)?;
        reply.ok_or_else(|| ControlError::Gone { name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[tokio::test]
    async fn an_owner_that_does_not_listen_is_one_of_a_vm_that_starts_or_ends() {
        let root = tempfile::tempdir().unwrap();
        let registry = testing::registry(root.path());
        let mut claim = registry.claim(testing::vm(None)).unwrap();
        let path = registry.runtime_dir(&claim.state().id).join(SOCKET);
        for left_by_an_owner in [false, true] {
            if left_by_an_owner {
                drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            }
            for status in [Status::Created, Status::Starting, Status::Running] {
                claim.update(|vm| vm.status = status).unwrap();
                let refused = Client::connect(claim.state(), &registry).await.unwrap_err();
                match status {
                    Status::Running => assert!(matches!(refused, ControlError::NotRunning { .. })),
                    _ => assert!(
                        matches!(refused, ControlError::NotReady { status: seen, .. } if seen == status)
                    ),
                }
            }
        }
    }
}

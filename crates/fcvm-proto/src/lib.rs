//! What the host (`fcvm`) and the guest (`fc-agent`) say to each other.
//!
//! Pure data: no I/O, no async. A stream between the two carries *frames*
//! ([`frame`]): a length and a postcard-encoded message. Which messages travel
//! on a stream follows from its [`Port`]: the control port speaks [`ToGuest`]
//! and [`ToHost`]; the container's input and outputs go by [`relay`]; more commands have the
//! [`exec`] ports.
//!
//! The first message on the control port is the agent's [`Hello`]. The host
//! answers with [`ToGuest::Start`] and its [`BootPlan`], or with [`ToGuest::Restore`] where the guest
//! goes on from a snapshot ([`restore`]).
//!
//! Wire bytes are frozen by tests: whoever breaks one bumps [`PROTOCOL`].

pub mod boot;
pub mod control;
pub mod exec;
pub mod frame;
pub mod port;
pub mod relay;
pub mod restore;
pub mod session;
pub mod tcp;
pub mod transport;
pub mod volume;

pub use boot::{Address, BootPlan, Container, Identity, Interface, Job, Network, Route};
pub use control::{Failure, FailureKind, Hello, LogLevel, LogRecord, Outcome, Stage, ToGuest, ToHost};
pub use exec::{ExecEvent, ExecOrder, ExecRequest, ExecTarget, TerminalSize};
pub use frame::{FrameError, MAX_FRAME};
pub use port::Port;
pub use restore::{Program, Restore};
pub use tcp::{TcpReply, TcpRequest};
pub use transport::Transport;
pub use volume::{Lane, Volume, VolumeKind};

/// Version of the protocol this build speaks. Raised by every change of the
/// wire; the host refuses an agent of another version.
pub const PROTOCOL: u16 = 10;

/// Where the guest has the id by which its Podman knows the container: on the scratch disk, as the container is.
pub const CONTAINER_ID: &str = "/var/lib/containers/fcvm-container.id";

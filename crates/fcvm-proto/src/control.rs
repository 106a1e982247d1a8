//! Messages of the control port.

use serde::{Deserialize, Serialize};

use crate::{BootPlan, Program, Restore, TerminalSize};

/// The agent's first message in every session. Its leading fields never change
/// their place, so that any two versions can tell each other apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's [`PROTOCOL`](crate::PROTOCOL).
    pub protocol: u16,
    /// The agent's build: `VERSION`.
    pub build: String,
    /// The kernel's boot id: a UUID, new at every boot.
    pub boot_id: String,
    /// Id of the session this is said in.
    pub session: [u8; 16],
    /// The guest kernel's release.
    pub kernel: String,
    /// Nanoseconds from the kernel's start to the agent's.
    pub agent_started: u64,
    /// Nanoseconds from the kernel's start to this message.
    pub said: u64,
}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Answers `Hello`; once per boot.
    Start(Box<BootPlan>),
    /// A signal for the container's first process, by its Linux number.
    Signal(i32),
    /// Nobody reads the output of this port any more: the container's writes to it fail from now on.
    OutputClosed(u32),
    /// The host's terminal has another size, and the container's is to have it.
    Resize(TerminalSize),
    /// Sync the disks and power off.
    PowerOff,
    /// After `Ended`: the same container once more, with streams that the host opens anew; that of
    /// its input stays.
    Restart,
    /// To be answered with the same number.
    Ping(u64),
    /// Sync the scratch file system and let nothing change it until `Thaw`. Answered by `Frozen` with the
    /// same number, which no other one has: an answer may come after the host has lost patience.
    Freeze(u64),
    /// It may be changed again.
    Thaw,
    /// Answers the `Hello` of a guest that goes on from a snapshot. Answered by `Restored`.
    Restore(Box<Restore>),
    /// After `Restore`, to a guest whose container waits: what it is to run. All that follows is as
    /// after `Start`.
    Run(Box<Program>),
}

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// A line of the agent's log.
    Log(LogRecord),
    /// A stage was reached: when, in nanoseconds since the kernel's start.
    Reached(Stage, u64),
    /// The job ended; output streams are at their end. Nothing but answers follows, until a
    /// `Restart`.
    Ended(Outcome),
    /// The answer to `Ping`.
    Pong(u64),
    /// The answer to the `Freeze` of that number: why it is not frozen, where it is not.
    Frozen(u64, Option<String>),
    /// The answer to `Restore`: why the guest is not what it was told to be, where it is not.
    Restored(Option<String>),
}

/// Milestones of a guest's life, for `--timings` and for state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The guest is prepared and Podman is about to be started.
    Prepared,
    /// The container's process runs (or has already ended).
    ContainerStarted,
    /// The container's process ended.
    ContainerEnded,
    /// The container waits for its program: see [`Job::Prepare`](crate::Job::Prepare).
    Waits,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Podman ended with this status, 0 to 255.
    Status(u8),
    /// The agent could not do the job.
    Failed(Failure),
}

/// Why the agent could not do its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened: causes joined by `: `.
    pub message: String,
}

/// Kinds of failures that the host explains differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// A disk cannot be mounted: damaged, or not what it should be.
    Disk,
    /// The base disk lacks a program.
    Base,
    /// Anything else.
    Other,
    /// The container does not run, yet or any more.
    NotRunning,
    /// A command is not there.
    NotFound,
    /// A command cannot be executed.
    NotExecutable,
    /// A volume cannot be mounted.
    Volume,
    /// The container that waits cannot be what it is told to be: another one, made for it, could.
    NotPrepared,
}

/// A line of the agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// How important it is.
    pub level: LogLevel,
    /// Text with fields, untrusted.
    pub message: String,
}

/// Levels of [`LogRecord`], most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// What was asked did not happen.
    Error,
    /// Odd, going on.
    Warn,
    /// Rare and useful.
    Info,
    /// For the developers of fcvm.
    Debug,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, Container, Identity, Interface, Job, Network, Route, frame};

    /// These bytes are the protocol. If this fails you changed the wire
    /// format: raise `PROTOCOL`.
    #[test]
    fn hello_bytes_are_frozen() {
        let hello = Hello {
            protocol: 1,
            build: "x".into(),
            boot_id: "b".into(),
            session: [9; 16],
            kernel: "6".into(),
            agent_started: 1,
            said: 2,
        };
        let mut expected = vec![25, 0, 0, 0, 1, 1, b'x', 1, b'b'];
        expected.extend([9; 16]);
        expected.extend([1, b'6', 1, 2]);
        assert_eq!(frame::encode(&hello).unwrap(), expected);
    }

    /// See above.
    #[test]
    fn control_bytes_are_frozen() {
        let plan = BootPlan {
            identity: Identity { id: "i".into(), name: "n".into(), hostname: "h".into() },
            time_unix_nanos: 3,
            entropy: vec![4],
            network: Network {
                hosts: vec![("a".into(), "b".into())],
                dns: vec!["d".into()],
                search: vec!["s".into()],
                dns_options: vec!["o".into()],
                interfaces: vec![Interface {
                    mac: [1, 2, 3, 4, 5, 6],
                    mtu: Some(9),
                    addresses: vec![Address { address: [7, 8, 9, 10].into(), prefix: 30 }],
                    routes: vec![
                        Route { destination: [0, 0, 0, 0].into(), prefix: 0, gateway: Some([5; 16].into()) },
                        Route { destination: [11; 4].into(), prefix: 32, gateway: None },
                    ],
                }],
            },
            volumes: Vec::new(),
            job: Job::Container(Box::new(Container { image: "m".into(), ..Container::default() })),
        };
        assert_eq!(
            frame::encode(&ToGuest::Start(Box::new(plan))).unwrap(),
            [
                95, 0, 0, 0, // length
                0, 1, b'i', 1, b'n', 1, b'h', 3, 1, 4, 1, 1, b'a', 1, b'b', 1, 1, b'd', // plan
                1, 1, b's', 1, 1, b'o', // its resolver
                1, 1, 2, 3, 4, 5, 6, 1, 9, 1, 0, 7, 8, 9, 10, 30, // its interface
                2, 0, 0, 0, 0, 0, 0, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, // its routes
                0, 11, 11, 11, 11, 32, 0, // the other
                0, // volumes
                0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // container
            ]
        );
        let orders: [(ToGuest, &[u8]); 8] = [
            (ToGuest::Signal(1), &[1, 2]),
            (ToGuest::OutputClosed(3), &[2, 3]),
            (ToGuest::Resize(TerminalSize { rows: 1, columns: 2 }), &[3, 1, 2]),
            (ToGuest::PowerOff, &[4]),
            (ToGuest::Restart, &[5]),
            (ToGuest::Ping(6), &[6, 6]),
            (ToGuest::Freeze(200), &[7, 200, 1]),
            (ToGuest::Thaw, &[8]),
        ];
        for (message, body) in orders {
            assert_eq!(frame::encode(&message).unwrap()[frame::HEADER..], *body);
        }
        let cases: [(ToHost, &[u8]); 7] = [
            (ToHost::Log(LogRecord { level: LogLevel::Warn, message: "w".into() }), &[0, 1, 1, b'w']),
            (ToHost::Reached(Stage::ContainerEnded, 5), &[1, 2, 5]),
            (ToHost::Ended(Outcome::Status(7)), &[2, 0, 7]),
            (
                ToHost::Ended(Outcome::Failed(Failure { kind: FailureKind::Disk, message: "f".into() })),
                &[2, 1, 0, 1, b'f'],
            ),
            (ToHost::Pong(4), &[3, 4]),
            (ToHost::Frozen(5, None), &[4, 5, 0]),
            (ToHost::Restored(Some("r".into())), &[5, 1, 1, b'r']),
        ];
        for (message, body) in cases {
            assert_eq!(frame::encode(&message).unwrap()[frame::HEADER..], *body);
        }
        let restore = Restore {
            epoch: [9; 16],
            identity: Identity { id: "i".into(), name: "n".into(), hostname: "h".into() },
            time_unix_nanos: 3,
            entropy: vec![4],
            network: Network::default(),
        };
        let mut expected = vec![9];
        expected.extend([9; 16]);
        expected.extend([1, b'i', 1, b'n', 1, b'h', 3, 1, 4, 0, 0, 0, 0, 0]);
        assert_eq!(frame::encode(&ToGuest::Restore(Box::new(restore))).unwrap()[frame::HEADER..], expected);
        assert_eq!(frame::encode(&Job::BuildImage).unwrap()[frame::HEADER..], [1]);
        let prepare = Job::Prepare(Box::new(Container { image: "m".into(), ..Container::default() }));
        let mut expected = vec![2, 1, b'm'];
        expected.extend([0; 19]);
        assert_eq!(frame::encode(&prepare).unwrap()[frame::HEADER..], expected);
        assert_eq!(frame::encode(&ToHost::Reached(Stage::Waits, 5)).unwrap()[frame::HEADER..], [1, 3, 5]);
        let run = ToGuest::Run(Box::new(Program {
            arguments: vec!["a".into()],
            env: vec![("n".into(), "v".into())],
            workdir: Some("/".into()),
            terminal: Some(TerminalSize { rows: 1, columns: 2 }),
        }));
        let expected = [10, 1, 1, b'a', 1, 1, b'n', 1, b'v', 1, 1, b'/', 1, 1, 2];
        assert_eq!(frame::encode(&run).unwrap()[frame::HEADER..], expected);
    }
}

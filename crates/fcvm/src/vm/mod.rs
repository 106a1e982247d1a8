//! What happens to a VM from its disks to its end.
//!
//! ```text
//!              launch            Hello           ContainerStarted         Ended
//!  disks made --------> booting --------> starting --------> running --------> draining --> removed
//!                          |                  |                 |                 |
//!   signal ................|..................|                 |                 | gives up the rest of
//!   -> interrupted, 128+n                     |                 |                 | the output
//!   hypervisor dies .......|..................|.................|  -> its last messages
//!   guest panics ..........|..................|.................|  -> the console's last lines
//!        \__ once, before the container runs: again, with one CPU
//!   no Hello ..............|  -> watchdog: killed, once again
//!   another protocol ......|
//!   the agent fails ..........................|  -> its reason
//!   a signal while running ....................................|  -> to the container; twice: killed
//!   stop, by the control socket ..............................|  -> stop signal; SIGKILL; killed
//!   the parent of a detached start goes away .|................|  -> interrupted
//!   --restart, or a restart that was asked for ................|.................|  -> starting again,
//!        in the same machine; in a new one, with a new disk, where it died
//! ```
//! A VM that goes on from a snapshot is told who it is instead of what to do, and runs at once:
//! ```text
//!              launch            Hello           Restored
//!  disks made --------> loading --------> restoring --------> running ...
//! ```
//! What fails on the way there ends it: there is nothing to boot again.
//!
//! One whose container waits for its program is told that as well, and then goes the way of one that boots, from
//! `starting` on; what fails before the container runs is for the caller, who can have it boot. How such a machine
//! is made: it boots, and is saved and ended once its container waits, or is healthy.
//!
//! A detached VM counts as running once the process that started it has heard of it.
//!
//! Whatever happens, the hypervisor is dead and the output drained when
//! [`run`] returns; the claim's owner removes files and record.

mod attempt;
mod boot;
mod builder;
mod console;
pub mod control;
mod detach_keys;
mod error;
mod exec;
mod feeding;
mod guest;
mod heartbeat;
mod input;
pub mod log;
mod metadata;
mod outputs;
mod restarts;
mod run;
mod signals;
mod spool;
mod stopping;
mod timings;

pub use builder::GuestBuilder;
pub use detach_keys::DetachKeys;
pub use error::VmError;
pub use exec::{Ends, ExecError, exec, exec_id};
pub use run::{Input, Keep, Origin, Output, Plan, SavedMachine, Starter, run};
pub use timings::Timings;

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
//! ```
//! Whatever happens, the hypervisor is dead and the output drained when
//! [`run`] returns; the claim's owner removes files and record.

mod attempt;
mod boot;
mod builder;
mod console;
mod error;
mod guest;
mod input;
mod outputs;
mod run;
mod signals;
mod spool;
mod timings;

pub use builder::GuestBuilder;
pub use error::VmError;
pub use run::{Input, Plan, run};
pub use timings::Timings;

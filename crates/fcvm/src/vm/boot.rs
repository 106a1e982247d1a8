//! The boot watchdog.

use std::time::{Duration, Instant};

use procfs::process::Process;
use tokio::time::{MissedTickBehavior, interval};

use crate::hypervisor::Capabilities;

/// CPU time that a native guest needs at the very most before it says `Hello`.
/// It takes a twentieth of that. Emulation multiplies it.
const CPU_TIME: Duration = Duration::from_secs(8);
/// A guest that boots always computes. One that used less than [`IDLE_CPU_TIME`] for this long
/// waits for something that never comes; one that competes with many others gets more than that.
const IDLE_TIME: Duration = Duration::from_secs(15);
const IDLE_CPU_TIME: Duration = Duration::from_millis(150);

/// Ends when a hypervisor has had more than enough for a boot, or has stopped
/// booting: measured in CPU time, so that a busy host does not count as a guest
/// that hangs. How long that took.
pub(super) async fn watchdog(pid: i32, capabilities: &Capabilities) -> Duration {
    let started = Instant::now();
    let limit = CPU_TIME * capabilities.slowness;
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut window = (started, Duration::ZERO);
    loop {
        ticks.tick().await;
        let used = cpu_time(pid).unwrap_or_default();
        let (since, used_then) = window;
        let idle = used.saturating_sub(used_then) < IDLE_CPU_TIME;
        if used > limit || (idle && since.elapsed() >= IDLE_TIME) {
            return started.elapsed();
        }
        if !idle {
            window = (Instant::now(), used);
        }
    }
}

fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    let ticks = stat.utime + stat.stime;
    Some(Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()))
}

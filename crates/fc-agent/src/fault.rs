//! Crashes on demand: with `fcvm.fail=STAGE` on the kernel's command line the agent panics there, as
//! by a fault of its own. For tests of what becomes of a guest whose PID 1 is gone.

use std::sync::OnceLock;

/// The kernel parameter that names the stage.
pub(crate) const PARAMETER: &str = "fcvm.fail";

static CHOSEN: OnceLock<String> = OnceLock::new();

/// Chooses a stage.
pub(crate) fn choose(stage: Option<&str>) {
    if let Some(stage) = stage {
        CHOSEN.get_or_init(|| stage.to_owned());
    }
}

/// Panics where this stage was chosen.
pub(crate) fn reach(stage: &str) {
    assert!(CHOSEN.get().is_none_or(|chosen| chosen != stage), "{PARAMETER} demands it at `{stage}`");
}

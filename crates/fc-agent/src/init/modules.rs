//! Kernel modules, in the order that the initrd's list names them.

use std::{fs, io};

use anyhow::{Context as _, bail};
use rustix::io::Errno;

/// Its first line is [`HEADER`]; every other names a module, dependencies first:
/// `STAGE NAME PATH DEPENDENCIES`, the stage being `boot` or `demand`.
const LIST: &str = "/modules";
const HEADER: &str = "fcvm-modules 1";

/// Loads the modules that every boot needs.
///
/// # Errors
/// Where a module is refused by the kernel.
pub(super) fn load_for_boot() -> anyhow::Result<()> {
    let list = match fs::read_to_string(LIST) {
        // A kernel with everything built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        list => list.with_context(|| format!("failed to read `{LIST}`"))?,
    };
    for path in boot_paths(&list)? {
        let file = fs::File::open(path).with_context(|| format!("failed to open module `{path}`"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to load module `{path}`")),
        }
    }
    Ok(())
}

/// Paths of the modules of every boot, in order.
fn boot_paths(list: &str) -> anyhow::Result<Vec<&str>> {
    let mut lines = list.lines();
    if lines.next() != Some(HEADER) {
        bail!("`{LIST}` is not a list of modules that this agent understands");
    }
    Ok(lines.filter_map(|line| line.strip_prefix("boot ")?.split(' ').nth(1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_of_every_boot_are_loaded_in_order() {
        let list = "fcvm-modules 1\nboot a /m/a.ko -\ndemand x /m/x.ko a\nboot b /m/b.ko a,x\n";
        assert_eq!(boot_paths(list).unwrap(), ["/m/a.ko", "/m/b.ko"]);
        assert!(boot_paths("fcvm-modules 2\n").is_err());
        assert!(boot_paths("").is_err());
    }
}

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
    load(boot_paths(&list()?)?)
}

/// Loads a module, where it is not built in, and what it depends on.
///
/// # Errors
/// As of [`load_for_boot`].
pub(super) fn load_on_demand(name: &str) -> anyhow::Result<()> {
    load(paths_for(&list()?, name)?)
}

/// A module that may be wanted after the initramfs has gone: its files stay open.
#[derive(Debug)]
pub(crate) struct DeferredModules {
    files: Vec<(String, fs::File)>,
}

impl DeferredModules {
    /// Opens a module, where it is not built in, and what it depends on.
    ///
    /// # Errors
    /// Where a file is not there.
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        let list = list()?;
        let open = |path: &str| Ok((path.to_owned(), open(path)?));
        Ok(Self { files: paths_for(&list, name)?.into_iter().map(open).collect::<anyhow::Result<_>>()? })
    }

    /// Loads what was opened.
    ///
    /// # Errors
    /// Where a module is refused by the kernel.
    pub(crate) fn load(&self) -> anyhow::Result<()> {
        self.files.iter().try_for_each(|(path, file)| load_one(path, file))
    }
}

/// The list; of a kernel with everything built in it is one without modules.
fn list() -> anyhow::Result<String> {
    match fs::read_to_string(LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HEADER.into()),
        list => list.with_context(|| format!("failed to read `{LIST}`")),
    }
}

fn load(paths: Vec<&str>) -> anyhow::Result<()> {
    paths.into_iter().try_for_each(|path| load_one(path, &open(path)?))
}

fn open(path: &str) -> anyhow::Result<fs::File> {
    fs::File::open(path).with_context(|| format!("failed to open module `{path}`"))
}

fn load_one(path: &str, file: &fs::File) -> anyhow::Result<()> {
    match rustix::system::finit_module(file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to load module `{path}`")),
    }
}

/// Paths of the modules of every boot, in order.
fn boot_paths(list: &str) -> anyhow::Result<Vec<&str>> {
    let mut lines = list.lines();
    if lines.next() != Some(HEADER) {
        bail!("`{LIST}` is not a list of modules that this agent understands");
    }
    Ok(lines.filter_map(|line| line.strip_prefix("boot ")?.split(' ').nth(1)).collect())
}

/// Paths of a module and of all that it depends on, in order.
fn paths_for<'a>(list: &'a str, name: &str) -> anyhow::Result<Vec<&'a str>> {
    let mut lines = list.lines();
    if lines.next() != Some(HEADER) {
        bail!("`{LIST}` is not a list of modules that this agent understands");
    }
    let modules: Vec<_> = lines.map(|line| line.split(' ').skip(1).collect::<Vec<_>>()).collect();
    let mut wanted = vec![name];
    let mut paths = Vec::new();
    // Whoever needs a module comes after it.
    for module in modules.iter().rev() {
        if let [name, path, needs] = module[..]
            && wanted.contains(&name)
        {
            paths.push(path);
            wanted.extend(needs.split(','));
        }
    }
    paths.reverse();
    Ok(paths)
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

    #[test]
    fn a_module_on_demand_comes_after_what_it_depends_on() {
        let list = "fcvm-modules 1\nboot a /m/a.ko -\ndemand b /m/b.ko a\ndemand x /m/x.ko -\ndemand c /m/c.ko a,b\n";
        assert_eq!(paths_for(list, "c").unwrap(), ["/m/a.ko", "/m/b.ko", "/m/c.ko"]);
        assert_eq!(paths_for(list, "x").unwrap(), ["/m/x.ko"]);
        assert!(paths_for(list, "built_in").unwrap().is_empty());
        assert!(paths_for("", "x").is_err());
    }
}

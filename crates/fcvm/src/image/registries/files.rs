//! Which files say how registries are reached, in which order.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{Registries, RegistriesError, config};

const SYSTEM: &str = "/etc/containers";
const MAX_FILE: u64 = 1 << 20;

/// Where the configuration of registries is looked for. Nothing is read before it is needed.
///
/// In order, so that later files win:
///
/// 1. what `CONTAINERS_REGISTRIES_CONF` names, or the user's `registries.conf`, or the system's;
/// 2. `registries.conf.d/*.conf` of the system, unless the user has a `registries.conf`;
/// 3. `registries.conf.d/*.conf` of the user;
/// 4. what `CONTAINERS_REGISTRIES_CONF_OVERRIDE` names;
/// 5. the aliases that Podman recorded when it asked its user what a short name means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryFiles {
    named: Option<PathBuf>,
    system: Option<PathBuf>,
    user: Option<PathBuf>,
    named_last: Option<PathBuf>,
    recorded: Option<PathBuf>,
}

impl RegistryFiles {
    /// Those of this user and this machine.
    #[must_use]
    pub fn of_user() -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self::in_environment(|name| std::env::var_os(name), Path::new(SYSTEM), user)
    }

    /// None: the defaults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a user in an environment.
    pub(super) fn in_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        system: &Path,
        user: u32,
    ) -> Self {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let beneath = |name, default: &str| {
            path(name)
                .or_else(|| home.as_ref().map(|home| home.join(default)))
                .map(|dir| dir.join("containers"))
        };
        let cache = match user {
            0 => Some(PathBuf::from("/var/cache/containers")),
            _ => beneath("XDG_CACHE_HOME", ".cache"),
        };
        Self {
            named: path("CONTAINERS_REGISTRIES_CONF"),
            system: Some(system.to_owned()),
            user: beneath("XDG_CONFIG_HOME", ".config"),
            named_last: path("CONTAINERS_REGISTRIES_CONF_OVERRIDE"),
            recorded: cache.map(|dir| dir.join("short-name-aliases.conf")),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Where one cannot be read or understood.
    pub fn load(&self) -> Result<Registries, RegistriesError> {
        let main = |dir: &Option<PathBuf>| match dir {
            Some(dir) => read(&dir.join("registries.conf")),
            None => Ok(None),
        };
        let mut files = Vec::new();
        let mut system = self.system.as_deref();
        if let Some(path) = &self.named {
            files.push(required(path)?);
        } else if let Some(own) = main(&self.user)? {
            files.push(own);
            system = None;
        } else {
            files.extend(main(&self.system)?);
        }
        for dir in [system, self.user.as_deref()].into_iter().flatten() {
            files.extend(drop_ins(&dir.join("registries.conf.d"))?);
        }
        if let Some(path) = &self.named_last {
            files.push(required(path)?);
        }
        if let Some(path) = &self.recorded {
            files.extend(read(path)?);
        }
        config::merge(&files)
    }
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The `*.conf` of a directory in the order of their names.
fn drop_ins(dir: &Path) -> Result<Vec<ConfigFile>, RegistriesError> {
    let failed = |source| RegistriesError::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && path.is_file());
    paths.sort_unstable();
    let files = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(files.into_iter().flatten().collect())
}

fn read(path: &Path) -> Result<Option<ConfigFile>, RegistriesError> {
    match required(path) {
        Ok(file) => Ok(Some(file)),
        Err(RegistriesError::Read { source, .. }) if is_absent(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn required(path: &Path) -> Result<ConfigFile, RegistriesError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|source| RegistriesError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_FILE {
        return Err(RegistriesError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    Ok(ConfigFile { path: path.to_owned(), text })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

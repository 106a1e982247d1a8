//! Where credentials are kept.

use std::{ffi::OsString, path::PathBuf};

use super::{
    CredentialsError, Login,
    file::{AuthFile, Form},
};

/// The credentials of a user. Nothing is read before it is needed.
///
/// Read from the first of these that has any for a repository:
///
/// 1. the file given, or `REGISTRY_AUTH_FILE`, and then no other;
/// 2. `$XDG_RUNTIME_DIR/containers/auth.json`, of root `/run/containers/0/auth.json`;
/// 3. `$XDG_CONFIG_HOME/containers/auth.json`;
/// 4. `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`;
/// 5. `~/.dockercfg`.
///
/// Written to the first.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    files: Vec<(PathBuf, Form)>,
    /// `PATH`, where helpers are.
    search: Option<OsString>,
}

impl Credentials {
    /// Those of this user, or of the file that an option named.
    #[must_use]
    pub fn of_user(authfile: Option<PathBuf>) -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self::in_environment(|name| std::env::var_os(name), authfile, user)
    }

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a user in an environment.
    pub(super) fn in_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        authfile: Option<PathBuf>,
        user: u32,
    ) -> Self {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let search = variable("PATH");
        if let Some(file) = authfile.or_else(|| path("REGISTRY_AUTH_FILE")) {
            return Self { files: vec![(file, Form::Auths)], search };
        }
        let home = path("HOME");
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let runtime = match user {
            0 => Some(PathBuf::from("/run/containers/0")),
            _ => path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers")),
        };
        let config = path("XDG_CONFIG_HOME").or_else(|| in_home(".config")).map(|dir| dir.join("containers"));
        let docker = path("DOCKER_CONFIG").or_else(|| in_home(".docker")).map(|dir| dir.join("config.json"));
        let containers = [runtime, config].into_iter().flatten().map(|dir| dir.join("auth.json"));
        let auths = containers.chain(docker).map(|file| (file, Form::Auths));
        let files = auths.chain(in_home(".dockercfg").map(|file| (file, Form::Legacy))).collect();
        Self { files, search }
    }

    /// What a registry is to be told for one of its repositories; nothing where the user has
    /// not logged in.
    ///
    /// # Errors
    /// Where a file cannot be read or understood, or a credential helper fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        for (path, form) in &self.files {
            let found = AuthFile::read(path, *form, self.search.as_deref())?.find(registry, repository)?;
            if found.is_some() {
                tracing::debug!(path = %path.display(), registry, "credentials found");
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What the file that is written says now.
    pub(super) fn own(&self) -> Result<AuthFile, CredentialsError> {
        AuthFile::read(self.own_file()?, Form::Auths, self.search.as_deref())
    }

    /// The file that is written.
    pub(super) fn own_file(&self) -> Result<&PathBuf, CredentialsError> {
        match self.files.first() {
            Some((path, Form::Auths)) => Ok(path),
            _ => Err(CredentialsError::NoFile),
        }
    }
}

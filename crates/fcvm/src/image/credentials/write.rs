//! Logging in and out: changes of the user's own file of credentials.
//!
//! Only what is asked for is changed; everything else in the file stays as it is.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::de::Error as _;
use serde_json::{Map, Value, json};

use super::{Credentials, CredentialsError, Login, Secret, file, key};
use crate::storage::{AtomicFile, Lock};

const AUTHS: &str = "auths";

impl Credentials {
    /// Keeps credentials for a registry, or for a namespace or repository of it (`host/team`),
    /// with the credential helper where one is configured.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or the helper fails.
    pub fn store(&self, key: &str, login: &Login) -> Result<(), CredentialsError> {
        let mut file = LockedFile::lock(self.own_file()?)?;
        let (registry, _) = key.split_once('/').unwrap_or((key, ""));
        if !key.contains('/')
            && let Some(helper) = self.own()?.helper(registry)?
        {
            return helper.store(key::server(registry), login);
        }
        let entry = match login {
            Login::Password { user, password } => json!({ "auth": file::encode(user, password) }),
            Login::IdentityToken { user, token } => {
                let user = user.as_deref().unwrap_or("<token>");
                json!({
                    "auth": file::encode(user, &Secret::from(String::new())),
                    "identitytoken": token.reveal(),
                })
            }
        };
        file.auths()?.insert(normal(key), entry);
        file.write()
    }

    /// Forgets the credentials of a registry, namespace or repository. Those that another
    /// program's file has stay.
    ///
    /// # Errors
    /// Where there are none, the file cannot be read or written, or the helper fails.
    pub fn remove(&self, key: &str) -> Result<(), CredentialsError> {
        let mut file = LockedFile::lock(self.own_file()?)?;
        let (registry, repository) = key.split_once('/').unwrap_or((key, ""));
        let mut helped = false;
        if repository.is_empty()
            && let Some(helper) = self.own()?.helper(registry)?
        {
            helped = helper.get(key::server(registry))?.is_some();
            helper.erase(key::server(registry))?;
        }
        let wanted = normal(key);
        let auths = file.auths()?;
        let before = auths.len();
        auths.retain(|key, _| normal(key) != wanted);
        if auths.len() != before {
            return file.write();
        }
        if helped { Ok(()) } else { Err(CredentialsError::NotLoggedIn { key: key.to_owned() }) }
    }

    /// Forgets all credentials of the file and of the helpers that it names.
    ///
    /// # Errors
    /// As of [`remove`](Self::remove).
    pub fn remove_all(&self) -> Result<(), CredentialsError> {
        let mut file = LockedFile::lock(self.own_file()?)?;
        for (server, helper) in self.own()?.all_helpers()? {
            let servers = match server {
                Some(server) => vec![server],
                None => helper.list()?,
            };
            for server in servers {
                helper.erase(&server)?;
            }
        }
        let auths = file.auths()?;
        if auths.is_empty() {
            return Ok(());
        }
        auths.clear();
        file.write()
    }
}

/// The key that means the same as one of another form.
fn normal(key: &str) -> String {
    if key::is_url(key) {
        return key::of_url(key).to_owned();
    }
    match key.split_once('/') {
        Some((registry, rest)) => format!("{}/{rest}", key::registry(registry)),
        None => key::registry(key).to_owned(),
    }
}

/// The file, while no other fcvm changes it.
struct LockedFile {
    path: PathBuf,
    content: Map<String, Value>,
    _lock: Lock,
}

impl LockedFile {
    fn lock(path: &Path) -> Result<Self, CredentialsError> {
        // A link is followed: the file is replaced where it is, not the link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        let lock =
            Lock::acquire(Path::new(&lock), || tracing::debug!("waiting for the file of credentials"))?;
        let content = match file::read(&path)? {
            None => Map::new(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| CredentialsError::Json { path: path.clone(), source })?,
        };
        Ok(Self { path, content, _lock: lock })
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, CredentialsError> {
        let auths = self.content.entry(AUTHS).or_insert_with(|| Value::Object(Map::new()));
        auths.as_object_mut().ok_or_else(|| CredentialsError::Json {
            path: self.path.clone(),
            source: serde_json::Error::custom("`auths` is no object"),
        })
    }

    fn write(self) -> Result<(), CredentialsError> {
        let failed = |source| CredentialsError::Write { path: self.path.clone(), source };
        let text = serde_json::to_string_pretty(&self.content)
            .map_err(|source| CredentialsError::Json { path: self.path.clone(), source })?;
        let mut file = AtomicFile::create(&self.path).map_err(failed)?;
        file.file().set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        file.file_mut().write_all(format!("{text}\n").as_bytes()).map_err(failed)?;
        file.commit().map_err(failed)
    }
}

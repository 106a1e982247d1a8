//! `auth.json` and `config.json`: what is in them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose};
use serde::Deserialize;

use super::{CredentialsError, Login, Secret, helper::Helper, key};

const MAX_FILE: u64 = 4 << 20;

/// A file of credentials. Its other keys are other programs'.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

/// Credentials in the file itself.
#[derive(Debug, Default, Clone, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default, alias = "identityToken")]
    identitytoken: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Entries in `auths`.
    Auths,
    /// Entries alone, as in `.dockercfg`.
    Legacy,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct AuthFile {
    path: PathBuf,
    search: Option<OsString>,
    content: Content,
}

impl AuthFile {
    /// Reads the file; one that is not there, or empty, has nothing in it.
    pub(super) fn read(path: &Path, form: Form, search: Option<&OsStr>) -> Result<Self, CredentialsError> {
        let json = |source| CredentialsError::Json { path: path.to_owned(), source };
        let content = match read(path)? {
            None => Content::default(),
            Some(bytes) => match form {
                Form::Auths => serde_json::from_slice(&bytes).map_err(json)?,
                Form::Legacy => {
                    Content { auths: serde_json::from_slice(&bytes).map_err(json)?, ..Content::default() }
                }
            },
        };
        Ok(Self { path: path.to_owned(), search: search.map(ToOwned::to_owned), content })
    }

    /// What the file has for a repository.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        if let Some(helper) = self.helper(registry)?
            && let Some(login) = helper.get(key::server(registry))?
        {
            return Ok(Some(login));
        }
        let auths = &self.content.auths;
        let exact = key::keys(registry, repository).into_iter().find_map(|key| auths.get_key_value(&key));
        let wanted = key::registry(registry);
        let old = || auths.iter().find(|(key, _)| key::of_url(key) == wanted && key::is_url(key));
        let hub = || auths.iter().find(|(key, _)| !key.contains('/') && key::registry(key) == wanted);
        match exact.or_else(hub).or_else(old) {
            Some((key, entry)) => self.login(key, entry),
            None => Ok(None),
        }
    }

    /// The helper that keeps a registry's credentials: its own, or that of all.
    pub(super) fn helper(&self, registry: &str) -> Result<Option<Helper>, CredentialsError> {
        let wanted = key::registry(registry);
        let own = self.content.cred_helpers.iter().find(|(key, _)| key::of_url(key) == wanted);
        let name = own.map_or(self.content.creds_store.as_str(), |(_, name)| name);
        if name.is_empty() {
            return Ok(None);
        }
        self.named(name).map(Some)
    }

    /// The helpers that may have credentials, with the registries that are theirs alone.
    pub(super) fn all_helpers(&self) -> Result<Vec<(Option<String>, Helper)>, CredentialsError> {
        let mut helpers = Vec::new();
        for (key, name) in &self.content.cred_helpers {
            if !name.is_empty() {
                helpers.push((Some(key::server(key::of_url(key)).to_owned()), self.named(name)?));
            }
        }
        if !self.content.creds_store.is_empty() {
            helpers.push((None, self.named(&self.content.creds_store)?));
        }
        Ok(helpers)
    }

    fn named(&self, name: &str) -> Result<Helper, CredentialsError> {
        Helper::named(name, &self.path, self.search.as_deref())
    }

    fn login(&self, key: &str, entry: &Entry) -> Result<Option<Login>, CredentialsError> {
        let bad = || CredentialsError::Entry { path: self.path.clone(), key: key.to_owned() };
        let (user, password) = match entry.auth.as_str() {
            "" => (entry.username.clone(), entry.password.clone()),
            auth => decode(auth).ok_or_else(bad)?,
        };
        if !entry.identitytoken.is_empty() {
            let user = (!user.is_empty()).then_some(user);
            return Ok(Some(Login::IdentityToken { user, token: entry.identitytoken.clone().into() }));
        }
        // Docker leaves `{}` where a helper has the password.
        Ok((!user.is_empty()).then(|| Login::Password { user, password: Secret::from(password) }))
    }
}

/// What a file holds, where it is there and not empty.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > MAX_FILE => {
            Err(CredentialsError::TooLarge { path: path.to_owned(), limit: MAX_FILE })
        }
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(CredentialsError::Read { path: path.to_owned(), source }),
    }
}

/// What `auth` says.
fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = general_purpose::STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    // Some programs pad it.
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// What goes into `auth`.
pub(super) fn encode(user: &str, password: &Secret) -> String {
    general_purpose::STANDARD.encode(format!("{user}:{}", password.reveal()))
}

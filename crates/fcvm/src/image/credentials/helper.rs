//! Programs that keep credentials: `docker-credential-NAME`.
//!
//! <https://github.com/docker/docker-credential-helpers>: the action is an argument, what it
//! is about comes on standard input, the answer goes to standard output, errors too.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Read, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use serde::{Deserialize, Serialize};

use super::{CredentialsError, Login, Secret};
use crate::output::sanitize;

const MAX_ANSWER: u64 = 1 << 20;
/// What a helper says where it has nothing.
const NOT_FOUND: [&str; 2] = ["credentials not found", "no credentials"];
/// The user of what is a token and no password.
const TOKEN: &str = "<token>";

/// A credential helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helper {
    program: String,
    search: Option<OsString>,
}

/// What helpers answer, and are told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credential {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// What a helper said.
struct Answer {
    status: ExitStatus,
    text: Vec<u8>,
}

impl Helper {
    /// The helper that a file names, looked for in the directories of a `PATH`.
    pub(super) fn named(name: &str, file: &Path, search: Option<&OsStr>) -> Result<Self, CredentialsError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(CredentialsError::HelperName { path: file.to_owned(), name: name.to_owned() });
        }
        let search = search.map(ToOwned::to_owned);
        Ok(Self { program: format!("docker-credential-{name}"), search })
    }

    /// What the helper has for a server.
    pub(super) fn get(&self, server: &str) -> Result<Option<Login>, CredentialsError> {
        let answer = self.run("get", server.as_bytes())?;
        if !answer.status.success() {
            return if answer.is_not_found() { Ok(None) } else { Err(self.failed("get", server, &answer)) };
        }
        let credential: Credential = serde_json::from_slice(&answer.text).map_err(|_| {
            // Not the cause: it may quote the password.
            CredentialsError::HelperAnswer { program: self.program.clone(), server: server.to_owned() }
        })?;
        let secret = Secret::from(credential.secret);
        Ok(match credential.username.as_str() {
            "" => None,
            TOKEN => Some(Login::IdentityToken { user: None, token: secret }),
            _ => Some(Login::Password { user: credential.username, password: secret }),
        })
    }

    /// Has the helper keep credentials.
    pub(super) fn store(&self, server: &str, login: &Login) -> Result<(), CredentialsError> {
        let (username, secret) = match login {
            Login::Password { user, password } => (user.clone(), password),
            Login::IdentityToken { token, .. } => (TOKEN.to_owned(), token),
        };
        let credential =
            Credential { server_url: server.to_owned(), username, secret: secret.reveal().to_owned() };
        let input =
            serde_json::to_vec(&credential).map_err(|source| self.cannot_run(io::Error::other(source)))?;
        let answer = self.run("store", &input)?;
        if answer.status.success() { Ok(()) } else { Err(self.failed("store", server, &answer)) }
    }

    /// Has the helper forget credentials.
    pub(super) fn erase(&self, server: &str) -> Result<(), CredentialsError> {
        let answer = self.run("erase", server.as_bytes())?;
        if answer.status.success() || answer.is_not_found() {
            return Ok(());
        }
        Err(self.failed("erase", server, &answer))
    }

    /// The servers that the helper has credentials for.
    pub(super) fn list(&self) -> Result<Vec<String>, CredentialsError> {
        let answer = self.run("list", b"")?;
        if !answer.status.success() {
            return Err(self.failed("list", "", &answer));
        }
        let servers: BTreeMap<String, String> = serde_json::from_slice(&answer.text).map_err(|_| {
            CredentialsError::HelperAnswer { program: self.program.clone(), server: "list".into() }
        })?;
        Ok(servers.into_keys().collect())
    }

    fn run(&self, action: &str, input: &[u8]) -> Result<Answer, CredentialsError> {
        let failed = |source| self.cannot_run(source);
        // Its standard error is the user's: a helper may ask for a PIN there.
        let mut command = Command::new(&self.program);
        // The child's `PATH` is also where it is looked for.
        command.envs(self.search.iter().map(|search| ("PATH", search)));
        let mut child =
            command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut text = Vec::new();
        let talked = std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Some(Err(error)) = stdin.map(|mut stdin| stdin.write_all(input)) {
                    tracing::debug!(%error, "the credential helper did not read");
                }
            });
            match stdout {
                // Closed at the limit, so that a helper without end ends by SIGPIPE.
                Some(stdout) => stdout.take(MAX_ANSWER).read_to_end(&mut text),
                None => Ok(0),
            }
        });
        let status = child.wait().map_err(failed)?;
        talked.map_err(failed)?;
        Ok(Answer { status, text })
    }

    fn cannot_run(&self, source: io::Error) -> CredentialsError {
        CredentialsError::HelperRun { program: self.program.clone(), source }
    }

    fn failed(&self, action: &'static str, server: &str, answer: &Answer) -> CredentialsError {
        let said: String = answer.said().chars().take(300).collect();
        CredentialsError::HelperFailed {
            program: self.program.clone(),
            action,
            server: server.to_owned(),
            said: if said.is_empty() { answer.status.to_string() } else { sanitize(&said) },
        }
    }
}

impl Answer {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.text).trim().to_owned()
    }

    fn is_not_found(&self) -> bool {
        let said = self.said().to_lowercase();
        NOT_FOUND.iter().any(|text| said.contains(text))
    }
}

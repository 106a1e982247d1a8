//! `nft`, which takes a table at once.

use std::{
    io,
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::NetworkError;
use crate::{
    output::sanitize,
    process::{Namespaces, keep_network_administration},
    setup::preflight::find_program,
};

const PROGRAM: &str = "nft";
/// How much is told of why it refused, in bytes.
const LONGEST: usize = 600;

/// Whose tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// This process's network namespace.
    Here,
    /// That of a VM.
    There(&'a Arc<Namespaces>),
}

/// Carries out commands, all or none; the answer, where they ask for something.
///
/// # Errors
/// Where the program is missing, or refuses.
pub(super) async fn apply(commands: &Value, place: Place<'_>) -> Result<Value, NetworkError> {
    let start = |source| NetworkError::Start { program: PROGRAM, source };
    // Which ordinary users need not have in their PATH.
    let mut command = Command::new(find_program(PROGRAM).unwrap_or_else(|| PROGRAM.into()));
    command.args(["-j", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Place::There(namespaces) = place {
        namespaces.join(&mut command);
    }
    keep_network_administration(&mut command);
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(start)?;
    let mut input = child.stdin.take();
    let text = commands.to_string();
    let write = async {
        if let Some(input) = &mut input {
            // Where it ends early it says why.
            input.write_all(text.as_bytes()).await.ok();
        }
        drop(input);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.map_err(start)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = sanitize(said.trim());
        let end = said.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST).unwrap_or(said.len());
        return Err(NetworkError::Program { program: PROGRAM, said: said[..end].to_owned() });
    }
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| NetworkError::Start { program: PROGRAM, source: io::Error::other(error) })
}

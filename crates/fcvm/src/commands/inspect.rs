//! `fcvm inspect`.

use std::process::ExitCode;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::Value;

use super::{container_view, ls::Listed};
use crate::{
    cli::inspect::Args,
    exit,
    output::{Printer, Template, sanitize},
    state::{Registry, RuntimeDir},
    storage::DataDir,
};

/// Runs `fcvm inspect`.
///
/// # Errors
/// Where the result cannot be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    // Before anything is printed: a format that is wrong is wrong for all.
    let template = args.format.as_deref().filter(|format| Template::is_one(format));
    let template = template.map(Template::parse).transpose()?;
    let mut code = ExitCode::SUCCESS;
    let mut found = Vec::new();
    for vm in &args.vms {
        match registry.find(vm) {
            Ok(state) => {
                let view = container_view::of(&state);
                found.push((Listed::measure(state, Timestamp::now()), view));
            }
            Err(error) => {
                let error = error.into();
                printer.error(&error, exit::hint(&error).as_deref());
                code = ExitCode::from(exit::FAILED);
            }
        }
    }
    let Some(path) = &args.format else {
        let found: Vec<_> = found.iter().map(|(vm, _)| vm).collect();
        printer.data(serde_json::to_string_pretty(&found)?)?;
        return Ok(code);
    };
    for (vm, view) in found {
        if let Some(template) = &template {
            printer.data(template.render(&[&serde_json::to_value(vm)?, &view])?)?;
            continue;
        }
        match field(&serde_json::to_value(vm)?, path) {
            Some(Value::String(text)) => printer.data(sanitize(text))?,
            Some(value) => printer.data(value)?,
            None => bail!("a VM has no `{path}`"),
        }
    }
    Ok(code)
}

/// What is at a path of names and numbers with dots before them.
fn field<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let names = path.strip_prefix('.').unwrap_or(path).split('.');
    names.filter(|name| !name.is_empty()).try_fold(value, |value, name| match value {
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_by_their_paths() {
        let value = json!({ "exit_code": 3, "owner": { "pid": 7 }, "command": ["a", "b"] });
        for (path, found) in [
            (".exit_code", Some(&value["exit_code"])),
            ("owner.pid", Some(&value["owner"]["pid"])),
            (".command.1", Some(&value["command"][1])),
            (".", Some(&value)),
            (".nosuch", None),
            (".command.2", None),
            (".exit_code.x", None),
        ] {
            assert_eq!(field(&value, path), found, "{path}");
        }
    }
}

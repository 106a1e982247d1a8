//! The program that lists a tree, for container and host alike.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::sha256;

/// Builds the example `list-tree` as a static program, once; or why it cannot be built here.
///
/// Cargo does not build examples of a dependency, nor static programs beside
/// dynamic ones; it is a single crate without dependencies.
///
/// # Errors
/// What the compiler says.
pub fn list_tree(fcvm: &str) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/list-tree");
    let files = ["main.rs", "sys.rs"].map(|name| fs::read(source.join(name)).unwrap());
    let digest = sha256(files.concat().as_slice());
    let directory = crate::env::target_directory(fcvm.as_ref()).join("tmp");
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join(format!("list-tree-{}", &digest[..12]));
    if program.exists() {
        return Ok(program);
    }
    let unfinished = tempfile::tempdir_in(&directory).unwrap();
    let made = unfinished.path().join("list-tree");
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "--crate-name=list_tree", "-o"])
        .arg(&made)
        .arg(source.join("main.rs"))
        .output()
        .map_err(|error| format!("no Rust compiler: {error}"))?;
    if !output.status.success() {
        return Err(format!("no static programs: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::rename(made, &program).unwrap();
    Ok(program)
}

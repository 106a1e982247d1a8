//! The image that benchmarks run.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// Imports an image with busybox in it.
pub(crate) fn import(fcvm: &str, image: &str) -> anyhow::Result<()> {
    let busybox =
        fs::read("/bin/busybox").context("failed to read `/bin/busybox` (package busybox-static)")?;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "bin/busybox", &busybox)?;
    let mut command = Command::new(fcvm);
    command.args(["image", "import", image, "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = command.spawn()?;
    import.stdin.take().context("no pipe")?.write_all(&archive.into_inner()?)?;
    if !import.wait()?.success() {
        bail!("the image could not be imported");
    }
    Ok(())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    Ok(archive.append_data(&mut header, path, content)?)
}

//! Prints a line for everything below directories: type, mode, owner, time,
//! size or target, a hash of the content, the first of its names where it has
//! several, extended attributes. Two trees are the same where the lines are.

#![expect(clippy::print_stdout, reason = "it is what it is for")]

mod sys;

use std::{
    collections::HashMap,
    env, fs,
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let root = PathBuf::from(arguments.next().unwrap_or_else(|| "/".into()));
    let mut names = HashMap::new();
    for directory in arguments {
        list(&root, &root.join(directory), &mut names)?;
    }
    Ok(())
}

fn list(root: &Path, path: &Path, names: &mut HashMap<u64, String>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let name = path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes().escape_ascii().to_string();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path)?.as_os_str().as_bytes().escape_ascii())
    } else if kind.is_file() {
        format!("file of {} bytes {:016x}", metadata.len(), hash(path)?)
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {:x}", metadata.rdev())
    };
    let mode = metadata.mode() & 0o7777;
    let mut line =
        format!("{name} {what} {mode:04o} {}:{} {}", metadata.uid(), metadata.gid(), metadata.mtime());
    if !kind.is_dir() && metadata.nlink() > 1 {
        let first = names.entry(metadata.ino()).or_insert_with(|| name.clone());
        line += &format!(" is {first} ({})", metadata.nlink());
    }
    for (attribute, value) in sys::attributes(path)? {
        line += &format!(" {}={}", attribute.escape_ascii(), value.escape_ascii());
    }
    println!("{line}");
    if kind.is_dir() {
        let mut children =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        children.sort();
        for child in children {
            list(root, &child, names)?;
        }
    }
    Ok(())
}

/// FNV-1a over words: enough to tell files of a test apart.
fn hash(path: &Path) -> io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        // Words must fall on the same bytes however reads are cut.
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        for word in buffer[..filled].chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x100_0000_01b3);
        }
        if filled < buffer.len() {
            return Ok(hash);
        }
    }
}

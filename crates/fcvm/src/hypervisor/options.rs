//! What a machine may have beyond processors, memory and disks: plain data.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde_json::{Map, Value};

use super::{HypervisorError, Jail};

/// The longest CPU template, in bytes: what Firecracker takes in a request.
const LONGEST_TEMPLATE: u64 = 51200;

/// What a machine has beyond the usual; by default nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MachineOptions {
    /// A balloon, in MiB: so much of its memory the guest gives back for as long as it can do without.
    pub balloon_mib: Option<u32>,
    /// Pages of the host behind the memory.
    pub pages: Pages,
    /// What the guest sees of the CPU.
    pub cpu_template: Option<CpuTemplate>,
    /// A jail by Firecracker's jailer, in place of fcvm's sandbox.
    pub jail: Option<Jail>,
}

/// Pages of the host behind a machine's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pages {
    /// Of the usual size.
    #[default]
    Usual,
    /// 2 MiB each, of those that the host has set aside.
    Huge,
}

impl Pages {
    /// Of a huge one.
    pub(super) const HUGE_MIB: u32 = 2;
}

/// How much a disk may move in a second, reads and writes together; `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Operations.
    pub operations: Option<u64>,
}

/// Bits of the CPU that a guest sees otherwise than they are, in Firecracker's form.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuTemplate(pub(super) Map<String, Value>);

impl CpuTemplate {
    /// The template in a file. What is in it Firecracker knows better.
    ///
    /// # Errors
    /// Where the file cannot be read, is too long, or is no JSON object.
    pub fn read(path: &Path) -> Result<Self, HypervisorError> {
        let failed = |source| HypervisorError::ReadCpuTemplate { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Others have no end, or block.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let mut text = Vec::new();
        file.take(LONGEST_TEMPLATE + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > LONGEST_TEMPLATE {
            return Err(HypervisorError::LongCpuTemplate { path: path.to_owned(), limit: LONGEST_TEMPLATE });
        }
        let template = serde_json::from_slice(&text)
            .map_err(|source| HypervisorError::ParseCpuTemplate { path: path.to_owned(), source })?;
        Ok(Self(template))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CpuTemplate, HypervisorError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        CpuTemplate::read(file.path())
    }

    #[test]
    fn a_template_is_a_json_object_of_bounded_length() {
        assert_eq!(read(r#"{"kvm_capabilities": ["!56"]}"#).unwrap().0.len(), 1);
        assert!(read("{}").unwrap().0.is_empty());
        for bad in ["", "[]", "T2", "{} {}", "{"] {
            assert!(matches!(read(bad), Err(HypervisorError::ParseCpuTemplate { .. })), "{bad}");
        }
        let long = format!("{{}}{}", " ".repeat(51199));
        assert!(matches!(read(&long), Err(HypervisorError::LongCpuTemplate { limit: 51200, .. })));
        assert!(read(&long[..51200]).is_ok());
    }

    #[test]
    fn only_a_file_is_read() {
        for (path, hint) in [("/nonexistent/T2", "deprecated"), ("T2CL", "deprecated"), ("/dev/zero", "")] {
            let error = CpuTemplate::read(Path::new(path)).unwrap_err();
            assert!(matches!(error, HypervisorError::ReadCpuTemplate { .. }), "{error:?}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{error:?}");
        }
    }
}

//! Writes an image as an OCI archive: a tar of the
//! [image layout](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md).

use std::{
    fs::File,
    io::{self, Write},
};

use serde_json::json;

use super::{
    model::DiskSource,
    spec::{Manifest, OCI_MANIFEST},
};
use crate::hash::Digest;

/// Writes the archive. The layers' bytes are taken as they are stored; whoever
/// reads the archive verifies them.
///
/// # Errors
/// Where a layer cannot be read, the archive not be written, or the manifest
/// names other layers than the source has.
pub fn write(source: &DiskSource, archive: &File) -> io::Result<()> {
    let manifest: Manifest = serde_json::from_slice(&source.manifest)?;
    if manifest.layers.len() != source.layers.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest names other layers"));
    }
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST),
            "digest": source.manifest_digest.to_string(),
            "size": source.manifest.len(),
        }],
    });
    let mut tar = tar::Builder::new(io::BufWriter::new(archive));
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", index.to_string().as_bytes())?;
    add(&mut tar, &blob(&source.manifest_digest), &source.manifest)?;
    add(&mut tar, &blob(&Digest::of(&source.config)), &source.config)?;
    for (descriptor, layer) in manifest.layers.iter().zip(&source.layers) {
        let mut header = header(descriptor.size);
        tar.append_data(
            &mut header,
            blob(&descriptor.digest),
            io::Read::take((layer.open)()?, descriptor.size),
        )?;
    }
    tar.into_inner()?.flush()
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn add(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), path, bytes)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

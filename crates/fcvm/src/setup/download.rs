//! Downloads whose content is known beforehand.

use std::{path::Path, time::Duration};

use super::SetupError;
use crate::{
    hash::Digest,
    http,
    output::{Progress, Unit},
};

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// Fetches what is at a URL, of `limit` bytes at most, and insists on its digest.
pub(super) fn fetch(
    url: &str,
    expected: Digest,
    limit: usize,
    progress: &Progress,
) -> Result<Vec<u8>, SetupError> {
    let failed = |error: reqwest::Error| SetupError::Download { url: url.to_owned(), source: error.into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| SetupError::io("start the runtime for", Path::new(url), source))?;
    let client = http::client().connect_timeout(SILENCE).read_timeout(SILENCE).build().map_err(failed)?;
    let bytes = runtime.block_on(async {
        let mut response =
            client.get(url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if let Some(length) = response.content_length() {
            progress.set_unit(Unit::Bytes(length));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            progress.add(chunk.len() as u64);
            if bytes.len() > limit {
                return Err(SetupError::TooLarge { name: url.to_owned() });
            }
        }
        Ok(bytes)
    })?;
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(SetupError::WrongDigest { url: url.to_owned(), found, expected });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_download_is_what_the_plan_says_or_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/vmlinux", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "200 OK", "200 OK", "404 Not Found"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(b"kernel").unwrap();
            }
        });
        let progress = crate::output::Printer::from_env().progress("kernel");
        let expected = Digest::of(b"kernel");
        assert_eq!(fetch(&url, expected, 100, &progress).unwrap(), b"kernel");
        let error = fetch(&url, Digest::of(b"other"), 100, &progress).unwrap_err();
        assert!(matches!(error, SetupError::WrongDigest { found, .. } if found == expected), "{error}");
        let error = fetch(&url, expected, 5, &progress).unwrap_err();
        assert!(matches!(error, SetupError::TooLarge { .. }), "{error}");
        let error = fetch(&url, expected, 100, &progress).unwrap_err();
        assert!(matches!(error, SetupError::Download { .. }), "{error}");
        server.join().unwrap();
    }
}

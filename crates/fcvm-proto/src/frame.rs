//! Frames: `u32` length, little endian, then that many bytes of postcard.

use serde::{Serialize, de::DeserializeOwned};

/// Longest body of a frame, in bytes. A longer one is a violation of the
/// protocol: the reader closes the stream without allocating for it.
pub const MAX_FRAME: usize = 4 << 20;

/// Bytes before a frame's body.
pub const HEADER: usize = 4;

/// Why a frame could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body would be longer than [`MAX_FRAME`].
    #[error("a message of {length} bytes exceeds the frame limit of {MAX_FRAME}")]
    TooLong {
        /// Length of the body in bytes.
        length: usize,
    },
    /// The body is not the message it should be.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
}

/// Encodes a message as a frame: header and body.
///
/// # Errors
/// [`FrameError::TooLong`] where the body exceeds [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0; HEADER]).map_err(FrameError::Malformed)?;
    let length = bytes.len() - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= MAX_FRAME => {
            bytes[..HEADER].copy_from_slice(&header.to_le_bytes());
            Ok(bytes)
        }
        _ => Err(FrameError::TooLong { length }),
    }
}

/// Length of the body that a header announces.
///
/// # Errors
/// [`FrameError::TooLong`] where it exceeds [`MAX_FRAME`].
pub fn body_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length <= MAX_FRAME { Ok(length) } else { Err(FrameError::TooLong { length }) }
}

/// Decodes a frame's body. Bytes after the message are a violation too.
///
/// # Errors
/// [`FrameError::Malformed`] where the body is not exactly one message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(FrameError::Malformed(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ToGuest, ToHost};

    #[test]
    fn a_frame_is_length_then_body() {
        let bytes = encode(&ToGuest::Signal(15)).unwrap();
        assert_eq!(bytes, [2, 0, 0, 0, 1, 30]);
        assert_eq!(body_length([2, 0, 0, 0]).unwrap(), 2);
        assert!(matches!(decode(&bytes[HEADER..]).unwrap(), ToGuest::Signal(15)));
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_allocating() {
        assert!(matches!(body_length([0xff; 4]), Err(FrameError::TooLong { .. })));
        let long = "x".repeat(MAX_FRAME + 1);
        assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode::<ToGuest>(&[1, 30, 0]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode::<ToHost>(&body));
            drop(decode::<ToGuest>(&body));
            drop(decode::<crate::Hello>(&body));
        }
    }
}

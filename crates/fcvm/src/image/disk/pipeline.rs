//! Layers, decompressed and verified on a thread of their own.

use std::{
    io::{self, BufReader, Cursor, Read, Write},
    sync::mpsc::{Receiver, SyncSender},
};

use flate2::bufread::MultiGzDecoder;

use super::{DiskError, room::Room};
use crate::{
    hash::{Digest, Hasher},
    image::model::{Compression, LayerSource},
};

/// How much is handed over at a time, and how many of these may wait.
const CHUNK: usize = 1 << 18;
pub(super) const CHUNKS: usize = 16;

/// What the verifying thread hands to the writing one.
pub(super) enum Message {
    /// The next bytes of the current layer, decompressed.
    Data(Vec<u8>),
    /// The layer is complete, and what it should be.
    End,
    /// The layer is not; nothing follows.
    Failed(DiskError),
}

/// The writing thread is gone; it knows why.
struct Gone;

enum Stop {
    Failed(DiskError),
    Gone,
}

impl From<DiskError> for Stop {
    fn from(error: DiskError) -> Self {
        Self::Failed(error)
    }
}

/// Sends all layers, one behind the other, until one is bad or nobody listens.
pub(super) fn send(layers: &[LayerSource], diff_ids: &[Digest], sender: &SyncSender<Message>) {
    let send = |message| sender.send(message).map_err(|_| Gone);
    for (number, (layer, diff_id)) in (1..).zip(layers.iter().zip(diff_ids)) {
        let message = match send_layer(number, layer, *diff_id, &send) {
            Ok(()) => Message::End,
            Err(Stop::Failed(error)) => Message::Failed(error),
            Err(Stop::Gone) => return,
        };
        let last = matches!(message, Message::Failed(_));
        if send(message).is_err() || last {
            return;
        }
    }
}

fn send_layer(
    number: usize,
    layer: &LayerSource,
    diff_id: Digest,
    send: &impl Fn(Message) -> Result<(), Gone>,
) -> Result<(), Stop> {
    let read_failed = |source| DiskError::Read { layer: number, source };
    let mut stored = Stored {
        reader: (layer.open)().map_err(read_failed)?,
        hasher: layer.digest.map(|_| Hasher::default()),
        count: 0,
        limit: layer.size,
        failure: None,
    };
    let decoded = decode(number, layer.compression, &mut stored, send);
    match decoded {
        Err(Stop::Gone) => return Err(Stop::Gone),
        // Damage shows in the decompressor first; that the bytes are the wrong ones says more.
        Ok(_) | Err(Stop::Failed(_)) if stored.failure.is_none() => stored.drain(),
        _ => {}
    }
    if let Some(source) = stored.failure {
        return Err(read_failed(source).into());
    }
    if let Some(expected) = layer.size.filter(|expected| *expected != stored.count) {
        return Err(DiskError::LayerSize { layer: number, expected, found: stored.count }.into());
    }
    if let (Some(expected), Some(hasher)) = (layer.digest, stored.hasher) {
        let found = hasher.finish();
        if found != expected {
            return Err(DiskError::LayerDigest { layer: number, expected, found }.into());
        }
    }
    let found = decoded?;
    if found != diff_id {
        return Err(DiskError::DiffId { layer: number, expected: diff_id, found }.into());
    }
    Ok(())
}

/// Sends a layer's content; returns its digest.
fn decode(
    number: usize,
    compression: Compression,
    stored: &mut Stored,
    send: &impl Fn(Message) -> Result<(), Gone>,
) -> Result<Digest, Stop> {
    let failed = |source| Stop::Failed(DiskError::Decompress { layer: number, source });
    let mut start = Vec::new();
    let compression = match compression {
        Compression::Detect => {
            stored.take(6).read_to_end(&mut start).map_err(failed)?;
            detect(&start).map_err(|compression| DiskError::Compression { layer: number, compression })?
        }
        told => told,
    };
    let input = BufReader::with_capacity(CHUNK, Cursor::new(start).chain(stored));
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input).map_err(failed)?),
        Compression::None | Compression::Detect => Box::new(input),
    };
    let mut hasher = Hasher::default();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(failed)?;
        if chunk.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.write_all(&chunk).map_err(failed)?;
        send(Message::Data(chunk)).map_err(|Gone| Stop::Gone)?;
    }
}

/// How a layer that starts so is compressed.
fn detect(start: &[u8]) -> Result<Compression, &'static str> {
    match start {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err("xz"),
        [b'B', b'Z', b'h', ..] => Err("bzip2"),
        _ => Ok(Compression::None),
    }
}

/// A layer as it is stored, measured while it is read.
struct Stored {
    reader: Box<dyn Read + Send>,
    hasher: Option<Hasher>,
    count: u64,
    /// Reading ends soon behind this: it is too much already.
    limit: Option<u64>,
    /// Why reading failed, for the decompressor would take it for its own failure.
    failure: Option<io::Error>,
}

impl Stored {
    fn drain(&mut self) {
        let mut buffer = [0; 1 << 13];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.limit.is_some_and(|limit| self.count > limit) {
            return Ok(0);
        }
        match self.reader.read(buffer) {
            Ok(count) => {
                self.count += count as u64;
                if let Some(hasher) = &mut self.hasher {
                    hasher.write_all(&buffer[..count])?;
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failure = Some(error);
                Err(told)
            }
        }
    }
}

/// The content of one layer after the other, as the verifying thread sends it.
pub(super) struct Received<'a> {
    receiver: Receiver<Message>,
    room: &'a mut Room,
    chunk: Cursor<Vec<u8>>,
    state: State,
}

enum State {
    Within,
    Ended,
    Failed(Option<DiskError>),
}

impl<'a> Received<'a> {
    pub(super) fn new(receiver: Receiver<Message>, room: &'a mut Room) -> Self {
        Self { receiver, room, chunk: Cursor::default(), state: State::Within }
    }

    /// Reads what is left of a layer, so that it is verified whole, and goes on to the next.
    pub(super) fn finish_layer(&mut self) -> Result<(), DiskError> {
        while self.next() {}
        match &mut self.state {
            State::Failed(error) => error.take().map_or(Ok(()), Err),
            State::Within | State::Ended => {
                self.state = State::Within;
                Ok(())
            }
        }
    }

    /// Why there is no more space, where that is the case.
    pub(super) fn exhausted(&self) -> DiskError {
        self.room.exhausted()
    }

    /// Receives the next bytes; false where the layer has no more.
    fn next(&mut self) -> bool {
        if !matches!(self.state, State::Within) {
            return false;
        }
        match self.receiver.recv() {
            Ok(Message::Data(chunk)) => {
                let noted = self.room.note(chunk.len() as u64);
                self.chunk = Cursor::new(chunk);
                let Err(error) = noted else { return true };
                self.state = State::Failed(Some(error));
            }
            Ok(Message::End) => self.state = State::Ended,
            Ok(Message::Failed(error)) => self.state = State::Failed(Some(error)),
            // All layers were sent, and nobody asks for more.
            Err(_) => self.state = State::Ended,
        }
        self.chunk = Cursor::default();
        false
    }
}

impl Read for Received<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if !self.next() {
                return match self.state {
                    State::Failed(_) => Err(io::Error::other("the layer is bad")),
                    State::Within | State::Ended => Ok(0),
                };
            }
        }
    }
}

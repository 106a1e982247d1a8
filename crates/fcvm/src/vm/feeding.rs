//! The container's input, over one stream after the other: see [`fcvm_proto::input`].

use std::{collections::VecDeque, os::fd::OwnedFd};

use fcvm_proto::input::{COUNT, HEADER, MAX_PIECE, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    detach_keys::DetachKeys,
    input::{End, Typed, reader},
};

/// Bytes that are sent before the guest has said that it took them: more than a link holds.
const AHEAD: usize = 1 << 20;

/// Brings input to the guest, its end as well, until the user leaves or no stream can come any more. Each stream
/// takes the place of the one before.
pub(super) async fn feed<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut streams: mpsc::Receiver<S>,
    from: OwnedFd,
    keys: Option<DetachKeys>,
) -> End {
    let mut typed = reader(from, keys);
    let mut input = Unsure::default();
    let mut next = streams.recv().await;
    while let Some(stream) = next.take() {
        tokio::select! {
            served = input.serve(stream, &mut typed) => match served {
                Served::Broken => next = streams.recv().await,
                Served::Detached => return End::Detached,
                Served::Violation => {
                    tracing::warn!("the guest's account of its input cannot be: it gets no more");
                    return End::Over;
                }
            },
            Some(stream) = streams.recv() => next = Some(stream),
        }
    }
    End::Over
}

/// What became of a stream.
enum Served {
    Broken,
    Detached,
    Violation,
}

/// Input that the guest has perhaps not taken yet.
#[derive(Debug, Default)]
struct Unsure {
    bytes: VecDeque<u8>,
    /// What the guest had taken when it was to get the first of them.
    taken: Option<u64>,
    is_over: bool,
}

impl Unsure {
    /// Serves a stream until it breaks. Cancel-safe: the next goes on.
    async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &mut self,
        stream: S,
        typed: &mut mpsc::Receiver<Typed>,
    ) -> Served {
        let (reader, mut writer) = split(stream);
        let (sender, mut counts) = watch::channel(None);
        // Ends with this.
        let mut accounts = JoinSet::new();
        accounts.spawn(hear(reader, sender));
        if counts.wait_for(Option::is_some).await.is_err() {
            return Served::Broken;
        }
        let (mut sent, mut end_told) = (0_usize, false);
        loop {
            let count = *counts.borrow_and_update();
            let Some(more) = count.and_then(|count| self.took(count)) else { return Served::Violation };
            sent = sent.saturating_sub(more);
            if sent < self.bytes.len() {
                let piece: Vec<_> =
                    self.bytes.range(sent..self.bytes.len().min(sent + MAX_PIECE)).copied().collect();
                if write(&mut writer, &piece).await.is_err() {
                    return Served::Broken;
                }
                sent += piece.len();
                continue;
            }
            if self.is_over && !end_told {
                if write(&mut writer, &[]).await.is_err() {
                    return Served::Broken;
                }
                end_told = true;
            }
            tokio::select! {
                changed = counts.changed() => if changed.is_err() {
                    return Served::Broken;
                },
                next = typed.recv(), if !self.is_over && self.bytes.len() < AHEAD => match next {
                    Some(Typed::Bytes(bytes)) => self.bytes.extend(bytes),
                    Some(Typed::Keys) => return Served::Detached,
                    None => self.is_over = true,
                },
            }
        }
    }

    /// Forgets what the guest has; how much that was. Nothing where it cannot have that.
    fn took(&mut self, count: u64) -> Option<usize> {
        // A clone has taken what the machine before it was given.
        let before = self.taken.replace(count).unwrap_or(count);
        let more = usize::try_from(count.checked_sub(before)?).ok()?;
        (more <= self.bytes.len()).then(|| self.bytes.drain(..more).len())
    }
}

/// A piece; nothing is its end.
async fn write(writer: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> std::io::Result<()> {
    let mut whole = Vec::with_capacity(HEADER + piece.len());
    whole.extend(header(piece));
    whole.extend(piece);
    writer.write_all(&whole).await?;
    writer.flush().await
}

/// Hears how much has been taken, until the stream breaks.
async fn hear(mut reader: impl AsyncRead + Unpin, counts: watch::Sender<Option<u64>>) {
    let mut count = [0; COUNT];
    while reader.read_exact(&mut count).await.is_ok() {
        counts.send_replace(Some(u64::from_le_bytes(count)));
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use fcvm_proto::input::piece_length;
    use rustix::pipe::pipe;
    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    struct Feeding {
        typing: Option<std::fs::File>,
        streams: mpsc::Sender<DuplexStream>,
        task: JoinHandle<End>,
    }

    impl Feeding {
        fn start() -> Self {
            let (from, typing) = pipe().unwrap();
            let (streams, receiver) = mpsc::channel(1);
            Self { typing: Some(typing.into()), streams, task: tokio::spawn(feed(receiver, from, None)) }
        }

        fn type_in(&mut self, bytes: &[u8]) {
            self.typing.as_mut().unwrap().write_all(bytes).unwrap();
        }

        /// The guest's end of another stream, which says that it has taken so many.
        async fn attach(&self, taken: u64) -> DuplexStream {
            let (ours, mut theirs) = duplex(100);
            self.streams.send(ours).await.unwrap();
            theirs.write_all(&taken.to_le_bytes()).await.unwrap();
            theirs
        }
    }

    /// The next bytes, so many at least; fewer where the end comes.
    async fn take(stream: &mut DuplexStream, least: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < least {
            let mut header = [0; HEADER];
            stream.read_exact(&mut header).await.unwrap();
            let mut piece = vec![0; piece_length(header).unwrap()];
            if piece.is_empty() {
                break;
            }
            stream.read_exact(&mut piece).await.unwrap();
            bytes.extend(piece);
        }
        bytes
    }

    #[tokio::test]
    async fn the_next_stream_goes_on_where_the_guest_is() {
        let mut feeding = Feeding::start();
        // A clone's: what came before was another one's.
        let mut first = feeding.attach(1000).await;
        feeding.type_in(b"one two three");
        assert_eq!(take(&mut first, 13).await, b"one two three");
        first.write_all(&1004_u64.to_le_bytes()).await.unwrap();
        drop(first);
        // It had taken more than it could say.
        let mut second = feeding.attach(1008).await;
        assert_eq!(take(&mut second, 5).await, b"three");
        // One takes the place of another that does not know yet that it is broken.
        let mut third = feeding.attach(1008).await;
        feeding.type_in(b" four");
        assert_eq!(take(&mut third, 10).await, b"three four");
        feeding.typing = None;
        assert_eq!(take(&mut third, 1).await, b"");
        let mut fourth = feeding.attach(1018).await;
        assert_eq!(take(&mut fourth, 1).await, b"", "its end is told again");
        drop(feeding.streams);
        drop(fourth);
        assert_eq!(feeding.task.await.unwrap(), End::Over);
    }

    #[tokio::test]
    async fn only_so_much_is_sent_ahead() {
        let Feeding { typing, streams, task } = Feeding::start();
        let mut typing = typing.unwrap();
        let (ours, mut theirs) = duplex(8 << 20);
        streams.send(ours).await.unwrap();
        theirs.write_all(&0_u64.to_le_bytes()).await.unwrap();
        let writer = std::thread::spawn(move || typing.write_all(&vec![7; 3 << 20]));
        let mut taken = 0;
        while taken < AHEAD {
            taken += take(&mut theirs, 1).await.len();
        }
        let more = timeout(Duration::from_millis(300), take(&mut theirs, 4 << 20)).await;
        assert!(more.is_err() && !writer.is_finished());
        theirs.write_all(&(taken as u64).to_le_bytes()).await.unwrap();
        assert!(!take(&mut theirs, 1).await.is_empty());
        // Who takes more than there was is not believed.
        theirs.write_all(&u64::MAX.to_le_bytes()).await.unwrap();
        assert_eq!(task.await.unwrap(), End::Over);
        drop(theirs);
        drop(streams);
    }
}

//! Both ends of bytes that go one way, over one stream after the other: see [`fcvm_proto::relay`].

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use fcvm_proto::relay::{ACCOUNT, HEADER, MAX_PIECE, OPENING, header, opening, piece_length};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split},
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Bytes that are given before the taker has said that it took them: more than a link holds.
const AHEAD: usize = 1 << 20;
/// Bytes between two accounts: few of those that a giver keeps.
const BETWEEN: u64 = 64 << 10;

/// Where the bytes come from that a [`Giver`] passes on.
pub trait Source: Send {
    /// What comes next. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Next> + Send;
}

/// What comes from a [`Source`].
#[derive(Debug)]
pub enum Next {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// No more.
    End,
    /// No more is to be passed on, and nothing is to be told of that.
    Leave,
}

/// How giving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The taker has everything, and knows that it is all; or no stream can come any more.
    Over,
    /// The source wanted it so.
    Left,
    /// The taker's account cannot be.
    Violation,
}

/// Gives bytes, and keeps those that have perhaps not been taken yet.
#[derive(Debug, Default)]
pub struct Giver {
    bytes: VecDeque<u8>,
    /// Of these, given to the taker: by this stream or, after it broke, by those before.
    given: usize,
    /// Who takes them.
    taker: Option<u64>,
    /// Its account before the first of the bytes.
    taken: u64,
    is_over: bool,
    /// One that took from another giver, and has nothing from this one.
    former: Option<u64>,
}

/// What became of a stream.
enum Served {
    Broken,
    Given(Given),
}

impl Giver {
    /// One after another, whose taker takes no more; its streams may still come.
    #[must_use]
    pub fn after(former: Option<u64>) -> Self {
        Self { former, ..Self::default() }
    }

    /// Who took last.
    #[must_use]
    pub fn taker(&self) -> Option<u64> {
        self.taker
    }

    /// Gives all of a source to one stream after the other; each takes the place of the one before.
    pub async fn give<S>(&mut self, streams: &mut mpsc::Receiver<S>, source: &mut impl Source) -> Given
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut next = streams.recv().await;
        while let Some(mut stream) = next.take() {
            while let Ok(newer) = streams.try_recv() {
                stream = newer;
            }
            tokio::select! {
                biased;
                // What comes now is not for one that perhaps broke.
                Some(stream) = streams.recv() => next = Some(stream),
                served = self.serve(stream, source) => match served {
                    Served::Broken => next = streams.recv().await,
                    Served::Given(given) => return given,
                },
            }
        }
        Given::Over
    }

    /// Serves a stream until it breaks. Cancel-safe: the next goes on.
    async fn serve<S>(&mut self, stream: S, source: &mut impl Source) -> Served
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, mut writer) = split(stream);
        let (sender, mut accounts) = watch::channel(None);
        // Ends with this.
        let mut hearing = JoinSet::new();
        hearing.spawn(hear(reader, sender));
        let opened = accounts.wait_for(Option::is_some).await.ok().and_then(|account| *account);
        let Some((taker, taken)) = opened.filter(|(taker, _)| Some(*taker) != self.former) else {
            return Served::Broken;
        };
        self.meet(taker, taken);
        let mut end_given = false;
        loop {
            let account = *accounts.borrow_and_update();
            let Some(more) = account.and_then(|(_, taken)| taken.checked_sub(self.taken)) else {
                return Served::Given(Given::Violation);
            };
            if self.is_over && more == self.bytes.len() as u64 + 1 {
                return Served::Given(Given::Over);
            }
            if !self.took(more) {
                return Served::Given(Given::Violation);
            }
            // As long as this stream has not: what another was given is to be given again.
            if self.given < self.bytes.len() {
                let at = self.given;
                let (first, second) = self.bytes.as_slices();
                let piece = if at < first.len() { &first[at..] } else { &second[at - first.len()..] };
                let piece = &piece[..piece.len().min(MAX_PIECE)];
                // Whatever becomes of this: none but this taker is to get them.
                self.given += piece.len();
                if write(&mut writer, piece).await.is_err() {
                    return Served::Broken;
                }
                continue;
            }
            if self.is_over && !end_given {
                end_given = true;
                if write(&mut writer, &[]).await.is_err() {
                    return Served::Broken;
                }
            }
            tokio::select! {
                biased;
                changed = accounts.changed() => if changed.is_err() {
                    return Served::Broken;
                },
                next = source.next(), if !self.is_over && self.bytes.len() < AHEAD => match next {
                    Next::Bytes(bytes) => self.bytes.extend(&bytes),
                    Next::End => self.is_over = true,
                    Next::Leave => return Served::Given(Given::Left),
                },
            }
        }
    }

    /// Begins with the taker of a stream where it is.
    fn meet(&mut self, taker: u64, taken: u64) {
        if self.taker == Some(taker) {
            // What it did not take comes again, once its account has been looked at.
            let more = usize::try_from(taken.saturating_sub(self.taken)).unwrap_or(usize::MAX);
            self.given = self.given.min(more);
        } else {
            self.bytes.drain(..self.given);
            (self.given, self.taker, self.taken) = (0, Some(taker), taken);
        }
    }

    /// Forgets what has been taken; `false` where it was not given.
    fn took(&mut self, more: u64) -> bool {
        let Some(count) = usize::try_from(more).ok().filter(|count| *count <= self.given) else {
            return false;
        };
        self.bytes.drain(..count);
        self.given -= count;
        self.taken += more;
        true
    }
}

/// A piece; nothing is its end.
async fn write(writer: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> io::Result<()> {
    writer.write_all(&header(piece)).await?;
    writer.write_all(piece).await?;
    writer.flush().await
}

/// Hears who takes and how much has been taken, until the stream breaks.
async fn hear(mut reader: impl AsyncRead + Unpin, accounts: watch::Sender<Option<(u64, u64)>>) {
    let mut number = [0; ACCOUNT];
    if reader.read_exact(&mut number).await.is_err() {
        return;
    }
    let taker = u64::from_le_bytes(number);
    while reader.read_exact(&mut number).await.is_ok() {
        accounts.send_replace(Some((taker, u64::from_le_bytes(number))));
    }
}

/// Takes what a giver gives: to be read until the end, over one stream after the other.
///
/// The end is read also where no stream can come any more.
#[derive(Debug)]
pub struct Taker<S> {
    id: u64,
    coming: mpsc::Receiver<S>,
    current: Option<Current<S>>,
    /// Bytes, of all streams; the end counts as one.
    taken: u64,
    is_over: bool,
}

/// The stream that is read, and how far within a piece and an account it is.
#[derive(Debug)]
struct Current<S> {
    stream: S,
    header: [u8; HEADER],
    of_header: usize,
    /// Of the piece.
    left: usize,
    /// What is to be said, and how much of it has been.
    words: Vec<u8>,
    said: usize,
    /// The last account in it.
    told: u64,
}

impl<S> Taker<S> {
    /// One that no giver has met by this id, of streams that come.
    #[must_use]
    pub fn new(id: u64, coming: mpsc::Receiver<S>) -> Self {
        Self { id, coming, current: None, taken: 0, is_over: false }
    }

    /// Who it is and how much it has taken: for one that has the end, to be said on streams that come later.
    #[must_use]
    pub fn opening(&self) -> [u8; OPENING] {
        opening(self.id, self.taken)
    }
}

impl<S: AsyncWrite + Unpin> Taker<S> {
    /// After the end: says that to whoever has not heard it. Never returns.
    pub async fn linger(&mut self) {
        while let Some(mut stream) = self.coming.recv().await {
            if let Err(error) = stream.write_all(&self.opening()).await {
                tracing::debug!(%error, "a stream broke");
            }
            stream.flush().await.unwrap_or_default();
            // It stays until the giver has heard it.
            let (words, said) = (Vec::new(), 0);
            let (header, of_header, left, told) = ([0; HEADER], 0, 0, self.taken);
            self.current = Some(Current { stream, header, of_header, left, words, said, told });
        }
        std::future::pending().await
    }
}

impl<S: AsyncWrite + Unpin> Current<S> {
    fn new(stream: S, id: u64, taken: u64) -> Self {
        let words = opening(id, taken).to_vec();
        Self { stream, header: [0; HEADER], of_header: 0, left: 0, words, said: 0, told: taken }
    }

    /// Says what is to be said.
    fn poll_say(&mut self, cx: &mut Context<'_>, taken: u64, at_once: bool) -> Poll<io::Result<()>> {
        loop {
            if self.said == self.words.len() {
                if taken - self.told < if at_once { 1 } else { BETWEEN } {
                    return Poll::Ready(Ok(()));
                }
                (self.words, self.said, self.told) = (taken.to_le_bytes().to_vec(), 0, taken);
            }
            let said = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.words[self.said..]))?;
            if said == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said += said;
            if self.said == self.words.len()
                && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
            {
                flushed?;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Taker<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut closed = false;
            match this.coming.poll_recv(cx) {
                Poll::Ready(Some(stream)) => {
                    this.current = Some(Current::new(stream, this.id, this.taken));
                    continue;
                }
                Poll::Ready(None) => closed = true,
                Poll::Pending => {}
            }
            let Some(current) = &mut this.current else {
                return if closed || this.is_over { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            let said = current.poll_say(cx, this.taken, this.is_over);
            if let Poll::Ready(Err(_)) = said {
                this.current = None;
                continue;
            }
            if this.is_over {
                return said.map(|_| Ok(()));
            }
            let (taken, kind) = ready!(current.poll_take(cx, buf));
            this.taken += taken;
            match kind {
                Taken::Bytes => return Poll::Ready(Ok(())),
                Taken::Header => {}
                Taken::End => this.is_over = true,
                Taken::Broken => this.current = None,
            }
        }
    }
}

enum Taken {
    Bytes,
    Header,
    End,
    Broken,
}

impl<S: AsyncRead + Unpin> Current<S> {
    /// Reads once: how much of what is to be accounted for.
    fn poll_take(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<(u64, Taken)> {
        let in_header = self.left == 0;
        let place = if in_header {
            &mut self.header[self.of_header..]
        } else {
            let most = self.left.min(buf.remaining());
            buf.initialize_unfilled_to(most)
        };
        let mut part = ReadBuf::new(place);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part)).map(|()| part.filled().len());
        // An end that comes by itself is none: the next stream goes on here.
        let Ok(read @ 1..) = read else { return Poll::Ready((0, Taken::Broken)) };
        if !in_header {
            buf.advance(read);
            self.left -= read;
            return Poll::Ready((read as u64, Taken::Bytes));
        }
        self.of_header += read;
        if self.of_header < HEADER {
            return Poll::Ready((0, Taken::Header));
        }
        self.of_header = 0;
        Poll::Ready(match piece_length(self.header) {
            Some(0) => (1, Taken::End),
            Some(length) => {
                self.left = length;
                (0, Taken::Header)
            }
            None => {
                tracing::debug!("a piece is too long");
                (0, Taken::Broken)
            }
        })
    }
}

#[cfg(test)]
mod tests;

//! The answering end: a task that lives from the guest's `Hello` to the VM's end.

use std::{io, path::Path, time::Duration};

use fcvm_link::{
    Opener,
    channel::{ChannelError, Receiver, Sender},
};
use fcvm_proto::{Port, frame};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, copy,
        copy_bidirectional_with_sizes, copy_buf, split,
    },
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{Reply, Request, SOCKET, Wanted};
use crate::{process::SignalNumber, state::VmName};

/// Connections at once: fewer than the streams that the link can carry, of which each may be one.
const MAX_CONNECTIONS: usize = 400;
/// How long a client may take for its request, and the last answers at the VM's end.
const PATIENCE: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// Where no connection can be accepted: most likely all descriptors are in use.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a stream on their way, in each direction.
const BUFFER: usize = 64 << 10;
/// Orders that wait for the VM's owner.
const BACKLOG: usize = 16;

/// What only the VM's own task can do.
#[derive(Debug)]
pub enum Action {
    /// Send the container a signal.
    Signal(SignalNumber),
    /// End the machine now.
    End,
    /// Ask the container to end, and kill it after that time.
    Stop(Duration),
    /// The same, and then run it once more.
    Restart(Duration),
    /// Give the VM another name.
    Rename(VmName),
    /// Make a snapshot.
    Snapshot(Wanted),
}

/// An action and who waits for it.
#[derive(Debug)]
pub struct Order {
    /// What is to be done.
    pub action: Action,
    /// Takes what came of it.
    pub reply: oneshot::Sender<Reply>,
}

/// How far the VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Ended(Option<u8>),
}

/// A listening control socket. Dropped, it listens no more and all connections end.
#[derive(Debug)]
pub struct Server {
    life: watch::Sender<Life>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens in the VM's directory of sockets; orders come out of the receiver.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn listen(directory: &Path, opener: Opener) -> io::Result<(Self, mpsc::Receiver<Order>)> {
        let path = directory.join(SOCKET);
        // That of a boot that failed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let (orders, ordered) = mpsc::channel(BACKLOG);
        let (life, lives) = watch::channel(Life::Running);
        let task = tokio::spawn(accept(listener, Context { opener, orders, life: lives }));
        Ok((Self { life, task }, ordered))
    }

    /// Tells those who wait how the VM ended, and ends.
    pub async fn end(mut self, status: Option<u8>) {
        self.life.send_replace(Life::Ended(status));
        if let Err(error) = (&mut self.task).await {
            tracing::debug!(%error, "the control socket's task failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What connections share.
#[derive(Debug, Clone)]
struct Context {
    opener: Opener,
    orders: mpsc::Sender<Order>,
    life: watch::Receiver<Life>,
}

async fn accept(listener: UnixListener, context: Context) {
    let mut connections = JoinSet::new();
    let mut life = context.life.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    let context = context.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &context).await {
                            tracing::debug!(%error, "a control connection broke");
                        }
                    });
                }
                Ok((stream, _)) => turn_away(&stream),
                Err(error) => {
                    tracing::debug!(%error, "no control connection can be accepted");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = ended(&mut life) => break,
        }
    }
    drop(listener);
    let last = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
    if last.is_err() {
        tracing::debug!(left = connections.len(), "control connections are cut");
    }
}

/// Waits for the VM's end; the container's status where it has one.
async fn ended(life: &mut watch::Receiver<Life>) -> Option<u8> {
    match life.wait_for(|life| *life != Life::Running).await.as_deref() {
        Ok(Life::Ended(status)) => *status,
        Ok(Life::Running) | Err(_) => None,
    }
}

/// Answers without a task: a new socket takes that much at once.
fn turn_away(stream: &UnixStream) {
    if let Ok(bytes) = frame::encode(&Reply::Refused("too many connections".into())) {
        drop(stream.try_write(&bytes));
    }
}

async fn serve(mut stream: UnixStream, context: &Context) -> Result<(), ChannelError> {
    let mut receiver = Receiver::<Request, _>::new(&mut stream);
    let Ok(request) = timeout(PATIENCE, receiver.receive()).await else { return Ok(()) };
    let Some(request) = request? else { return Ok(()) };
    let reply = match request {
        Request::Stream(number) => match Port::from_number(number).filter(|port| port.client_may_open()) {
            Some(port) => match context.opener.open(port).await {
                Ok(guest) => {
                    answer(&mut stream, &Reply::Done).await?;
                    crate::failpoint::reach("stream-relayed");
                    match port {
                        Port::ExecStdout | Port::ExecStderr => relay_output(stream, guest).await,
                        _ => relay(stream, guest).await,
                    }
                    return Ok(());
                }
                // The guest is gone, and so will be its owner: that is told by the end of the connection.
                Err(error) => {
                    tracing::debug!(%error, "no stream for a client");
                    return Ok(());
                }
            },
            None => Reply::Refused(format!("port {number} is not for clients")),
        },
        Request::Signal(number) => match SignalNumber::new(number) {
            Some(signal) => order(context, Action::Signal(signal)).await,
            None => Reply::Refused(format!("there is no signal {number}")),
        },
        Request::End => order(context, Action::End).await,
        Request::Stop { seconds } => order(context, Action::Stop(Duration::from_secs(seconds.into()))).await,
        Request::Restart { seconds } => {
            let action = Action::Restart(Duration::from_secs(seconds.into()));
            return outlive(stream, context.clone(), action).await;
        }
        Request::Rename(name) => match name.parse() {
            Ok(name) => order(context, Action::Rename(name)).await,
            Err(error) => Reply::Refused(error.to_string()),
        },
        Request::Snapshot(wanted) => order(context, Action::Snapshot(wanted)).await,
        Request::Wait => {
            let mut life = context.life.clone();
            tokio::select! {
                status = ended(&mut life) => match status {
                    Some(status) => Reply::Ended(status),
                    None => return Ok(()),
                },
                // Nobody waits any more.
                _ = stream.read_u8() => return Ok(()),
            }
        }
    };
    answer(&mut stream, &reply).await
}

async fn order(context: &Context, action: Action) -> Reply {
    let gone = || Reply::Refused("the VM is ending".into());
    let (reply, done) = oneshot::channel();
    if context.orders.send(Order { action, reply }).await.is_err() {
        return gone();
    }
    done.await.unwrap_or_else(|_| gone())
}

/// Has something done that may take another boot, and with it another control socket: who waits for it is
/// answered all the same, as long as there is an owner.
async fn outlive(mut stream: UnixStream, context: Context, action: Action) -> Result<(), ChannelError> {
    // Dropped, a handle lets its task go on.
    let answered = tokio::spawn(async move {
        let reply = order(&context, action).await;
        answer(&mut stream, &reply).await
    });
    answered.await.unwrap_or(Ok(()))
}

async fn answer(stream: &mut UnixStream, reply: &Reply) -> Result<(), ChannelError> {
    Sender::new(stream).send(reply).await
}

/// Copies both ways until both have ended; the end of one is passed on while the other goes on.
async fn relay<A, B>(mut client: A, mut guest: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER, BUFFER).await {
        tracing::debug!(%error, "a forwarded stream broke");
    }
}

/// The same for an output: a client that goes away has nothing more to say either. Dropped without an
/// end of its own the guest's stream is reset, which its writer hears of; one that was ended first
/// would let it wait for ever.
async fn relay_output<A, B>(client: A, guest: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = split(client);
    let (from_guest, mut to_guest) = split(guest);
    let mut from_guest = BufReader::with_capacity(BUFFER, from_guest);
    let down = async {
        copy_buf(&mut from_guest, &mut to_client).await?;
        to_client.shutdown().await
    };
    let ended = tokio::select! {
        gone = copy(&mut from_client, &mut to_guest) => gone.map(drop),
        ended = down => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a forwarded output broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcvm_link::{Link, Role, multiplex};

    fn pair() -> (Link, Link) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (host, host_driver) = multiplex(near, Role::Host);
        let (guest, guest_driver) = multiplex(far, Role::Guest);
        tokio::spawn(async move { drop(host_driver.await) });
        tokio::spawn(async move { drop(guest_driver.await) });
        (host, guest)
    }

    async fn ask(directory: &Path, request: Request) -> Option<Reply> {
        let mut stream = UnixStream::connect(directory.join(SOCKET)).await.unwrap();
        Sender::new(&mut stream).send(&request).await.unwrap();
        Receiver::new(&mut stream).receive().await.unwrap()
    }

    #[tokio::test]
    async fn orders_are_answered_and_nonsense_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (host, _guest) = pair();
        let (server, mut orders) = Server::listen(directory.path(), host.opener.clone()).unwrap();
        let owner = tokio::spawn(async move {
            let mut actions = Vec::new();
            while let Some(Order { action, reply }) = orders.recv().await {
                actions.push(format!("{action:?}"));
                reply.send(Reply::Done).unwrap();
            }
            actions
        });
        let ask = |request| ask(directory.path(), request);
        assert_eq!(ask(Request::Signal(10)).await, Some(Reply::Done));
        assert_eq!(ask(Request::Stop { seconds: 3 }).await, Some(Reply::Done));
        for request in [Request::Signal(0), Request::Signal(65), Request::Signal(i32::MIN)] {
            assert!(matches!(ask(request.clone()).await, Some(Reply::Refused(_))), "{request:?}");
        }
        for port in [0, 1, 2, 3, 4, u32::MAX] {
            assert!(matches!(ask(Request::Stream(port)).await, Some(Reply::Refused(_))), "{port}");
        }
        // A length that no frame has, and a body that is none.
        for nonsense in [[0xff; 4], [1, 0, 0, 0]] {
            let mut stream = UnixStream::connect(directory.path().join(SOCKET)).await.unwrap();
            stream.write_all(&nonsense).await.unwrap();
            stream.write_all(&[9]).await.unwrap();
            assert!(stream.read_u8().await.is_err(), "it is closed without an answer");
        }
        let waiting = ask(Request::Wait);
        let ending = async {
            sleep(Duration::from_millis(50)).await;
            server.end(Some(7)).await;
        };
        assert_eq!(tokio::join!(waiting, ending).0, Some(Reply::Ended(7)));
        assert_eq!(owner.await.unwrap(), ["Signal(SignalNumber(10))", "Stop(3s)"]);
        assert!(UnixStream::connect(directory.path().join(SOCKET)).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_for_a_restart_hears_of_it_from_the_next_boot() {
        let directory = tempfile::tempdir().unwrap();
        let (host, _guest) = pair();
        let (server, mut orders) = Server::listen(directory.path(), host.opener.clone()).unwrap();
        let asking = ask(directory.path(), Request::Restart { seconds: 0 });
        let owner = async {
            let Order { action, reply } = orders.recv().await.unwrap();
            assert!(matches!(action, Action::Restart(Duration::ZERO)));
            server.end(None).await;
            let (next, _orders) = Server::listen(directory.path(), host.opener.clone()).unwrap();
            reply.send(Reply::Done).unwrap();
            next
        };
        assert_eq!(tokio::join!(asking, owner).0, Some(Reply::Done));
    }

    #[tokio::test]
    async fn there_is_a_limit_of_connections() {
        let directory = tempfile::tempdir().unwrap();
        let (host, _guest) = pair();
        let (_server, _orders) = Server::listen(directory.path(), host.opener.clone()).unwrap();
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(UnixStream::connect(directory.path().join(SOCKET)).await.unwrap());
            tokio::task::yield_now().await;
        }
        let refused = async {
            let mut stream = UnixStream::connect(directory.path().join(SOCKET)).await.unwrap();
            Receiver::<Reply, _>::new(&mut stream).receive().await.unwrap()
        };
        assert_eq!(refused.await, Some(Reply::Refused("too many connections".into())));
        drop(silent);
    }

    /// Through the real link: ends are passed on one by one, and a client that does not read
    /// stalls alone.
    #[tokio::test]
    async fn streams_are_forwarded_with_their_ends() {
        let (host, mut guest) = pair();
        let connect = async |guest: &mut Link| {
            let (client, near) = UnixStream::pair().unwrap();
            let stream = host.opener.open(Port::Stdout).await.unwrap();
            tokio::spawn(relay(near, stream));
            (client, guest.incoming.accept().await.unwrap().1)
        };
        let (_stuck, mut stuck_far) = connect(&mut guest).await;
        let filler = tokio::spawn(async move { while stuck_far.write_all(&[1; 64 << 10]).await.is_ok() {} });
        let (mut client, mut far) = connect(&mut guest).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        let sent = vec![7; 5 << 20];
        let writing = async {
            far.write_all(&sent).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, client.read_to_end(&mut received));
        read.unwrap();
        assert!(received == sent);
        assert!(!filler.is_finished());
        // The other order: the guest's end first.
        let (mut client, mut far) = connect(&mut guest).await;
        far.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.write_all(b"late").await.unwrap();
        client.shutdown().await.unwrap();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "questionlate");
    }

    /// Also where it writes little at first: nobody says when it would be enough.
    #[tokio::test]
    async fn a_guest_hears_of_a_client_that_takes_no_more_output() {
        let (host, mut guest) = pair();
        let (mut client, near) = UnixStream::pair().unwrap();
        let stream = host.opener.open(Port::ExecStdout).await.unwrap();
        let relaying = tokio::spawn(relay_output(near, stream));
        client.write_all(b"id").await.unwrap();
        let mut far = guest.incoming.accept().await.unwrap().1;
        let mut id = [0; 2];
        far.read_exact(&mut id).await.unwrap();
        far.write_all(b"output").await.unwrap();
        far.flush().await.unwrap();
        let mut output = [0; 6];
        client.read_exact(&mut output).await.unwrap();
        assert_eq!((&id, &output), (b"id", b"output"));
        drop(client);
        relaying.await.unwrap();
        while far.write_all(&[1; 64 << 10]).await.is_ok() {}

        let (mut client, near) = UnixStream::pair().unwrap();
        let stream = host.opener.open(Port::ExecStdout).await.unwrap();
        tokio::spawn(relay_output(near, stream));
        let mut far = guest.incoming.accept().await.unwrap().1;
        far.write_all(b"all of it").await.unwrap();
        far.shutdown().await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all of it");
    }
}

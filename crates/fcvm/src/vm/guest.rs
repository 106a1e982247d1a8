//! The host's end of a session with the agent.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use fcvm_link::{
    Link, Opener, Role,
    channel::{ChannelError, Receiver, Sender},
    multiplex, session,
};
use fcvm_proto::{
    Hello, PROTOCOL, Port, ToGuest, ToHost,
    session::{LinkKey, SessionId},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
};

use super::{VmError, run::random};

/// Orders that wait for the guest.
const OUTBOX: usize = 16;
/// Messages of the guest that wait for us.
const INBOX: usize = 64;

/// Messages that may come before an answer that is waited for.
const MOST_EARLY: usize = 1024;

/// A guest that has said `Hello`.
#[derive(Debug)]
pub(super) struct Guest {
    /// What it said.
    pub(super) hello: Hello,
    link: Link,
    orders: mpsc::Sender<ToGuest>,
    messages: mpsc::Receiver<Result<ToHost, ChannelError>>,
    /// What came before it was asked for.
    early: VecDeque<ToHost>,
    /// Driver of the link, reader of messages, writer of orders: they end with the guest.
    _tasks: JoinSet<()>,
}

impl Guest {
    /// Opens a session and answers the agent's `Hello` with this order: waits for it as long as it takes.
    ///
    /// # Errors
    /// Where the pipe breaks, or the agent is none that we understand.
    pub(super) async fn connect<T>(
        pipe: T,
        key: LinkKey,
        id: SessionId,
        mut first: ToGuest,
    ) -> Result<Self, VmError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let pipe = session::connect(pipe, key, id).await.map_err(violation)?;
        let (link, driver) = multiplex(pipe, Role::Host);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the link ended");
            }
        });
        let control = link.opener.open(Port::Control).await.map_err(violation)?;
        let (read, write) = tokio::io::split(control);
        let mut receiver = Receiver::<Hello, _>::new(read);
        let hello = receiver.receive().await.map_err(violation)?.ok_or_else(|| violation("no greeting"))?;
        crate::failpoint::reach("hello");
        if hello.protocol != PROTOCOL {
            return Err(VmError::Protocol {
                build: crate::output::sanitize(&hello.build),
                found: hello.protocol,
            });
        }
        if hello.session != id.0 {
            return Err(violation("a greeting of another session"));
        }
        let mut sender = Sender::<ToGuest, _>::new(write);
        // Until now a guest may have booted, for seconds.
        date(&mut first);
        sender.send(&first).await.map_err(violation)?;
        crate::failpoint::reach("plan-sent");
        let (orders, mut ordered) = mpsc::channel(OUTBOX);
        tasks.spawn(async move {
            while let Some(order) = ordered.recv().await {
                if let Err(error) = sender.send(&order).await {
                    return tracing::debug!(%error, "the guest takes no more orders");
                }
            }
        });
        let (inbox, messages) = mpsc::channel(INBOX);
        let mut receiver = receiver.retype::<ToHost>();
        tasks.spawn(async move {
            while let Some(message) = receiver.receive().await.transpose() {
                let broken = message.is_err();
                if inbox.send(message).await.is_err() || broken {
                    return;
                }
            }
        });
        Ok(Self { hello, link, orders, messages, early: VecDeque::new(), _tasks: tasks })
    }

    /// Waits until a guest that was told `Restore` is what it was told to be.
    ///
    /// # Errors
    /// Where it is not, or the link breaks.
    pub(super) async fn restored(&mut self) -> Result<(), VmError> {
        loop {
            match self.new_message().await.ok_or_else(|| violation("no word of its restoration"))?? {
                ToHost::Restored(None) => return Ok(()),
                ToHost::Restored(Some(why)) => {
                    return Err(VmError::NotRestored { why: crate::output::sanitize(&why) });
                }
                message => self.keep(message)?,
            }
        }
    }

    /// Waits until its scratch disk is frozen.
    ///
    /// # Errors
    /// Why it is not, inside; where the link breaks, outside.
    pub(super) async fn frozen(&mut self) -> Result<Result<(), String>, VmError> {
        // An answer may be late: also one to who was its host when it was saved.
        let number = u64::from_ne_bytes(random()?);
        self.order(ToGuest::Freeze(number));
        loop {
            match self.new_message().await.ok_or_else(|| violation("no word of its disk"))?? {
                ToHost::Frozen(to, failed) if to == number => {
                    return Ok(failed.map_or(Ok(()), |why| Err(crate::output::sanitize(&why))));
                }
                ToHost::Frozen(..) => tracing::debug!("its disk was frozen too late for who asked"),
                message => self.keep(message)?,
            }
        }
    }

    /// Keeps a message for later; no more than a guest has reason to send.
    fn keep(&mut self, message: ToHost) -> Result<(), VmError> {
        if self.early.len() == MOST_EARLY {
            return Err(violation("too many messages instead of an answer"));
        }
        self.early.push_back(message);
        Ok(())
    }

    /// Whether it has said so much already that its job has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.early.iter().any(|message| matches!(message, ToHost::Ended(_)))
    }

    /// Becomes the next session with the same guest: whoever opens streams does so there.
    pub(super) fn follow(&mut self, next: Self) {
        let opener = self.opener();
        opener.lead_to(&next.link.opener);
        *self = next;
        self.link.opener = opener;
    }

    /// Opens streams to it.
    pub(super) fn opener(&self) -> Opener {
        self.link.opener.clone()
    }

    /// Sends an order. Never waits: a guest that does not read must not keep us
    /// from hearing the user. What it leaves unread for too long is dropped.
    pub(super) fn order(&self, order: ToGuest) {
        if let Err(error) = self.orders.try_send(order) {
            tracing::debug!(%error, "the guest takes no more orders");
        }
    }

    /// The next message; `None` where the guest has closed. Cancel-safe.
    pub(super) async fn message(&mut self) -> Option<Result<ToHost, VmError>> {
        match self.early.pop_front() {
            Some(message) => Some(Ok(message)),
            None => self.new_message().await,
        }
    }

    async fn new_message(&mut self) -> Option<Result<ToHost, VmError>> {
        Some(self.messages.recv().await?.map_err(violation))
    }
}

/// What tells the time tells that of now.
fn date(order: &mut ToGuest) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    match order {
        ToGuest::Start(plan) => plan.time_unix_nanos = now,
        ToGuest::Restore(restore) => restore.time_unix_nanos = now,
        _ => {}
    }
}

fn violation(what: impl ToString) -> VmError {
    VmError::Violation { what: crate::output::sanitize(&what.to_string()) }
}

#[cfg(test)]
mod tests {
    use fcvm_link::session::GuestPipe;
    use fcvm_proto::{BootPlan, Identity, Job, Network};

    use super::*;

    const KEY: LinkKey = LinkKey(*b"0123456789abcdef");
    const ID: SessionId = SessionId([7; 16]);

    fn plan() -> BootPlan {
        BootPlan {
            identity: Identity { id: String::new(), name: String::new(), hostname: String::new() },
            time_unix_nanos: 0,
            entropy: Vec::new(),
            network: Network::default(),
            volumes: Vec::new(),
            job: Job::BuildImage,
        }
    }

    /// An agent that greets like this, on the real wire, and hears nothing afterwards.
    async fn meet(hello: Hello) -> Result<Guest, VmError> {
        let (near, far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let mut pipe = GuestPipe::new(far, KEY);
            let (_, io) = pipe.accept().await.unwrap();
            let (mut link, driver) = multiplex(io, Role::Guest);
            tokio::spawn(async move { drop(driver.await) });
            let (_, control) = link.incoming.accept().await.unwrap();
            let mut sender = Sender::new(control);
            sender.send(&hello).await.unwrap();
            std::future::pending::<()>().await;
        });
        Guest::connect(near, KEY, ID, ToGuest::Start(Box::new(plan()))).await
    }

    #[tokio::test]
    async fn the_time_that_is_told_is_that_of_the_telling() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let agent = tokio::spawn(async move {
            let mut pipe = GuestPipe::new(far, KEY);
            let (_, io) = pipe.accept().await.unwrap();
            let (mut link, driver) = multiplex(io, Role::Guest);
            tokio::spawn(async move { drop(driver.await) });
            let (_, control) = link.incoming.accept().await.unwrap();
            let (read, write) = tokio::io::split(control);
            Sender::new(write).send(&hello()).await.unwrap();
            Receiver::<ToGuest, _>::new(read).receive().await.unwrap().unwrap()
        });
        let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let before = now();
        // Made long before, with the time of then.
        let guest = Guest::connect(near, KEY, ID, ToGuest::Start(Box::new(plan()))).await.unwrap();
        let ToGuest::Start(told) = agent.await.unwrap() else { panic!("another order") };
        assert!((before..=now()).contains(&told.time_unix_nanos), "{}", told.time_unix_nanos);
        drop(guest);
    }

    #[tokio::test]
    async fn an_answer_that_came_too_late_is_not_that_of_the_next_question() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (heard, first_heard) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut pipe = GuestPipe::new(far, KEY);
            let (_, io) = pipe.accept().await.unwrap();
            let (mut link, driver) = multiplex(io, Role::Guest);
            tokio::spawn(async move { drop(driver.await) });
            let (_, control) = link.incoming.accept().await.unwrap();
            let (read, write) = tokio::io::split(control);
            let (mut orders, mut hellos) = (Receiver::<ToGuest, _>::new(read), Sender::new(write));
            hellos.send(&hello()).await.unwrap();
            let mut answers = hellos.retype::<ToHost>();
            let mut freeze = async || loop {
                if let ToGuest::Freeze(number) = orders.receive().await.unwrap().unwrap() {
                    return number;
                }
            };
            let first = freeze().await;
            heard.send(()).unwrap();
            let second = freeze().await;
            let ended = ToHost::Ended(fcvm_proto::Outcome::Status(3));
            let late = ToHost::Frozen(first, None);
            for answer in [late, ToHost::Pong(7), ended, ToHost::Frozen(second, Some("busy".into()))] {
                answers.send(&answer).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let mut guest = Guest::connect(near, KEY, ID, ToGuest::Start(Box::new(plan()))).await.unwrap();
        tokio::select! {
            answer = guest.frozen() => panic!("{answer:?}"),
            heard = first_heard => heard.unwrap(),
        }
        assert_eq!(guest.frozen().await.unwrap(), Err("busy".to_owned()));
        // What else came meanwhile is not lost.
        assert!(guest.has_ended());
        assert!(matches!(guest.message().await, Some(Ok(ToHost::Pong(7)))));
        assert!(matches!(guest.message().await, Some(Ok(ToHost::Ended(_)))));
        assert!(!guest.has_ended());
    }

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: "1".into(),
            boot_id: String::new(),
            session: ID.0,
            kernel: "6".into(),
            agent_started: 1,
            said: 2,
        }
    }

    #[tokio::test]
    async fn an_agent_of_another_protocol_is_refused_with_advice() {
        let error = meet(Hello { protocol: 99, build: "9.9\x1b[2J".into(), ..hello() }).await.unwrap_err();
        let expected = format!("guest agent 9.9\\u{{1b}}[2J speaks protocol 99, this fcvm speaks {PROTOCOL}");
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().contains("fcvm setup"));
    }

    #[tokio::test]
    async fn a_greeting_belongs_to_its_session() {
        assert!(meet(hello()).await.is_ok());
        assert!(matches!(meet(Hello { session: [8; 16], ..hello() }).await, Err(VmError::Violation { .. })));
    }
}

//! Sessions with the host: `Hello`, plan, messages, streams.

use std::fs;

use fcvm_link::{
    Link, Role,
    channel::{Receiver, Sender},
    multiplex,
    session::GuestPipe,
};
use fcvm_proto::{Hello, PROTOCOL, Port, ToGuest, ToHost, Transport, session::SessionId};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    container::Wish, device, fault, guest::clock, init::Guest, log, machine::Machine, reaper::Reaper, volumes,
};

/// Messages to the host that wait: log lines beyond are dropped.
const OUTBOX: usize = 256;

enum End {
    SessionOver,
    PowerOff,
}

/// Serves one session after the other until the host orders the guest off.
///
/// # Errors
/// Where the device of the link fails.
pub(crate) async fn serve(guest: Guest, link: Handle) -> anyhow::Result<()> {
    let (outbox, mut messages) = mpsc::channel(OUTBOX);
    log::init(outbox.clone());
    let reaper = Reaper::start()?;
    let (lanes, volumes) = volumes::new(link.clone(), guest.fuse);
    if guest.transport == Transport::Vsock {
        // Before the host hears of us.
        lanes.listen()?;
    }
    let mut machine = Machine::new(guest.root, outbox, reaper, lanes, volumes, guest.diagnosis);
    let device = {
        let _link = link.enter();
        device::Port::open(guest.transport)?
    };
    let mut pipe = GuestPipe::new(device, guest.key);
    let about = About::read(guest.started);
    let mut outcome = None;
    loop {
        let (id, io) = pipe.accept().await?;
        fault::reach("link");
        let (streams, driver) = multiplex(io, Role::Guest);
        let driver = link.spawn(driver);
        let end = session(id, streams, &about, &mut machine, &mut messages, &mut outcome).await;
        machine.rehearse();
        driver.abort();
        match end {
            Ok(End::PowerOff) => return Ok(()),
            Ok(End::SessionOver) => tracing::info!("the host left"),
            Err(error) => tracing::warn!(%error, "the session broke"),
        }
    }
}

async fn session(
    id: SessionId,
    mut link: Link,
    about: &About,
    machine: &mut Machine,
    messages: &mut mpsc::Receiver<ToHost>,
    outcome: &mut Option<ToHost>,
) -> anyhow::Result<End> {
    let control = loop {
        match link.incoming.accept().await {
            Some((Port::Control, stream)) => break stream,
            Some((port, stream)) => machine.attach(port, stream),
            None => return Ok(End::SessionOver),
        }
    };
    let (read, write) = tokio::io::split(control);
    let mut hello = Sender::new(write);
    hello.send(&about.greeting(id)).await?;
    fault::reach("hello");
    let mut sender = hello.retype::<ToHost>();
    // The job may have ended while nobody listened.
    if let Some(outcome) = outcome.as_ref() {
        sender.send(outcome).await?;
    }
    let (orders, mut ordered) = mpsc::channel(8);
    let listener = tokio::spawn(async move {
        let mut receiver = Receiver::<ToGuest, _>::new(read);
        while let Some(order) = receiver.receive().await? {
            if orders.send(order).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    });
    let end = loop {
        tokio::select! {
            order = ordered.recv() => match order {
                Some(ToGuest::Start(plan)) => machine.start(*plan),
                Some(ToGuest::Signal(signal)) => machine.wish(Wish::Signal(signal)),
                Some(ToGuest::Resize(size)) => machine.wish(Wish::Resize(size)),
                Some(ToGuest::Restart) => {
                    outcome.take();
                    machine.wish(Wish::Restart);
                }
                Some(ToGuest::Ping(number)) => sender.send(&ToHost::Pong(number)).await?,
                Some(ToGuest::Freeze(number)) => machine.freeze(number),
                Some(ToGuest::Thaw) => machine.relax(),
                Some(ToGuest::Restore(restore)) => {
                    let failed = machine.restore(&restore).err().map(|error| format!("{error:#}"));
                    sender.send(&ToHost::Restored(failed)).await?;
                }
                Some(ToGuest::Run(program)) => machine.run(*program),
                Some(ToGuest::OutputClosed(port)) => machine.close_output(port),
                Some(ToGuest::PowerOff) => break End::PowerOff,
                None => break End::SessionOver,
            },
            stream = link.incoming.accept() => match stream {
                Some((port, stream)) => machine.attach(port, stream),
                None => break End::SessionOver,
            },
            Some(message) = messages.recv() => {
                if matches!(message, ToHost::Ended(_)) {
                    *outcome = Some(message.clone());
                }
                sender.send(&message).await?;
            }
        }
    };
    listener.abort();
    Ok(end)
}

/// What the host is told of a guest at every session.
struct About {
    boot_id: String,
    kernel: String,
    started: u64,
}

impl About {
    fn read(started: u64) -> Self {
        let line = |path| fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default();
        let (boot_id, kernel) = (line("/proc/sys/kernel/random/boot_id"), line("/proc/sys/kernel/osrelease"));
        Self { boot_id, kernel, started }
    }

    fn greeting(&self, id: SessionId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: env!("CARGO_PKG_VERSION").into(),
            boot_id: self.boot_id.clone(),
            session: id.0,
            kernel: self.kernel.clone(),
            agent_started: self.started,
            said: clock::since_boot(),
        }
    }
}

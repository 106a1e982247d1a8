//! A VM's network while the VM lives.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fcvm_proto::{Interface, Network as Told};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use super::{
    Destination, Driver, Egress, Facts, NetworkError, NetworkRecord, PortRecord, Request, Reservations,
    by_link::Linked,
    denied,
    dns::{HostResolvers, Learn, Learning, Listeners, Names, Policy, Proxy, Upstream},
    layout::{DNS, GATEWAY, RESOLVER, TAP},
    namespace::{Maker, Order, Sockets},
    nft::{self, Place},
    plan::{self, Link, Plan, Uplink},
    relay::{Forward, Relay},
    reservations::raise_limit_of_files,
    rules::{NamespaceRules, learn},
    uplink::{self, Process, SOCKET, Veth},
};
use crate::{
    backoff::Backoff,
    hypervisor::{Nic, NicBackend},
    process::Namespaces,
};

/// Names of the host that Podman and Docker give it.
const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.docker.internal"];

/// What a network is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// What was allocated.
    pub record: &'a NetworkRecord,
    /// Published ports.
    pub ports: &'a [PortRecord],
    /// The VM's directory of sockets.
    pub runtime_dir: &'a Path,
    /// fcvm: it is started once more, to make the namespace.
    pub program: &'a Path,
}

/// The network of a VM. [Stopped](Self::stop), or dropped with less care, it goes.
#[derive(Debug)]
pub struct Network {
    nic: Nic,
    /// What is left to do before the machine runs.
    unfinished: Option<Box<Unfinished>>,
    told: Told,
    veth: Option<Veth>,
    process: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// What serves the guest at its gateway.
    services: JoinSet<()>,
    /// Ports that lead to the guest by the link.
    linked: Vec<Linked>,
}

/// A network of which there is a namespace with a tap.
#[derive(Debug)]
struct Unfinished {
    plan: Plan,
    request: Request,
    resolvers: Resolvers,
    runtime_dir: PathBuf,
    maker: Maker,
    namespaces: Arc<Namespaces>,
    program: PathBuf,
}

/// An uplink that is a process on one side of the namespace.
#[derive(Debug)]
struct Rootless {
    driver: Driver,
    plan: Plan,
    namespaces: Arc<Namespaces>,
    runtime_dir: PathBuf,
    program: PathBuf,
}

impl Network {
    /// Begins to make the network that was allocated; `None` for a VM that is to have none. A machine can be
    /// launched on it, and may run when it is [finished](Self::finish). Whoever calls is to be on the thread that
    /// lives as long as the VM.
    ///
    /// # Errors
    /// What is missing or refused. Nothing is left of it then.
    pub async fn start(
        setting: &Setting<'_>,
        reservations: &mut Reservations,
    ) -> Result<Option<Self>, NetworkError> {
        let &Setting { request, record, ports, runtime_dir, program } = setting;
        let Some(plan) = plan::plan(request, record, ports, Facts::of(record.mode)) else { return Ok(None) };
        let resolvers = Resolvers::of(request, &plan);
        let interface = plan.interface(record.mac.0);
        let mut network = match &plan.uplink {
            Uplink::Socket => {
                reservations.release_ports();
                let process = uplink::start_socket(&plan, runtime_dir).await?;
                let backend = NicBackend::Stream(runtime_dir.join(SOCKET));
                let mut network = Self::new(Nic { interface, backend }, Some(process));
                network.linked = linked(&plan).map_err(NetworkError::kernel("listen at the VM's ports"))?;
                network
            }
            Uplink::Process(_) | Uplink::Veth(_) => {
                // They are the uplink's.
                if matches!(plan.uplink, Uplink::Process(_)) {
                    reservations.release_ports();
                }
                let (maker, namespaces) = Maker::start(program, &order(request, &plan)).await?;
                crate::failpoint::reach("namespace-made");
                let backend = NicBackend::Tap { name: TAP.into(), namespaces: namespaces.clone() };
                let mut network = Self::new(Nic { interface, backend }, None);
                network.told = resolvers.told(request);
                let (request, runtime_dir) = (request.clone(), runtime_dir.to_owned());
                let program = program.to_owned();
                let left = Unfinished { plan, request, resolvers, runtime_dir, maker, namespaces, program };
                network.unfinished = Some(Box::new(left));
                return Ok(Some(network));
            }
        };
        network.told = resolvers.told(request);
        Ok(Some(network))
    }

    /// Makes the rest of it, before the machine runs; nothing where there is none. Whatever fails, no more than the
    /// namespace is there, and it goes.
    ///
    /// # Errors
    /// What is missing or refused.
    pub async fn finish(&mut self) -> Result<(), NetworkError> {
        if let Some(left) = self.unfinished.take() {
            let Unfinished { plan, request, resolvers, runtime_dir, maker, namespaces, program } = *left;
            let sockets = match &plan.uplink {
                Uplink::Veth(link) => {
                    let (veth, sockets) = bridged(link, &plan, &maker, &namespaces).await?;
                    self.veth = Some(veth);
                    sockets
                }
                &Uplink::Process(driver) => {
                    let namespaces = namespaces.clone();
                    let uplink = Rootless { driver, plan, namespaces, runtime_dir, program };
                    maker.go_on()?;
                    let (sockets, process) = tokio::try_join!(maker.ready(), uplink.start(&maker))?;
                    let (stop, stopped) = oneshot::channel();
                    self.process = Some((stop, tokio::spawn(uplink.keep(process, stopped))));
                    sockets
                }
                Uplink::Socket => maker.ready().await?,
            };
            serve(&mut self.services, sockets, &request, &resolvers, &namespaces)?;
        }
        crate::failpoint::reach("network-started");
        Ok(())
    }

    fn new(nic: Nic, process: Option<Process>) -> Self {
        Self {
            nic,
            unfinished: None,
            told: Told::default(),
            veth: None,
            process: process.map(watched),
            services: JoinSet::new(),
            linked: Vec::new(),
        }
    }

    /// The interface of the machine.
    #[must_use]
    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    /// Ports that are served by [`by_link`](super::by_link), once there is a link.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn linked(&self) -> io::Result<Vec<Linked>> {
        self.linked.iter().map(Linked::again).collect()
    }

    /// What the guest is told, beside its interfaces as the hypervisor has them.
    #[must_use]
    pub fn told(&self, interfaces: Vec<Interface>) -> Told {
        Told { interfaces, ..self.told.clone() }
    }

    /// Removes it, once the machine is gone.
    pub async fn stop(mut self) {
        self.services.shutdown().await;
        if let Some((stop, ended)) = self.process.take() {
            drop(stop);
            ended.await.ok();
        }
        if let Some(veth) = self.veth.take() {
            veth.remove().await;
        }
    }
}

async fn bridged(
    link: &Link,
    plan: &Plan,
    maker: &Maker,
    namespaces: &Arc<Namespaces>,
) -> Result<(Veth, Sockets), NetworkError> {
    let (veth, closed) = tokio::try_join!(Veth::make(link, plan.mtu, namespaces), uplink::closed_chains())?;
    maker.go_on()?;
    let (sockets, ()) = tokio::try_join!(maker.ready(), veth.open(link, plan, &closed))?;
    Ok((veth, sockets))
}

impl Rootless {
    /// Starts its process, which finds the namespaces by one that is in them.
    async fn start(&self, inside: &Maker) -> Result<Process, NetworkError> {
        let gone = || NetworkError::Namespace { what: "its maker died".into() };
        let pid = inside.pid().ok_or_else(gone)?;
        let place = uplink::Place { namespaces: &self.namespaces, pid, runtime_dir: &self.runtime_dir };
        uplink::start(self.driver, &self.plan, &place).await
    }

    /// Starts another process in place of one that has ended, until it is no longer wanted.
    async fn keep(self, mut process: Process, mut stopped: oneshot::Receiver<()>) {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            tokio::select! {
                _ = &mut stopped => return process.stop().await,
                error = process.end() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the VM has no network until its uplink is there again");
                }
            }
            let mut lasted = Some(began.elapsed());
            process = loop {
                let pause = backoff.pause(lasted.take());
                let again = async {
                    sleep(pause).await;
                    self.start(&Maker::visit(&self.program, &self.namespaces)?).await
                };
                tokio::select! {
                    _ = &mut stopped => return,
                    started = again => match started {
                        Ok(process) => break process,
                        Err(error) => {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(error, "the VM's uplink does not start again");
                        }
                    }
                }
            };
            tracing::warn!("the VM has a network again");
        }
    }
}

/// Listens where passt does not.
fn linked(plan: &Plan) -> io::Result<Vec<Linked>> {
    let ours = plan.forwards.iter().filter(|forward| uplink::is_loopback(forward));
    ours.map(|forward| {
        let listener = TcpListener::bind(forward.record.host)?;
        Ok(Linked { listener, port: forward.record.guest })
    })
    .collect()
}

/// Sees to it that a process's end is told, unless it is wanted.
fn watched(mut process: Process) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let watching = tokio::spawn(async move {
        tokio::select! {
            _ = stopped => process.stop().await,
            error = process.end() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the VM has no network any more");
            }
        }
    });
    (stop, watching)
}

fn order(request: &Request, plan: &Plan) -> Order {
    let rules = NamespaceRules {
        forwards: &plan.forwards,
        egress: &request.egress,
        forbidden: &plan.forbidden,
        localhost: &request.forward_localhost,
        bandwidth: request.bandwidth,
    };
    let listen = request.forward_localhost.iter().flat_map(|ports| ports.first..=ports.last);
    Order {
        gateways: plan.gateways(),
        uplink: uplink::order(plan),
        listen: listen.collect(),
        ..Order::new(plan.mtu, rules.commands())
    }
}

/// Serves the guest at its gateway.
fn serve(
    services: &mut JoinSet<()>,
    sockets: Sockets,
    request: &Request,
    resolvers: &Resolvers,
    namespaces: &Arc<Namespaces>,
) -> Result<(), NetworkError> {
    let failed = NetworkError::kernel("serve the guest at its gateway");
    // The guest's connections and questions have descriptors here.
    if let Err(error) = raise_limit_of_files() {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let listeners = Listeners { udp: vec![sockets.udp], tcp: vec![sockets.tcp] };
    let policy = policy(&request.egress, namespaces)?;
    let proxy = Proxy::new(listeners, resolvers.upstream(), policy).map_err(&failed)?;
    services.spawn(proxy.serve());
    let ports = request.forward_localhost.iter().flat_map(|ports| ports.first..=ports.last);
    let forwards = sockets.ports.into_iter().zip(ports).map(|(listener, port)| Forward { listener, port });
    let relay = Relay::new(forwards).map_err(&failed)?;
    services.spawn(relay.serve());
    if let Some(log) = sockets.log {
        let log = denied::Log::new(log).map_err(&failed)?;
        services.spawn(async move {
            let Err(error) = log.report().await;
            tracing::warn!(%error, "what the firewall refuses is not told any more");
        });
    }
    Ok(())
}

/// What the guest may ask for.
fn policy(egress: &Egress, namespaces: &Arc<Namespaces>) -> Result<Policy, NetworkError> {
    let destinations: &[_] = match egress {
        Egress::Allow => return Ok(Policy::Anything),
        Egress::Deny => &[],
        Egress::Only(destinations) => destinations,
    };
    let names = destinations.iter().filter_map(|destination| match destination {
        Destination::Name(name) => Some(name),
        Destination::Network(_) => None,
    });
    let names = Names::new(names).map_err(|error| NetworkError::Unsupported {
        what: error.to_string(),
        hint: "write names as DNS has them: example.com, or *.example.com for those below",
    })?;
    Ok(Policy::Only(names, Arc::new(Firewall(namespaces.clone()))))
}

/// The table in a VM's namespace.
#[derive(Debug)]
struct Firewall(Arc<Namespaces>);

impl Learn for Firewall {
    fn learn<'a>(&'a self, addresses: &'a [(IpAddr, Duration)]) -> Learning<'a> {
        Box::pin(async move {
            let learned = nft::apply(&learn(addresses), Place::There(&self.0)).await;
            learned.map(drop).map_err(std::io::Error::other)
        })
    }
}

/// Who answers the guest's questions.
#[derive(Debug)]
struct Resolvers {
    /// Where the guest asks.
    asked: Vec<IpAddr>,
    /// Who is asked for it, where it asks at its gateway; the host's where `None`.
    servers: Option<Vec<SocketAddr>>,
}

impl Resolvers {
    fn of(request: &Request, plan: &Plan) -> Self {
        let servers: Vec<_> = request.dns.iter().map(|address| SocketAddr::new(*address, DNS)).collect();
        // What the guest cannot reach by itself is asked for it, and what it asks is seen where it may not go
        // anywhere.
        let direct = !servers.is_empty()
            && request.egress == Egress::Allow
            && !servers.iter().any(|server| server.ip().is_loopback());
        let gateway = if plan.uplink == Uplink::Socket { RESOLVER } else { GATEWAY };
        Self {
            asked: if direct { request.dns.clone() } else { vec![gateway.into()] },
            servers: (!servers.is_empty()).then_some(servers),
        }
    }

    fn upstream(&self) -> Upstream {
        match &self.servers {
            Some(servers) => Upstream::Servers(servers.clone()),
            None => Upstream::Host(HostResolvers::of_this_host()),
        }
    }

    fn told(&self, request: &Request) -> Told {
        let host = HostResolvers::of_this_host().current();
        let hosts = request.hosts.iter().map(|(name, address)| (address.to_string(), name.clone()));
        let given = |name: &&str| !request.hosts.iter().any(|(other, _)| other == *name);
        let own = HOST_NAMES.into_iter().filter(given).map(|name| (GATEWAY.to_string(), name.to_owned()));
        Told {
            hosts: hosts.chain(own).collect(),
            dns: self.asked.iter().map(ToString::to_string).collect(),
            // Of a name that it may not ask for, glibc asks no further.
            search: match (&request.dns_search, &request.egress) {
                (Some(domains), _) => domains.clone(),
                (None, Egress::Allow) => host.search.clone(),
                (None, Egress::Deny | Egress::Only(_)) => Vec::new(),
            },
            dns_options: if request.dns_options.is_empty() {
                host.options.clone()
            } else {
                request.dns_options.clone()
            },
            interfaces: Vec::new(),
        }
    }
}

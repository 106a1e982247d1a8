//! A link between the host and a VM's namespace, and the host's table for it.

use std::{fs, io, net::IpAddr, os::fd::AsFd as _, path::Path};

use crate::{
    network::{
        NetworkError, OUR_INTERFACES, forwarding,
        garbage::{self, SHARED},
        layout::UPLINK,
        links::Links,
        namespace,
        nft::{self, Place},
        plan::{LINK_PREFIX, LINK_PREFIX_V6, Link, Plan},
        rules::{
            self, HostRules,
            passage::{self, Chain},
        },
    },
    process::Namespaces,
};

/// The host's part of a bridged VM's network. Dropped, it goes, while whoever drops it waits.
#[derive(Debug)]
pub(crate) struct Veth {
    /// `None` once it is gone.
    name: Option<String>,
    /// The host's kernel passes packets on meanwhile.
    _forwarding: forwarding::Held,
}

impl Veth {
    /// Makes it; the table comes [later](Self::open). What is made is removed by
    /// [`remove`](Self::remove), or with the namespace.
    ///
    /// # Errors
    /// Where the kernel refuses, or another VM has this very link.
    pub(crate) async fn make(link: &Link, mtu: u16, namespaces: &Namespaces) -> Result<Self, NetworkError> {
        let has_v6 = link.addresses.len() > 1;
        let settings: &[_] = if has_v6 { &[forwarding::V4, forwarding::V6] } else { &[forwarding::V4] };
        let held = forwarding::hold(Path::new(SHARED), settings)?;
        let links = Links::open().map_err(NetworkError::kernel("talk to the kernel of networks"))?;
        let peer = (UPLINK, namespaces.network.as_fd());
        let made = match links.make_pair(&link.name, peer, mtu).await {
            // The network is this VM's alone: what is there is on its way out, with a dead VM's namespace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match links.remove(&link.name).await {
                    Ok(()) => links.make_pair(&link.name, peer, mtu).await,
                    Err(error) => Err(error),
                }
            }
            made => made,
        };
        made.map_err(NetworkError::kernel("make a veth pair"))?;
        crate::failpoint::reach("veth-made");
        let made = Self { name: Some(link.name.clone()), _forwarding: held };
        configure(&links, link)
            .await
            .map_err(NetworkError::kernel("configure the host's end of the VM's link"))?;
        Ok(made)
    }

    /// Makes the host's table, and ways through these chains of the host's own.
    ///
    /// # Errors
    /// Where `nft` is missing, or refuses.
    pub(crate) async fn open(&self, link: &Link, plan: &Plan, closed: &[Chain]) -> Result<(), NetworkError> {
        let addresses: Vec<_> = link.addresses.iter().map(|(_, there)| *there).collect();
        let make = async |closed: &[Chain]| {
            let rules = HostRules {
                table: &link.name,
                interface: &link.name,
                interfaces: OUR_INTERFACES,
                addresses: &addresses,
                forwards: &plan.forwards,
                closed,
            };
            nft::apply(&rules.commands(), Place::Here).await
        };
        if let Err(error) = make(closed).await {
            // Whoever has the firewall may have made it anew since.
            let now = closed_chains().await?;
            if now == closed {
                return Err(error);
            }
            make(&now).await?;
        }
        crate::failpoint::reach("table-made");
        Ok(())
    }

    /// Removes it.
    pub(crate) async fn remove(mut self) {
        if let Some(name) = self.name.take() {
            remove(&name).await;
        }
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            garbage::apart(async move { remove(&name).await });
        }
    }
}

async fn configure(links: &Links, link: &Link) -> io::Result<()> {
    let conf = |family: &str, setting: &str, value: &str| {
        fs::write(format!("/proc/sys/net/{family}/conf/{}/{setting}", link.name), value)
    };
    // So that what comes from the host's loopback can be translated. What comes from the VM for it is
    // dropped by the table, which is there before the VM is.
    conf("ipv4", "route_localnet", "1")?;
    conf("ipv4", "accept_redirects", "0")?;
    conf("ipv4", "send_redirects", "0")?;
    if link.addresses.len() > 1 {
        conf("ipv6", "accept_ra", "0")?;
        conf("ipv6", "accept_redirects", "0")?;
    }
    for (here, _) in &link.addresses {
        links.add_address(&link.name, *here, prefix(*here)).await?;
    }
    links.bring_up(&link.name, None, None).await
}

/// Chains of the host's own firewall that would drop what is passed on for a VM.
///
/// # Errors
/// Where `nft` is missing, or refuses.
pub(crate) async fn closed_chains() -> Result<Vec<Chain>, NetworkError> {
    let listed = nft::apply(&passage::list_chains(), Place::Here).await?;
    Ok(passage::closed(&listed, OUR_INTERFACES))
}

/// The namespace's side.
pub(crate) fn order(link: &Link) -> namespace::Uplink {
    namespace::Uplink {
        tap: None,
        addresses: link.addresses.iter().map(|(_, there)| (*there, prefix(*there))).collect(),
        gateways: link.addresses.iter().map(|(here, _)| *here).collect(),
    }
}

/// Removes a link, its table and its ways through the host's firewall, whatever of them is there. The link last, and
/// before it the table: by it garbage is known.
pub(crate) async fn remove(name: &str) {
    if let Err(error) = close(name).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            link = name,
            "rules of the firewall are left"
        );
    }
    if let Err(error) = nft::apply(&rules::remove(name), Place::Here).await {
        tracing::warn!(error = &error as &dyn std::error::Error, table = name, "a table is left");
    }
    let removed = match Links::open() {
        Ok(links) => links.remove(name).await,
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, interface = name, "a network interface is left");
    }
}

/// Removes the ways through the host's firewall.
async fn close(name: &str) -> Result<(), NetworkError> {
    let mut result = Ok(());
    for chain in candidates().await? {
        let closed = close_in(&chain, name).await;
        // A chain that has gone since has taken its rules along.
        if closed.is_err() && candidates().await?.contains(&chain) {
            result = closed;
        }
    }
    result
}

/// Chains where such ways may be.
async fn candidates() -> Result<Vec<Chain>, NetworkError> {
    let chains = nft::apply(&passage::list_chains(), Place::Here).await?;
    Ok(passage::candidates(&chains, OUR_INTERFACES))
}

async fn close_in(chain: &Chain, name: &str) -> Result<(), NetworkError> {
    let rules = nft::apply(&chain.list(), Place::Here).await?;
    match passage::close(&rules, name) {
        Some(removal) => nft::apply(&removal, Place::Here).await.map(drop),
        None => Ok(()),
    }
}

fn prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { LINK_PREFIX } else { LINK_PREFIX_V6 }
}

//! The host's routes, its own addresses among them.

use std::{io, net::Ipv4Addr};

use futures::TryStreamExt as _;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};

use super::{NetworkError, Prefix};

/// With what the names of the host's interfaces to VMs begin.
pub const OUR_INTERFACES: &str = "fcvm-";

/// Where packets for a network go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The network; of one address where it is the host's own.
    pub network: Prefix,
    /// By which interface, where it is one.
    pub interface: String,
}

impl Route {
    /// Whether it leads to a VM.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.interface.starts_with(OUR_INTERFACES)
    }
}

/// The host's IPv4 routes of all tables, but for those that lead anywhere or nowhere.
///
/// # Errors
/// The kernel's.
pub async fn routes() -> Result<Vec<Route>, NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Routes)?;
    // It ends with the handle.
    tokio::spawn(connection);
    let all = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let all: Vec<_> =
        all.try_collect().await.map_err(|error| NetworkError::Routes(io::Error::other(error)))?;
    Ok(all.iter().filter_map(|message| route(message, name)).collect())
}

/// A route to somewhere, unless its interface has gone since: then it has, too.
fn route(message: &RouteMessage, name: impl Fn(u32) -> Option<String>) -> Option<Route> {
    let header = &message.header;
    // A default route, or half of one as VPNs have it, is in nobody's way: other routes come before it.
    if !matches!(header.kind, RouteType::Unicast | RouteType::Local) || header.destination_prefix_length < 2 {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    let index = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    Some(Route {
        network: Prefix::of(address.into(), header.destination_prefix_length),
        interface: match index {
            Some(index) => name(index)?,
            // By several.
            None => "?".into(),
        },
    })
}

/// The name of an interface, where it is still there.
fn name(index: u32) -> Option<String> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    index_to_name(any, index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_own_network_is_among_its_routes() {
        let routes = routes().await.unwrap();
        let loopback = Route { network: "127.0.0.0/8".parse().unwrap(), interface: "lo".into() };
        assert!(routes.contains(&loopback) && !loopback.is_ours(), "{routes:?}");
        assert!(routes.iter().all(|route| route.network.length > 1));
    }

    #[test]
    fn a_route_of_an_interface_that_has_gone_is_none() {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(10, 0, 0, 4), 30)
            .output_interface(7)
            .build();
        let found = route(&message, |index| Some(format!("fcvm-{index}"))).unwrap();
        assert!(found.is_ours(), "{found:?}");
        assert_eq!(route(&message, |_| None), None);
    }
}

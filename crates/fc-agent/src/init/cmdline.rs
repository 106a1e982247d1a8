//! The kernel command line.

use anyhow::Context as _;
use fcvm_proto::{Transport, session::LinkKey};

/// The value of a parameter.
pub(super) fn parameter<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cmdline.split_ascii_whitespace().filter_map(|parameter| parameter.split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The link key among the parameters.
pub(super) fn link_key(cmdline: &str) -> Option<LinkKey> {
    parameter(cmdline, LinkKey::PARAMETER).and_then(LinkKey::from_hex)
}

/// What leads to the host, by the parameters.
///
/// # Errors
/// Where they name none that this agent knows.
pub(super) fn transport(cmdline: &str) -> anyhow::Result<Transport> {
    let Some(name) = parameter(cmdline, Transport::PARAMETER) else { return Ok(Transport::default()) };
    Transport::from_name(name).with_context(|| format!("this agent knows no transport `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_among_other_parameters() {
        let hex = "00112233445566778899aabbccddeeff";
        let key = link_key(&format!("quiet fcvm.link={hex} panic=-1\n"));
        assert_eq!(key.map(LinkKey::to_hex).as_deref(), Some(hex));
        assert_eq!(link_key("quiet fcvm.link=1 x"), None);
        assert_eq!(link_key(""), None);
    }

    #[test]
    fn the_transport_is_virtio_serial_unless_named() {
        assert_eq!(transport("quiet").unwrap(), Transport::VirtioSerial);
        assert_eq!(transport("a=b fcvm.transport=vsock c").unwrap(), Transport::Vsock);
        assert!(transport("fcvm.transport=smoke").is_err());
    }
}

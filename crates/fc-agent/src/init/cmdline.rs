//! The kernel command line.

use fcvm_proto::session::LinkKey;

/// The value of a parameter.
pub(super) fn parameter<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cmdline.split_ascii_whitespace().filter_map(|parameter| parameter.split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The link key among the parameters.
pub(super) fn link_key(cmdline: &str) -> Option<LinkKey> {
    parameter(cmdline, LinkKey::PARAMETER).and_then(LinkKey::from_hex)
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
}

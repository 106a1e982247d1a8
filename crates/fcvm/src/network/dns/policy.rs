//! What a guest may ask for, and which addresses it may go to because of the answers.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::{Header, Message, Query as Question},
    rr::{DNSClass, Name, RData},
    serialize::binary::{BinDecodable as _, BinDecoder, DecodeError},
};
use tokio::time::Instant;

use super::message::{LONGEST_LABEL, LONGEST_NAME, Query};
use crate::network::recently::Recently;

/// For how long an address may be gone to at least: programs keep them longer than they are told to.
const SHORTEST: Duration = Duration::from_secs(60);
/// At most: who goes on asking is told again.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Names that stand for others, one behind the other.
const LONGEST_CHAIN: usize = 16;

/// What comes of [`Learn::learn`].
pub type Learning<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Who lets the guest go to addresses.
pub trait Learn: Send + Sync {
    /// The guest may go to each of these for so long from now: it hears of them once this is done, and not
    /// at all where it fails.
    fn learn<'a>(&'a self, addresses: &'a [(IpAddr, Duration)]) -> Learning<'a>;
}

/// What a guest may ask for.
pub enum Policy {
    /// Anything.
    Anything,
    /// Certain names, whose addresses are told before the guest hears of them.
    Only(Names, Arc<dyn Learn>),
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("Anything"),
            Self::Only(names, _) => f.debug_tuple("Only").field(names).finish_non_exhaustive(),
        }
    }
}

/// Names, and what is below names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// As on the wire, in lower case.
    exact: HashSet<Vec<u8>>,
    /// Everything below these is meant, and not they themselves.
    below: HashSet<Vec<u8>>,
}

/// A name that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name of a host")]
pub struct NameError {
    /// The name.
    name: String,
}

impl Names {
    /// Takes names such as `example.com`, and `*.example.com` for all that is below it.
    ///
    /// # Errors
    /// Where one is empty, too long or has parts that are.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NameError> {
        let mut this = Self::default();
        for name in names {
            let name = name.as_ref();
            let (set, host) = match name.strip_prefix("*.") {
                Some(rest) => (&mut this.below, rest),
                None => (&mut this.exact, name),
            };
            set.insert(on_the_wire(host).ok_or_else(|| NameError { name: name.into() })?);
        }
        Ok(this)
    }

    /// Whether a name as on the wire, in lower case, is among them.
    fn contain(&self, name: &[u8]) -> bool {
        if self.exact.contains(name) {
            return true;
        }
        let mut rest = name;
        while let Some((&length @ 1.., after)) = rest.split_first() {
            rest = after.get(usize::from(length)..).unwrap_or_default();
            if self.below.contains(rest) {
                return true;
            }
        }
        false
    }
}

fn on_the_wire(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LONGEST_LABEL || label.contains('*') || !label.is_ascii() {
            return None;
        }
        wire.push(length);
        wire.extend(label.as_bytes().to_ascii_lowercase());
    }
    wire.push(0);
    (wire.len() <= LONGEST_NAME).then_some(wire)
}

/// A policy at work.
#[derive(Debug)]
pub(super) struct Gate {
    policy: Policy,
    refused: Mutex<Recently<Vec<u8>>>,
}

/// An answer that the guest must not hear.
#[derive(Debug, thiserror::Error)]
pub(super) enum Withheld {
    #[error("an answer cannot be read")]
    Unreadable(#[from] DecodeError),
    #[error("its addresses could not be let through")]
    Learn(#[source] io::Error),
}

impl Gate {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, refused: Mutex::new(Recently::new()) }
    }

    /// Whether this may be asked. What may not is logged.
    pub(super) fn admits(&self, query: &Query) -> bool {
        let Policy::Only(names, _) = &self.policy else { return true };
        let name = query.name();
        if query.is_internet() && names.contain(&name) {
            return true;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_news(name.clone(), Instant::now()) {
            tracing::info!(target: "egress", name = readable(&name), "name refused");
        }
        false
    }

    /// Tells the addresses of an answer, before the guest gets it.
    pub(super) async fn learn(&self, query: &Query, answer: &[u8]) -> Result<(), Withheld> {
        let Policy::Only(_, learner) = &self.policy else { return Ok(()) };
        let addresses = addresses(&query.name(), answer)?;
        if addresses.is_empty() {
            return Ok(());
        }
        learner.learn(&addresses).await.map_err(Withheld::Learn)
    }
}

/// The addresses that an answer gives of a name, by way of other names or not, each for how long.
///
/// Those that no name leads to are left out: of loopback and the link, of groups, and none at all. The
/// metadata of a cloud's host, say, is at a link-local address.
fn addresses(name: &[u8], answer: &[u8]) -> Result<Vec<(IpAddr, Duration)>, DecodeError> {
    let mut decoder = BinDecoder::new(answer);
    let header = Header::read(&mut decoder)?;
    // The first is the guest's own, as has been seen.
    for _ in 0..header.counts.queries {
        Question::read(&mut decoder)?;
    }
    let count = header.counts.answers.into();
    let (mut records, ..) = Message::read_records(&mut decoder, count, false, header.metadata.op_code)?;
    records.retain(|record| record.dns_class == DNSClass::IN);

    let mut names = HashSet::from([Name::read(&mut BinDecoder::new(name))?]);
    for _ in 0..LONGEST_CHAIN {
        let before = names.len();
        for record in &records {
            match &record.data {
                RData::CNAME(target) if names.contains(&record.name) => names.insert(target.0.clone()),
                _ => continue,
            };
        }
        if names.len() == before {
            break;
        }
    }

    let mut addresses = HashMap::new();
    for record in records.iter().filter(|record| names.contains(&record.name)) {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => continue,
        };
        if may_be_named(address) {
            let time = Duration::from_secs(record.ttl.into()).clamp(SHORTEST, LONGEST);
            let known = addresses.entry(address).or_insert(time);
            *known = time.max(*known);
        }
    }
    Ok(addresses.into_iter().collect())
}

fn may_be_named(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // "This network" is 0.0.0.0/8; Linux takes its first address for itself.
            !(v4.octets()[0] == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast())
        }
    }
}

/// A name of the guest's for the log: nothing in it is more than a character.
fn readable(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&length @ 1.., after)) = rest.split_first() {
        let (label, others) = after.split_at_checked(length.into()).unwrap_or((after, &[]));
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.escape_ascii().map(char::from));
        rest = others;
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{MessageType, OpCode},
        rr::{
            Record,
            rdata::{A, AAAA, CNAME},
        },
    };
    use proptest::prelude::*;

    use super::*;

    fn contains(names: &[&str], name: &str) -> bool {
        Names::new(names).unwrap().contain(&on_the_wire(name).unwrap())
    }

    #[test]
    fn names_are_whole_and_stars_mean_what_is_below() {
        assert!(contains(&["example.com"], "EXAMPLE.com."));
        assert!(contains(&["Example.com."], "example.com"));
        assert!(!contains(&["example.com"], "www.example.com"));
        assert!(!contains(&["example.com"], "badexample.com"));
        assert!(!contains(&["example.com"], "com"));
        assert!(contains(&["*.example.com"], "www.example.com"));
        assert!(contains(&["*.example.com"], "a.b.example.com"));
        assert!(!contains(&["*.example.com"], "example.com"));
        assert!(!contains(&["*.example.com"], "badexample.com"));
        assert!(!contains(&["*.example.com"], "www.example.com.net"));
        assert!(!contains(&[], "example.com"));
        assert!(!Names::new(["example.com"]).unwrap().contain(b"\0"));
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let long = "a".repeat(64);
        let many = "a.".repeat(130);
        for wrong in ["", "*.", ".", "a..b", "*", "a.*.b", "*.*.b", "é.example", &long, &many] {
            assert!(Names::new([wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_in_the_log_are_harmless() {
        assert_eq!(readable(b"\x03www\x07example\0"), "www.example");
        assert_eq!(readable(b"\x05a\x1b[1\n\0"), "a\\x1b[1\\n");
        assert_eq!(readable(b"\0"), ".");
    }

    fn record(name: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
    }

    fn a(address: [u8; 4]) -> RData {
        RData::A(A(address.into()))
    }

    fn alias(name: &str) -> RData {
        RData::CNAME(CNAME(Name::from_ascii(name).unwrap()))
    }

    fn learned(name: &str, records: Vec<Record>) -> Vec<(String, u64)> {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_answers(records);
        let found = addresses(&on_the_wire(name).unwrap(), &message.to_vec().unwrap()).unwrap();
        let mut found: Vec<_> =
            found.into_iter().map(|(address, time)| (address.to_string(), time.as_secs())).collect();
        found.sort();
        found
    }

    #[test]
    fn addresses_are_learned_along_aliases_only() {
        let found = learned(
            "a.example",
            vec![
                record("c.example.", 300, a([192, 0, 2, 3])),
                record("B.example.", 10, alias("c.example.")),
                record("A.example.", 10, alias("b.example.")),
                record("other.example.", 300, a([192, 0, 2, 4])),
                record("c.example.", 1, RData::AAAA(AAAA("2001:db8::3".parse().unwrap()))),
            ],
        );
        assert_eq!(found, [("192.0.2.3".into(), 300), ("2001:db8::3".into(), 60)]);
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let circle =
            vec![record("a.example.", 1, alias("b.example.")), record("b.example.", 1, alias("a.example."))];
        assert_eq!(learned("a.example", circle), []);
    }

    #[test]
    fn no_name_leads_to_the_host_itself() {
        let places = [
            [127, 0, 0, 1],
            [169, 254, 169, 254],
            [0, 0, 0, 0],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [10, 0, 0, 1],
        ];
        let mut records: Vec<_> = places.map(|address| record("a.example.", u32::MAX, a(address))).into();
        for address in ["::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1"] {
            records.push(record("a.example.", 1, RData::AAAA(AAAA(address.parse().unwrap()))));
        }
        assert_eq!(learned("a.example", records), [("10.0.0.1".into(), 86400)]);
    }

    proptest! {
        #[test]
        fn stars_are_compared_label_by_label(
            labels in proptest::collection::vec("[a-z0-9-]{1,8}", 1..6),
            below in proptest::collection::vec("[a-z0-9-]{1,8}", 1..4),
        ) {
            let star = format!("*.{}", below.join("."));
            let expected = labels.len() > below.len() && labels.ends_with(&below);
            prop_assert_eq!(contains(&[&star], &labels.join(".")), expected);
        }

        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u8..4) {
            let name = on_the_wire("a.example").unwrap();
            addresses(&name, &bytes).ok();
            let header = [0, 1, 0x80, 0, 0, 0, 0, count, 0, 0, 0, 0];
            addresses(&name, &[&header[..], &bytes].concat()).ok();
            Names::new(["*.example.com"]).unwrap().contain(&bytes);
            readable(&bytes);
        }
    }
}

//! The few bytes of a message that the proxy itself looks at: header and question of RFC 1035, section 4.1.

/// Header: id, flags, and four counts.
const HEADER: usize = 12;
/// A name on the wire, with its length bytes and the root's.
pub(super) const LONGEST_NAME: usize = 255;
/// A part of it.
pub(super) const LONGEST_LABEL: usize = 63;
/// Its type and class follow the name.
const TYPE_AND_CLASS: usize = 4;

/// In the third byte: an answer; the kind of the query; to be resolved to the end.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;
/// In the fourth: resolved to the end; the outcome.
const RECURSION_AVAILABLE: u8 = 0x80;
const OUTCOME: u8 = 0x0f;

const CLASS_IN: u16 = 1;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;

/// Why there is no answer but this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The query cannot be read.
    Format = 1,
    /// Nobody answers.
    Server = 2,
    /// It is no plain question.
    NotImplemented = 4,
    /// It may not be asked.
    Refused = 5,
}

/// What to do with a message that cannot be passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Nothing: it is no query.
    Ignored,
    /// Send this.
    Answered(Vec<u8>),
}

/// A question of the guest's, to be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    bytes: Vec<u8>,
    /// Where the question's name ends.
    name_end: usize,
}

impl Query {
    /// Reads a message from the guest.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Rejected> {
        // An answer to an answer could go round for ever.
        if bytes.len() < HEADER || bytes[2] & RESPONSE != 0 {
            return Err(Rejected::Ignored);
        }
        if bytes[2] & OPCODE != 0 {
            return Err(Rejected::Answered(failure(&bytes[..HEADER], None, Failure::NotImplemented)));
        }
        let wrong = || Rejected::Answered(failure(&bytes[..HEADER], None, Failure::Format));
        if count(bytes, 0) != 1 || count(bytes, 1) != 0 {
            return Err(wrong());
        }
        let name_end = end_of_name(bytes).ok_or_else(wrong)?;
        let query = Self { bytes: bytes.to_vec(), name_end };
        if bytes.len() < query.question_end() {
            return Err(wrong());
        }
        match query.question_type() {
            TYPE_IXFR | TYPE_AXFR => Err(Rejected::Answered(query.failure(Failure::Refused))),
            _ => Ok(query),
        }
    }

    /// The message, with an id of its own.
    pub(super) fn with_id(&self, id: [u8; 2]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id);
        bytes
    }

    /// The guest's id.
    pub(super) fn id(&self) -> [u8; 2] {
        [self.bytes[0], self.bytes[1]]
    }

    /// The name that is asked for, as on the wire, in lower case.
    pub(super) fn name(&self) -> Vec<u8> {
        // The lengths of labels are below the letters.
        self.bytes[HEADER..self.name_end].to_ascii_lowercase()
    }

    /// Whether the question is of the Internet's class.
    pub(super) fn is_internet(&self) -> bool {
        number(&self.bytes, self.name_end + 2) == CLASS_IN
    }

    /// An answer that says no more than why there is none.
    pub(super) fn failure(&self, why: Failure) -> Vec<u8> {
        failure(&self.bytes[..HEADER], Some(self.question()), why)
    }

    /// Whether a message answers this query, asked with that id.
    pub(super) fn is_answered_by(&self, answer: &[u8], id: [u8; 2]) -> bool {
        if answer.len() < HEADER || answer[..2] != id || answer[2] & (RESPONSE | OPCODE) != RESPONSE {
            return false;
        }
        match count(answer, 0) {
            // Servers that cannot read the question do not repeat it.
            0 => outcome(answer) != 0,
            1 => answer.get(HEADER..self.question_end()).is_some_and(|other| self.is_question(other)),
            _ => false,
        }
    }

    /// The case of letters may change on the way; type and class may not.
    fn is_question(&self, other: &[u8]) -> bool {
        let name = self.name_end - HEADER;
        let question = self.question();
        question[..name].eq_ignore_ascii_case(&other[..name]) && question[name..] == other[name..]
    }

    fn question(&self) -> &[u8] {
        &self.bytes[HEADER..self.question_end()]
    }

    fn question_type(&self) -> u16 {
        number(&self.bytes, self.name_end)
    }

    fn question_end(&self) -> usize {
        self.name_end + TYPE_AND_CLASS
    }
}

/// What a server says of an answer: whether another may know more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It knows, or knows that there is nothing.
    Final,
    /// It cannot say.
    AskAnother,
}

/// What an answer is worth.
pub(super) fn verdict(answer: &[u8]) -> Verdict {
    const UNABLE: [u8; 3] = [Failure::Server as u8, Failure::NotImplemented as u8, Failure::Refused as u8];
    if UNABLE.contains(&outcome(answer)) { Verdict::AskAnother } else { Verdict::Final }
}

fn outcome(answer: &[u8]) -> u8 {
    answer[3] & OUTCOME
}

fn failure(header: &[u8], question: Option<&[u8]>, why: Failure) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = RESPONSE | (header[2] & (OPCODE | RECURSION_DESIRED));
    answer[3] = RECURSION_AVAILABLE | why as u8;
    if let Some(question) = question {
        answer[5] = 1;
        answer.extend(question);
    }
    answer
}

/// The `which`-th of the header's counts.
fn count(bytes: &[u8], which: usize) -> u16 {
    number(bytes, 4 + 2 * which)
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where the first question's name ends: one without references, as nothing is before it.
fn end_of_name(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        if length > LONGEST_LABEL || at - HEADER > LONGEST_NAME {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for `a.example`, type A.
    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x07eXample\0\0\x01\0\x01";

    fn changed(at: usize, byte: u8) -> Vec<u8> {
        let mut bytes = QUERY.to_vec();
        bytes[at] = byte;
        bytes
    }

    #[test]
    fn a_query_is_read() {
        let query = Query::parse(QUERY).unwrap();
        assert_eq!(query.name(), b"\x01a\x07example\0");
        assert!(query.is_internet());
        assert_eq!(query.id(), [0x12, 0x34]);
        assert_eq!(&query.with_id([1, 2])[..3], [1, 2, 1]);
        assert_eq!(query.with_id(query.id()), QUERY);
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        assert_eq!(Query::parse(b""), Err(Rejected::Ignored));
        assert_eq!(Query::parse(&QUERY[..11]), Err(Rejected::Ignored));
        assert_eq!(Query::parse(&changed(2, 0x81)), Err(Rejected::Ignored));
    }

    #[test]
    fn what_cannot_be_passed_on_is_answered() {
        let outcome_of = |bytes: &[u8]| match Query::parse(bytes) {
            Err(Rejected::Answered(answer)) => {
                assert_eq!(answer[..2], bytes[..2]);
                assert_eq!(answer[2] & RESPONSE, RESPONSE);
                outcome(&answer)
            }
            other => panic!("{other:?}"),
        };
        // An update, and a notification.
        assert_eq!(outcome_of(&changed(2, 5 << 3)), 4);
        assert_eq!(outcome_of(&changed(2, 4 << 3)), 4);
        // Two questions, none, and an answer in a query.
        assert_eq!(outcome_of(&changed(5, 2)), 1);
        assert_eq!(outcome_of(&changed(5, 0)), 1);
        assert_eq!(outcome_of(&changed(7, 1)), 1);
        // A reference, and a name or a question that ends too early.
        assert_eq!(outcome_of(&changed(12, 0xc0)), 1);
        assert_eq!(outcome_of(&QUERY[..20]), 1);
        assert_eq!(outcome_of(&QUERY[..QUERY.len() - 1]), 1);
        // Transfers of a zone.
        assert_eq!(outcome_of(&changed(QUERY.len() - 3, 252)), 5);
        assert_eq!(outcome_of(&changed(QUERY.len() - 3, 251)), 5);
    }

    #[test]
    fn an_answer_is_known_by_id_and_question() {
        let query = Query::parse(QUERY).unwrap();
        let id = [7, 7];
        let mut answer = query.with_id(id);
        answer[2] |= RESPONSE;
        assert!(query.is_answered_by(&answer, id));
        assert!(!query.is_answered_by(&answer, [7, 8]));
        assert!(!query.is_answered_by(&query.with_id(id), id), "a question is no answer");
        answer[13] = b'A';
        assert!(query.is_answered_by(&answer, id), "letters may change their case");
        answer[13] = b'b';
        assert!(!query.is_answered_by(&answer, id));
        answer[13] = b'a';
        let last = answer.len() - 3;
        answer[last] = 28;
        assert!(!query.is_answered_by(&answer, id), "another type");
        // Without the question only a failure counts.
        let mut short = answer[..HEADER].to_vec();
        short[5] = 0;
        assert!(!query.is_answered_by(&short, id));
        short[3] = 1;
        assert!(query.is_answered_by(&short, id));
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let query = Query::parse(QUERY).unwrap();
        let answer = query.failure(Failure::Refused);
        assert!(query.is_answered_by(&answer, query.id()));
        assert_eq!(verdict(&answer), Verdict::AskAnother);
        let message = hickory_proto::op::Message::from_vec(&answer).unwrap();
        assert_eq!(message.metadata.response_code, hickory_proto::op::ResponseCode::Refused);
        assert_eq!(message.queries.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            at in 0..QUERY.len(),
            byte: u8,
            cut in 0..=QUERY.len(),
        ) {
            let query = Query::parse(QUERY).unwrap();
            for hostile in [bytes.clone(), changed(at, byte)[..cut].to_vec(), [&QUERY[..12], &bytes].concat()] {
                if let Ok(parsed) = Query::parse(&hostile) {
                    prop_assert!(parsed.name().len() <= LONGEST_NAME);
                    prop_assert!(parsed.is_answered_by(&parsed.failure(Failure::Server), parsed.id()));
                }
                query.is_answered_by(&hostile, query.id());
            }
        }
    }
}

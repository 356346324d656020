//! Tokens: opaque bytes that say "at least this much of the log".
//!
//! 33 bytes, little-endian: version 1, folder (16), epoch (4), position (8, exclusive end), check (4). One that a follower of one topic is
//! given to resume has version 2 and 16 bytes more, before the check: the topic's incarnation. The check covers all
//! before it and finds damage and foreign bytes; its key is no secret, so it is no signature, and nothing secret hangs on it.

use std::hash::Hasher as _;

use bytes::Bytes;
use foldlog_log::{FolderId, Head, Position, TopicId};
use siphasher::sip::SipHasher24;

use crate::failure::{Failure, Kind};

const VERSION: u8 = 1;
/// Of one that names a topic's incarnation.
const OF_TOPIC: u8 = 2;
const CHECK: usize = 4;
/// Version, folder, epoch and position.
const BODY: usize = 29;
const TOPIC: usize = 16;

/// Which folder's positions are meant; makes and reads tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    folder: FolderId,
    epoch: u32,
}

impl Tokens {
    /// Tokens of the folder that `head` belongs to.
    #[must_use]
    pub const fn of(head: &Head) -> Self {
        Self { folder: head.folder, epoch: head.epoch }
    }

    /// The token of everything below `position`.
    #[must_use]
    pub fn make(&self, position: Position) -> Bytes {
        self.encode(position, None)
    }

    /// The token of everything below `position`, for who follows this topic.
    #[must_use]
    pub fn make_of(&self, position: Position, topic: TopicId) -> Bytes {
        self.encode(position, Some(topic))
    }

    fn encode(&self, position: Position, topic: Option<TopicId>) -> Bytes {
        let mut bytes = Vec::with_capacity(BODY + TOPIC + CHECK);
        bytes.push(if topic.is_some() { OF_TOPIC } else { VERSION });
        bytes.extend_from_slice(self.folder.as_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&position.get().to_le_bytes());
        if let Some(topic) = topic {
            bytes.extend_from_slice(topic.as_bytes());
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes.into()
    }

    /// The position of a token; none for an empty one.
    ///
    /// # Errors
    /// INVALID_TOKEN for bytes that are no token, FOREIGN_TOKEN for one of another folder or epoch.
    pub fn read(&self, field: &str, token: &[u8]) -> Result<Option<Position>, Failure> {
        Ok(self.read_of(field, token)?.map(|(position, _)| position))
    }

    /// The position of a token and the topic that it was given for; none for an empty one.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn read_of(&self, field: &str, token: &[u8]) -> Result<Option<(Position, Option<TopicId>)>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = || Failure::field("INVALID_TOKEN", field, "this is not a token of foldlog, or it was cut or changed");
        let (body, given) = token.split_last_chunk::<CHECK>().ok_or_else(invalid)?;
        let (version, rest) = body.split_first().ok_or_else(invalid)?;
        let length = match *version {
            VERSION => BODY,
            OF_TOPIC => BODY + TOPIC,
            _ => return Err(invalid()),
        };
        if body.len() != length || *given != check(body) {
            return Err(invalid());
        }
        let (folder, rest) = rest.split_first_chunk::<16>().ok_or_else(invalid)?;
        let (epoch, rest) = rest.split_first_chunk::<4>().ok_or_else(invalid)?;
        let (position, rest) = rest.split_first_chunk::<8>().ok_or_else(invalid)?;
        if FolderId::new(*folder) != self.folder {
            return Err(Failure::from(foldlog_log::LogError::ForeignToken(FolderId::new(*folder))));
        }
        let epoch = u32::from_le_bytes(*epoch);
        if epoch != self.epoch {
            let message = format!("{field}: this token is of epoch {epoch} of the data folder, which is at epoch {} now", self.epoch);
            return Err(Failure::new(Kind::Invalid, "FOREIGN_TOKEN", message));
        }
        let topic = rest.first_chunk::<TOPIC>().map(|topic| TopicId::new(*topic));
        Ok(Some((Position::new(u64::from_le_bytes(*position)), topic)))
    }
}

fn check(body: &[u8]) -> [u8; 4] {
    let mut hasher = SipHasher24::new_with_keys(0x666f_6c64_6c6f_6720, 0x746f_6b65_6e20_7631);
    hasher.write(body);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(folder: u8, epoch: u32) -> Tokens {
        Tokens { folder: FolderId::new([folder; 16]), epoch }
    }

    #[test]
    fn a_token_is_read_back() {
        let ours = tokens(7, 3);
        let token = ours.make(Position::new(u64::MAX - 1));
        assert_eq!(ours.read("at_least", &token).unwrap(), Some(Position::new(u64::MAX - 1)));
        assert_eq!(ours.read("at_least", &[]).unwrap(), None);
        assert_eq!(ours.read_of("after", &token).unwrap(), Some((Position::new(u64::MAX - 1), None)));
        let topic = TopicId::new([9; 16]);
        let of_topic = ours.make_of(Position::new(3), topic);
        assert_eq!(ours.read_of("after", &of_topic).unwrap(), Some((Position::new(3), Some(topic))));
        assert_eq!(ours.read("at_least", &of_topic).unwrap(), Some(Position::new(3)), "it says as much of the log as any");
    }

    #[test]
    fn a_token_of_another_folder_or_epoch_is_refused_by_name() {
        let token = tokens(7, 3).make(Position::new(1));
        assert_eq!(tokens(8, 3).read("at_least", &token).unwrap_err().reason, "FOREIGN_TOKEN");
        assert_eq!(tokens(7, 4).read("at_least", &token).unwrap_err().reason, "FOREIGN_TOKEN");
    }

    #[test]
    fn cut_grown_and_changed_tokens_are_refused() {
        let ours = tokens(7, 3);
        for token in [ours.make(Position::new(99)), ours.make_of(Position::new(99), TopicId::new([9; 16]))] {
            is_refused_when_changed(&ours, &token);
        }
    }

    fn is_refused_when_changed(ours: &Tokens, token: &[u8]) {
        let token = token.to_vec();
        for length in 1..token.len() {
            assert_eq!(ours.read("t", &token[..length]).unwrap_err().reason, "INVALID_TOKEN");
        }
        let mut grown = token.clone();
        grown.push(0);
        assert_eq!(ours.read("t", &grown).unwrap_err().reason, "INVALID_TOKEN");
        for byte in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone();
                changed[byte] ^= 1 << bit;
                assert!(ours.read("t", &changed).is_err(), "byte {byte} bit {bit}");
            }
        }
    }
}

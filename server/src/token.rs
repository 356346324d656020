//! Tokens: opaque bytes that say "at least this much of the log".
//!
//! 33 bytes, little-endian: version 1, folder (16), epoch (4), position (8, exclusive end), check (4). The check covers all
//! before it and finds damage and foreign bytes; its key is no secret, so it is no signature, and nothing secret hangs on it.

use std::hash::Hasher as _;

use bytes::Bytes;
use foldlog_log::{FolderId, Head, Position};
use siphasher::sip::SipHasher24;

use crate::failure::{Failure, Kind};

const VERSION: u8 = 1;
const CHECKED: usize = 29;
const LENGTH: usize = CHECKED + 4;

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
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.folder.as_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&position.get().to_le_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes.into()
    }

    /// The position of a token; none for an empty one.
    ///
    /// # Errors
    /// INVALID_TOKEN for bytes that are no token, FOREIGN_TOKEN for one of another folder or epoch.
    pub fn read(&self, field: &str, token: &[u8]) -> Result<Option<Position>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = || Failure::field("INVALID_TOKEN", field, "this is not a token of foldlog, or it was cut or changed");
        let (&[version, ref rest @ ..], &[]) = token.split_at_checked(LENGTH).ok_or_else(invalid)? else { return Err(invalid()) };
        let (body, given) = token.split_at_checked(CHECKED).ok_or_else(invalid)?;
        if version != VERSION || given != check(body) {
            return Err(invalid());
        }
        let (folder, rest) = rest.split_first_chunk::<16>().ok_or_else(invalid)?;
        let (epoch, rest) = rest.split_first_chunk::<4>().ok_or_else(invalid)?;
        let (position, _) = rest.split_first_chunk::<8>().ok_or_else(invalid)?;
        if FolderId::new(*folder) != self.folder {
            return Err(Failure::from(foldlog_log::LogError::ForeignToken(FolderId::new(*folder))));
        }
        let epoch = u32::from_le_bytes(*epoch);
        if epoch != self.epoch {
            let message = format!("{field}: this token is of epoch {epoch} of the data folder, which is at epoch {} now", self.epoch);
            return Err(Failure::new(Kind::Invalid, "FOREIGN_TOKEN", message));
        }
        Ok(Some(Position::new(u64::from_le_bytes(*position))))
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
        let token = ours.make(Position::new(99)).to_vec();
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

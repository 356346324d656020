//! Finds the first or the last event that matches a query, in postings alone.
//!
//! Callers' threads ask for what is durable, which may read files; admission asks memory for what came after. Keys of a term are
//! followed in step, each jumping to where the one before stands, so the rarest one sets the pace.

use super::{
    key::Term,
    recent::Recent,
    set::Postings,
    table::{Follower, Table},
};
use crate::{error::LogError, ids::Position};

impl Postings {
    /// The first position from `from` (inclusive) to `end` (exclusive) of an event that matches one of `terms`. `end` must be a
    /// durable end that was captured.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn first(&self, terms: &[Term], from: Position, end: Position) -> Result<Option<Position>, LogError> {
        // Memory first: what goes from there while this runs is in the files that are asked then.
        let mut found = self.recent.first(terms, from, end);
        for table in self.tables_from(from) {
            let end = found.map_or(end, |found| found.min(end));
            let here = terms.iter().map(|term| within(&table, term, from, end)).collect::<Result<Vec<_>, _>>()?;
            if let Some(here) = here.into_iter().flatten().min() {
                // Files are in order of position.
                found = Some(found.map_or(here, |found| found.min(here)));
                break;
            }
        }
        Ok(found)
    }

    /// The last position before `before` of an event that matches one of `terms`, which must not lie behind a durable end that was
    /// captured.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn last(&self, terms: &[Term], before: Position) -> Result<Option<Position>, LogError> {
        let mut found = self.recent.last(terms, before);
        let behind = found.map_or(Position::default(), |found| found.plus(1));
        for table in self.tables_from(behind).iter().rev().filter(|table| table.range.from < before) {
            let here = terms.iter().map(|term| within_back(table, term, before)).collect::<Result<Vec<_>, _>>()?;
            if let Some(here) = here.into_iter().flatten().max() {
                found = Some(found.map_or(here, |found| found.max(here)));
                break;
            }
        }
        Ok(found)
    }
}

impl Recent {
    /// The first position from `from` (inclusive) to `end` (exclusive) of an event above the floor that matches one of `terms`.
    pub(crate) fn first(&self, terms: &[Term], from: Position, end: Position) -> Option<Position> {
        terms.iter().filter_map(|term| self.of_term(term, from, end)).min()
    }

    /// The last position before `before` of an event above the floor that matches one of `terms`.
    fn last(&self, terms: &[Term], before: Position) -> Option<Position> {
        let of_term = |term: &Term| {
            let found = in_step_back(term.len(), before, |key, before| {
                Ok::<_, std::convert::Infallible>(term.get(key).and_then(|key| self.previous(*key, before)))
            });
            found.unwrap_or_else(|never| match never {})
        };
        terms.iter().filter_map(of_term).max()
    }

    fn of_term(&self, term: &[u128], from: Position, end: Position) -> Option<Position> {
        let found =
            in_step(term.len(), from, end, |key, at| Ok::<_, std::convert::Infallible>(term.get(key).and_then(|key| self.next(*key, at))));
        found.unwrap_or_else(|never| match never {})
    }
}

fn within(table: &Table, term: &[u128], from: Position, end: Position) -> Result<Option<Position>, LogError> {
    if !term.iter().all(|key| table.may_hold(*key)) {
        return Ok(None);
    }
    let mut followers = term.iter().map(|key| Follower::new(table, *key)).collect::<Vec<_>>();
    in_step(followers.len(), from, end, |key, at| followers.get_mut(key).map_or(Ok(None), |follower| follower.next(at)))
}

fn within_back(table: &Table, term: &[u128], before: Position) -> Result<Option<Position>, LogError> {
    if !term.iter().all(|key| table.may_hold(*key)) {
        return Ok(None);
    }
    let mut followers = term.iter().map(|key| Follower::new(table, *key)).collect::<Vec<_>>();
    in_step_back(followers.len(), before, |key, before| followers.get_mut(key).map_or(Ok(None), |follower| follower.previous(before)))
}

/// The first position at which all of `count` keys meet; `next` says where one stands next.
fn in_step<E>(
    count: usize,
    from: Position,
    end: Position,
    mut next: impl FnMut(usize, u64) -> Result<Option<u64>, E>,
) -> Result<Option<Position>, E> {
    let (mut at, mut agreed, mut key) = (from.get(), 0, 0);
    while agreed < count {
        match next(key, at)? {
            Some(found) if found >= end.get() => return Ok(None),
            Some(found) if found == at => agreed += 1,
            Some(found) => (at, agreed) = (found, 1),
            None => return Ok(None),
        }
        key = (key + 1) % count;
    }
    Ok((count > 0 && at < end.get()).then_some(Position::new(at)))
}

/// The last position before `before` at which all of `count` keys meet; `previous` says where one stands before a place.
fn in_step_back<E>(
    count: usize,
    before: Position,
    mut previous: impl FnMut(usize, u64) -> Result<Option<u64>, E>,
) -> Result<Option<Position>, E> {
    let (mut before, mut agreed, mut key) = (before.get(), 0, 0);
    while agreed < count {
        let Some(found) = previous(key, before)? else { return Ok(None) };
        agreed = if found + 1 == before { agreed + 1 } else { 1 };
        (before, key) = (found + 1, (key + 1) % count);
    }
    Ok(before.checked_sub(1).filter(|_| count > 0).map(Position::new))
}

//! A file of postings as parts: its head, and its pages.
#![deny(clippy::indexing_slicing)]

use super::table::{self, FENCE, HEAD, PAGE};
use crate::{
    batch::varint::Cursor,
    error::LogError,
    ids::{FolderId, Position},
    inspect::{Part, Teller, Told},
};

/// Tells a file of postings. Derived: damage to it costs the time in which it is made again.
pub(crate) fn file(teller: &mut Teller<'_>) -> Told {
    let start = teller.read(0, HEAD as u64)?;
    let Some(head) = Head::read(&start) else {
        return teller.tell(Part::new("postings", 0, teller.length).damaged("it does not begin as a file of postings does"));
    };
    let pages_at = HEAD as u64 + u64::from(head.pages) * FENCE as u64 + u64::from(head.filter);
    let checked = teller.read(0, pages_at)?;
    let is_whole = checked.len() as u64 == pages_at && table::is_head_whole(&checked);
    if is_whole && head.format != table::FORMAT {
        return Err(LogError::Format { file: teller.path.to_owned(), found: head.format, supported: table::FORMAT }.into());
    }
    let part = Part::new("postings", 0, if is_whole { pages_at } else { teller.length })
        .with("folder", head.folder.to_string())
        .with("position", head.from)
        .with("position_end", head.covers)
        .with("pages", head.pages)
        .with("filter_bytes", head.filter)
        .checked(is_whole, "its head is not what its checksum promised; delete the file, it is made again");
    teller.tell(part)?;
    if !is_whole {
        return Ok(());
    }
    let end = pages_at + u64::from(head.pages) * PAGE as u64;
    let mut at = pages_at;
    while at < end.min(teller.length) {
        let page = teller.read(at, PAGE as u64)?;
        tell_page(teller, at, &page, head.from)?;
        at += page.len() as u64;
    }
    if teller.length > end {
        teller.tell(Part::new("behind", end, teller.length).damaged("bytes lie behind the last page"))?;
    }
    teller.tell_missing(end, "its head")
}

fn tell_page(teller: &mut Teller<'_>, at: u64, page: &[u8], from: Position) -> Told {
    let is_whole = page.len() == PAGE && table::is_page_whole(page);
    let mut postings = Vec::new();
    let is_read = table::try_visit(page, from.get(), &mut |posting| {
        postings.push(posting);
        true
    });
    let part = Part::new("page", at, at + page.len() as u64).with("postings", if is_whole { postings.len() } else { 0 });
    let what = "a page is not what its checksum promised; delete the file, it is made again";
    teller.tell(part.checked(is_whole && is_read.is_some(), what))?;
    if !is_whole || !teller.is_deep() {
        return Ok(());
    }
    postings.into_iter().try_for_each(|posting| {
        let part = Part::new("posting", at, at + page.len() as u64).with("key", format!("{:032x}", posting.key));
        teller.tell(part.with("position", posting.first).with("events", posting.count).inner())
    })
}

struct Head {
    format: u32,
    folder: FolderId,
    from: Position,
    covers: Position,
    pages: u32,
    filter: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        (cursor.array()? == table::MAGIC).then_some(())?;
        Some(Self {
            format: u32::from_be_bytes(cursor.array()?),
            folder: FolderId::new(cursor.array()?),
            from: Position::new(u64::from_be_bytes(cursor.array()?)),
            covers: Position::new(u64::from_be_bytes(cursor.array()?)),
            pages: u32::from_be_bytes(cursor.array()?),
            filter: u32::from_be_bytes(cursor.array()?),
        })
    }
}

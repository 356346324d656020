//! The rows of an answer on their way to the screen, until their end, an error or Ctrl-C.

use std::io::{self, Write};

use foldlog_sdk::{Answer, Error, Row};

use super::{
    Interrupt,
    pager::{More, Pages, Screen, Wish},
    show::{Display, counted, is_for_people},
};
use crate::cli::{
    client::{
        Stop,
        sql::{
            Trouble,
            rows::{PrintedRow, heads},
        },
    },
    output::{Head, Item as _, Target},
};

/// Rows that are taken before any is shown: whoever reads slowly does not hold up a query that is no larger.
const GATHERED: usize = 10_000;

/// Why there are no more rows.
#[derive(Debug)]
pub enum Over {
    /// They came to their end.
    End,
    /// The user has seen enough of them.
    Enough,
    /// Ctrl-C.
    Interrupted,
    /// The query failed on its way.
    Failed(Error),
}

/// Shows an answer.
///
/// # Errors
/// If the screen is gone.
pub async fn show(answer: &mut Answer, interrupt: &mut Interrupt, display: &Display, screen: Screen, more: More) -> Result<Over, Trouble> {
    let heads = heads(answer.columns());
    let mut rows = Rows { answer, interrupt, over: None };
    let gathered = rows.gathered().await?;
    let cells: Vec<_> = gathered.iter().map(|row| PrintedRow(row).cells()).collect();
    let (format, width) = display.layout(&heads, &cells, &screen);
    drop(cells);
    let mut pages = Pages::new(io::stdout(), screen, more);
    let target = Target::terminal(&mut pages, format, display.colour, width);
    let printed = print(target, &heads, gathered, &mut rows).await;
    let told = match printed {
        Ok(count) if is_for_people(format) => writeln!(pages, "({})", counted(count, "row")).map_err(Stop::from),
        Ok(_) => Ok(()),
        Err(stop) => Err(stop),
    };
    let wish = pages.end()?;
    match told {
        Err(Stop::OutputClosed) if wish == Wish::Interrupt => Ok(Over::Interrupted),
        Err(Stop::OutputClosed) => Ok(Over::Enough),
        Err(stop) => Err(stop.into()),
        Ok(()) => Ok(rows.over.unwrap_or(Over::End)),
    }
}

/// Prints what was gathered and what comes after; how many rows that were.
async fn print(target: Target<&mut Pages<io::Stdout>>, heads: &[Head], gathered: Vec<Row>, rows: &mut Rows<'_>) -> Result<u64, Stop> {
    let mut printer = target.printer(heads);
    let mut count = 0;
    for row in gathered {
        printer.print(&PrintedRow(&row))?;
        count += 1;
    }
    while let Some(row) = rows.next().await? {
        printer.print(&PrintedRow(&row))?;
        count += 1;
    }
    printer.finish()?;
    Ok(count)
}

struct Rows<'a> {
    answer: &'a mut Answer,
    interrupt: &'a mut Interrupt,
    /// Why there are no more.
    over: Option<Over>,
}

impl Rows<'_> {
    async fn gathered(&mut self) -> Result<Vec<Row>, Stop> {
        let mut gathered = Vec::new();
        while gathered.len() < GATHERED
            && let Some(row) = self.next().await?
        {
            gathered.push(row);
        }
        Ok(gathered)
    }

    async fn next(&mut self) -> Result<Option<Row>, Stop> {
        if self.over.is_some() {
            return Ok(None);
        }
        self.over = Some(match self.interrupt.or(self.answer.next()).await? {
            Some(Ok(Some(row))) => return Ok(Some(row)),
            Some(Ok(None)) => Over::End,
            Some(Err(error)) => Over::Failed(error),
            None => Over::Interrupted,
        });
        Ok(None)
    }
}

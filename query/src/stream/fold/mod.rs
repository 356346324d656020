//! The state of a query as a table of results: what its task folds and what readers of its view see.
//!
//! Keys and accumulators, or whole rows, lie in the table; HAVING and the projection behind GROUP BY run when rows are read, for
//! the sink and for readers alike. Invariant: the table and those beside it are always at the same version.

mod read;

use std::sync::Arc;

use arrow::{
    array::TimestampMillisecondArray,
    buffer::BooleanBuffer,
    compute::interleave_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use hashbrown::DefaultHashBuilder;
use parking_lot::{Mutex, RwLock};

use crate::{
    answer::ChangeOp,
    catalog::timestamp_type,
    error::QueryError,
    sql::dialect::Changelog,
    stream::{
        change::ChangeBatch,
        operator::{
            aggregate::Aggregation,
            chain::{Chain, Faults, execution},
            changed::{BeforeAfter, Changed, Groups, rows_within},
            codec::RowCodec,
            copy::Copy,
            newest::Newest,
        },
        scanned::{Scanned, Scans},
        state::{RowNumber, Table, Version},
    },
};

/// Name of the column that says when a row of a view last changed.
pub(crate) const ROWTIME: &str = "rowtime";

/// Bytes of keys and texts that are read for one batch of a scan, but for a single row.
const SCAN_BYTES: usize = 4 << 20;

/// What a table of results holds.
#[derive(Debug)]
pub(crate) enum Content {
    /// Groups and what is folded of each; of a table with a copy of it, so that rows can be taken back.
    Groups(Aggregation, Option<Copy>),
    /// The newest row of each key.
    Newest(Newest),
}

impl Content {
    fn keys(&self) -> &RowCodec {
        match self {
            Self::Groups(aggregation, _) => aggregation.keys(),
            Self::Newest(newest) => newest.keys(),
        }
    }

    fn table(&self) -> Table {
        match self {
            Self::Groups(aggregation, _) => aggregation.table(),
            Self::Newest(newest) => newest.table(),
        }
    }

    /// Empty tables that are kept beside the table of results: the copy of the source, then the values that are counted.
    fn beside(&self) -> Vec<Table> {
        match self {
            Self::Groups(aggregation, copy) => copy.iter().map(|_| Copy::table()).chain(aggregation.values()).collect(),
            Self::Newest(_) => Vec::new(),
        }
    }

    /// Rows given by their words; says which are there unless all are.
    fn read(&self, table: &Table, rows: &[(RowNumber, &[u64])]) -> Result<(Groups, Option<BooleanBuffer>), QueryError> {
        match self {
            Self::Groups(aggregation, _) => Ok((aggregation.read(table, rows)?, None)),
            Self::Newest(newest) => newest.read(table, rows),
        }
    }

    /// Rows at a version; those that are not there then are left out.
    fn read_at(&self, table: &Table, rows: impl Iterator<Item = RowNumber>, version: Version) -> Result<Groups, QueryError> {
        let found: Vec<(RowNumber, &[u64])> = rows.filter_map(|row| Some((row, table.row_at(row, version)?))).collect();
        Ok(self.read(table, &found)?.0)
    }
}

/// A table of results.
#[derive(Debug)]
pub(crate) struct Fold {
    content: Content,
    /// HAVING, and what the SELECT computes from the results.
    after: Chain,
    has_filter: bool,
    table: RwLock<Table>,
    /// The copy of the source, if one is kept, then the values that are counted; the task alone looks into them.
    beside: Mutex<Vec<Table>>,
    hasher: DefaultHashBuilder,
    /// Results, then row time.
    schema: SchemaRef,
    /// Whether the row time is a column of its own, rather than one of the results.
    adds_rowtime: bool,
    /// Number of key columns of the results.
    keys: usize,
    /// What of a step is written.
    changelog: Changelog,
    /// Undo beyond this many bytes costs the oldest reader its version.
    undo_budget: usize,
    /// What each table is, with the operator that keeps it.
    names: Vec<String>,
    /// Parts of earlier scans, if they are kept.
    scanned: Option<Scanned>,
}

/// What one operator of a query keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it is, with the operator's id.
    pub what: String,
    /// Rows.
    pub rows: u64,
    /// Memory, without what readers of older versions need.
    pub bytes: u64,
}

impl Fold {
    pub(crate) fn new(content: Content, after: Chain, output: &SchemaRef, keys: usize, changelog: Changelog, undo_budget: usize) -> Self {
        let adds_rowtime = output.column_with_name(ROWTIME).is_none();
        let mut fields: Vec<Arc<Field>> = output.fields().iter().cloned().collect();
        if adds_rowtime {
            fields.push(Arc::new(Field::new(ROWTIME, timestamp_type(), true)));
        }
        let table = content.table();
        let beside = Mutex::new(content.beside());
        Self {
            hasher: table.hasher(),
            table: RwLock::new(table),
            beside,
            has_filter: after.has_filter(),
            content,
            after,
            schema: Arc::new(Schema::new(fields)),
            adds_rowtime,
            keys,
            changelog,
            undo_budget,
            names: Vec::new(),
            scanned: None,
        }
    }

    /// With names of its tables.
    pub(crate) fn named(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// With parts of scans kept for the next ones, if there is where.
    pub(crate) fn keeping_scans(self, scans: Option<&Arc<Scans>>) -> Self {
        Self { scanned: scans.map(Scanned::new), ..self }
    }

    /// What each table is, with the operator that keeps it.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Results, then row time.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of key columns; they come first.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// Whether every record's change is written, rather than that of a step.
    pub(crate) fn tells_all(&self) -> bool {
        self.changelog == Changelog::Every
    }

    /// Memory of the table with its undo, and of those beside it; over `budget` readers are given up before anything else, the oldest
    /// first.
    pub(crate) fn bytes_within(&self, budget: usize) -> usize {
        let beside: usize = self.beside.lock().iter().map(|table| table.bytes() - table.undo_bytes()).sum();
        let (bytes, undo) = {
            let table = self.table.read();
            (table.bytes() + beside, table.undo_bytes())
        };
        if bytes <= budget {
            return bytes;
        }
        let mut table = self.table.write();
        table.give_up_beyond(undo.saturating_sub(bytes - budget));
        // What is left of undo belongs to steps that are not durable yet, and is gone when they are.
        table.bytes() - table.undo_bytes() + beside
    }

    /// Keeps the committed version of every table for a checkpoint; no step may be committed meanwhile.
    pub(crate) fn keep(&self) -> Version {
        for table in self.beside.lock().iter_mut() {
            table.keep();
        }
        self.table.write().keep()
    }

    /// Lets go of what [`Fold::keep`] kept.
    pub(crate) fn let_go(&self) {
        self.with_tables(Table::let_go);
    }

    /// Number of tables: the table of results, the copy of the source, those of values that are counted.
    pub(crate) fn tables(&self) -> usize {
        1 + self.beside.lock().len()
    }

    /// Looks into a table by its number, while its query waits; the table of results has number 0.
    pub(crate) fn look<T>(&self, number: usize, look: impl FnOnce(&Table) -> T) -> T {
        let Some(place) = number.checked_sub(1) else { return look(&self.table.read()) };
        match self.beside.lock().get(place) {
            Some(table) => look(table),
            None => look(&self.table.read()),
        }
    }

    /// The same to change it, before the query runs.
    pub(crate) fn look_mut<T>(&self, number: usize, look: impl FnOnce(&mut Table) -> T) -> T {
        let Some(place) = number.checked_sub(1) else { return look(&mut self.table.write()) };
        match self.beside.lock().get_mut(place) {
            Some(table) => look(table),
            None => look(&mut self.table.write()),
        }
    }

    /// What each table holds.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let kept = |(number, name): (usize, &String)| {
            let (rows, bytes) = self.look(number, |table| (table.rows(), table.bytes() - table.undo_bytes()));
            Kept { what: name.clone(), rows: rows as u64, bytes: bytes as u64 }
        };
        self.names.iter().enumerate().map(kept).collect()
    }

    /// Empties the tables, which no step has changed.
    pub(crate) fn clear(&self) {
        self.with_tables(Table::clear);
    }

    /// Does the same to the table and to those beside it.
    fn with_tables(&self, change: impl Fn(&mut Table)) {
        self.beside.lock().iter_mut().for_each(&change);
        change(&mut self.table.write());
    }

    /// Opens the next step; gives the versions before and after it.
    pub(crate) fn begin(&self) -> (Version, Version) {
        let from = self.table.read().version();
        self.with_tables(Table::begin);
        (from, self.table.read().version())
    }

    /// Takes everything back that was folded since.
    pub(crate) fn roll_back_to(&self, from: Version) {
        self.with_tables(|table| table.roll_back_to(from));
    }

    /// Makes one step of all that was folded since.
    pub(crate) fn join_after(&self, from: Version) {
        self.with_tables(|table| table.join_after(from));
    }

    /// Where rows must be cut so that each change of a part is one record's: the end of each part.
    ///
    /// # Errors
    /// As [`Fold::fold`].
    pub(crate) fn cuts(&self, input: &ChangeBatch) -> Result<Vec<usize>, QueryError> {
        match &self.content {
            // A record takes back what another may just have added.
            Content::Groups(_, Some(_)) => Ok((1..=input.len()).collect()),
            Content::Groups(aggregation, None) => aggregation.cuts(input),
            Content::Newest(newest) => newest.cuts(input),
        }
    }

    /// Folds a batch into the open step; readers wait no longer than for that.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan, which is a fault of ours, or for a row that is too large.
    pub(crate) fn fold(&self, input: ChangeBatch) -> Result<(), QueryError> {
        let mut beside = self.beside.lock();
        match (&self.content, beside.as_mut_slice()) {
            (Content::Groups(aggregation, Some(copy)), [copied, values @ ..]) => {
                let changes = copy.replace(copied, &input)?;
                aggregation.fold(&self.table, values, changes, &self.hasher)
            }
            (Content::Groups(aggregation, _), values) => aggregation.fold(&self.table, values, input, &self.hasher),
            (Content::Newest(newest), _) => newest.fold(&self.table, &input, &self.hasher),
        }
    }

    /// Makes a version the one that readers see.
    pub(crate) fn commit(&self, version: Version) {
        self.beside.lock().iter_mut().for_each(|beside| beside.commit(version));
        let mut table = self.table.write();
        table.commit(version);
        table.give_up_beyond(self.undo_budget);
    }

    /// Pins the version that readers see.
    pub(crate) fn pin(&self) -> Version {
        self.table.write().pin()
    }

    /// Number of rows at a version, those among them that are not there.
    pub(crate) fn rows_at(&self, version: Version) -> usize {
        self.table.read().rows_at(version)
    }

    pub(crate) fn unpin(&self, version: Version) {
        self.table.write().unpin(version);
    }

    /// The rows whose change a step writes, in the order in which it first touched them.
    ///
    /// # Errors
    /// As [`Fold::fold`].
    pub(crate) fn changed(&self, from: Version, to: Version) -> Result<Vec<Changed>, QueryError> {
        if self.tells_all() {
            return Ok(Changed::between(&self.table.read(), from, to, true));
        }
        self.seen_to_change(from, to)
    }

    /// The rows that a step changed for whoever reads them: a list of values may have others behind it, a mean another sum.
    fn seen_to_change(&self, from: Version, to: Version) -> Result<Vec<Changed>, QueryError> {
        let mut changed = Changed::between(&self.table.read(), from, to, false);
        let doubtful: Vec<Changed> = changed.iter().filter(|changed| changed.is_of_same_time).copied().collect();
        let mut alike: Vec<RowNumber> = Vec::new();
        let mut rest = doubtful.as_slice();
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(Changed::within(rest, SCAN_BYTES));
            match self.alike(part, (from, to)) {
                Ok(found) => alike.extend(found),
                // Too much to be looked at again: that it is told once more does no harm.
                Err(QueryError::ResourceExhausted(_)) => {}
                Err(error) => return Err(error),
            }
            rest = behind;
        }
        if !alike.is_empty() {
            alike.sort_unstable();
            changed.retain(|changed| alike.binary_search(&changed.row).is_err());
        }
        Ok(changed)
    }

    /// Those of these rows, which were there before and are now, that a reader cannot tell from what they were.
    fn alike(&self, rows: &[Changed], versions: (Version, Version)) -> Result<Vec<RowNumber>, QueryError> {
        let parts = self.before_after(rows, versions, true)?;
        let Some(before) = parts.before else { return Ok(Vec::new()) };
        let ((after, is), (before, was)) = (self.after.run_all(parts.after.rows)?, self.after.run_all(before.rows)?);
        let kept = |kept: &Option<BooleanBuffer>, row: usize| kept.as_ref().is_none_or(|kept| kept.value(row));
        let there = |row: usize| parts.there.as_ref().is_none_or(|there| there.value(row));
        let alike = |row: &usize| match (there(*row) && kept(&is, *row), kept(&was, *row)) {
            (true, true) => after.slice(*row, 1) == before.slice(*row, 1),
            (is, was) => is == was,
        };
        Ok((0..rows.len()).filter(alike).filter_map(|row| rows.get(row).map(|changed| changed.row)).collect())
    }

    /// Rows that the step from `from` to `to` changed; `with_before` asks for them as they were, too.
    fn before_after(&self, changed: &[Changed], (from, to): (Version, Version), with_before: bool) -> Result<BeforeAfter, QueryError> {
        let table = self.table.read();
        let rows = changed.iter().map(|changed| changed.row);
        // A row that a step touched has words after it.
        let after: Vec<(RowNumber, &[u64])> = rows.clone().filter_map(|row| Some((row, table.words_at(row, to)?))).collect();
        let (after, there) = self.content.read(&table, &after)?;
        let before = if with_before { Some(self.content.read_at(&table, rows, from)?) } else { None };
        Ok(BeforeAfter { after, there, existed: changed.iter().map(|changed| changed.existed).collect(), before })
    }

    /// What the sink of a table writes for rows that a step changed: each row as it is now, with `+I`, `+U`, or `-D` where it
    /// left the table (then all but the key means nothing), and its row time. What fails on the way from the state to the row is
    /// told of `position`, the newest record of the step: a result has none of its own.
    ///
    /// # Errors
    /// As [`Fold::fold`]; [`QueryError::ResourceExhausted`] for more than a batch may hold.
    pub(crate) fn outputs(
        &self,
        changed: &[Changed],
        versions: (Version, Version),
        position: u64,
        faults: &mut Faults,
    ) -> Result<ChangeBatch, QueryError> {
        let parts = self.before_after(changed, versions, self.has_filter)?;
        let mut errors = Vec::new();
        let (rows, kept) = self.after.run_all_telling(parts.after.rows, &mut errors)?;
        let there = |row: usize| parts.there.as_ref().is_none_or(|there| there.value(row));
        faults.extend(errors.into_iter().filter(|error| there(error.row)).map(|error| (position, error.reason)));
        let was = self.were(parts.before, &parts.existed)?;
        let ops: Vec<Option<ChangeOp>> = (0..rows.num_rows())
            .map(|row| {
                let is = there(row) && kept.as_ref().is_none_or(|kept| kept.value(row));
                match (was.get(row).copied().unwrap_or(false), is) {
                    (false, true) => Some(ChangeOp::Insert),
                    (true, true) => Some(ChangeOp::UpdateAfter),
                    (true, false) => Some(ChangeOp::Delete),
                    // A record that removed what was not there.
                    (false, false) => (self.tells_all() && !there(row)).then_some(ChangeOp::Delete),
                }
            })
            .collect();
        let told = |row: &usize| ops.get(*row).is_some_and(Option::is_some);
        let places: Vec<usize> = (0..rows.num_rows()).filter(told).collect();
        let rowtime = places.iter().filter_map(|row| parts.after.rowtime.get(*row).copied()).collect();
        let rows = if places.len() == rows.num_rows() { rows } else { take(&rows, &places)? };
        let positions = vec![position; rows.num_rows()];
        Ok(ChangeBatch { rows, ops: Some(ops.into_iter().flatten().collect()), rowtime, positions, value_null: None })
    }

    /// Rows of the newest version as the sink of a table writes them, from row number `from` on, at most `most`, and the number of the
    /// row that follows; none at the end.
    ///
    /// # Errors
    /// As [`Fold::outputs`].
    pub(crate) fn rows_from(
        &self,
        from: RowNumber,
        most: usize,
        faults: &mut Faults,
    ) -> Result<(ChangeBatch, Option<RowNumber>), QueryError> {
        let (rows, version, end) = {
            let table = self.table.read();
            let (version, all) = (table.version(), table.rows());
            let end = RowNumber::try_from(all.min(from as usize + most)).map_err(execution)?;
            let rows = rows_within(&table, from..end, version, SCAN_BYTES);
            (Changed::from(&table, rows.clone(), version), version, (rows.end as usize).lt(&all).then_some(rows.end))
        };
        // What fails between the state and a row is told when the row changes; here it has no record of its own.
        Ok((self.outputs(&rows, (version, version), 0, faults)?, end))
    }

    /// Which of the rows were rows of the table before.
    fn were(&self, before: Option<Groups>, existed: &[bool]) -> Result<Vec<bool>, QueryError> {
        let Some(before) = before else { return Ok(existed.to_vec()) };
        let (_, kept) = self.after.run_all(before.rows)?;
        let mut place = 0;
        let was = existed.iter().map(|existed| {
            let was = *existed && kept.as_ref().is_none_or(|kept| kept.value(place));
            place += usize::from(*existed);
            was
        });
        Ok(was.collect())
    }

    /// What listeners hear of a step: `+I`, `-U` directly followed by its `+U`, `-D`, in the columns of the view.
    ///
    /// # Errors
    /// As [`Fold::outputs`].
    pub(crate) fn changes(&self, from: Version, to: Version) -> Result<(RecordBatch, Vec<ChangeOp>), QueryError> {
        let changed = self.seen_to_change(from, to)?;
        let parts = self.before_after(&changed, (from, to), true)?;
        let (after, is) = self.finish(parts.after)?;
        let is = match (is, &parts.there) {
            (Some(is), Some(there)) => Some(&is & there),
            (is, there) => is.or_else(|| there.clone()),
        };
        let (before, were) = match parts.before {
            Some(before) => self.finish(before)?,
            None => (after.slice(0, 0), None),
        };
        let mut places = Vec::with_capacity(after.num_rows() * 2);
        let mut ops = Vec::with_capacity(after.num_rows() * 2);
        let mut old = 0;
        for (new, existed) in parts.existed.iter().enumerate() {
            let was = *existed && were.as_ref().is_none_or(|were| were.value(old));
            let is = is.as_ref().is_none_or(|is| is.value(new));
            match (was, is) {
                (false, true) => {
                    places.push((1, new));
                    ops.push(ChangeOp::Insert);
                }
                (true, true) => {
                    places.extend([(0, old), (1, new)]);
                    ops.extend([ChangeOp::UpdateBefore, ChangeOp::UpdateAfter]);
                }
                (true, false) => {
                    places.push((0, old));
                    ops.push(ChangeOp::Delete);
                }
                (false, false) => {}
            }
            old += usize::from(*existed);
        }
        if places.is_empty() {
            return Ok((RecordBatch::new_empty(Arc::clone(&self.schema)), ops));
        }
        Ok((interleave_record_batch(&[&before, &after], &places).map_err(execution)?, ops))
    }

    /// The columns of the view from groups, and which of them are rows of it.
    fn finish(&self, groups: Groups) -> Result<(RecordBatch, Option<BooleanBuffer>), QueryError> {
        let (rows, kept) = self.after.run_all(groups.rows)?;
        let mut columns = rows.columns().to_vec();
        if self.adds_rowtime {
            let rowtime = TimestampMillisecondArray::from_iter_values(groups.rowtime).with_data_type(timestamp_type());
            columns.push(Arc::new(rowtime));
        }
        Ok((RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(execution)?, kept))
    }

    /// Types of the key columns.
    pub(crate) fn key_types(&self) -> &[DataType] {
        self.content.keys().types()
    }
}

fn take(rows: &RecordBatch, places: &[usize]) -> Result<RecordBatch, QueryError> {
    let places: Vec<(usize, usize)> = places.iter().map(|row| (0, *row)).collect();
    interleave_record_batch(&[rows], &places).map_err(execution)
}

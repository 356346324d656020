//! SHOW, DESCRIBE, EXPLAIN: what there is and what a statement would do. Reads a snapshot, changes nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};

use foldlog_log::{Position, Topic};

use super::{Core, rows};
use crate::{
    answer::{Answer, Request},
    catalog::{Pseudo, QueryId, Source, SourceKind, WantedColumn, type_name},
    error::QueryError,
    sql::{
        Dialect, DialectKind, Statement,
        session::{SETTINGS, Session, Setting},
        statement::Show,
    },
    stream::fold::Kept,
    supervisor::{CheckpointStatus, QueryState, QueryStatus},
};

impl Core {
    pub(super) fn show(&self, show: Show, session: &Session) -> Result<Answer, QueryError> {
        match show {
            Show::Streams => self.show_sources(SourceKind::Stream),
            Show::Tables => self.show_sources(SourceKind::Table),
            Show::Queries => self.show_queries(),
            Show::Topics => self.show_topics(false),
            Show::AllTopics => self.show_topics(true),
            Show::Properties => self.show_properties(session),
            Show::Variables => {
                let (names, values): (Vec<_>, Vec<_>) =
                    session.variables().map(|(name, value)| (Some(name.to_owned()), Some(value.to_owned()))).unzip();
                rows(self.head(), vec![("name", texts(names.into_iter())), ("value", texts(values.into_iter()))])
            }
            Show::Functions => self.show_functions(),
            Show::Types => {
                let catalog = self.snapshot();
                let named = catalog.types().iter();
                let (names, types): (Vec<_>, Vec<_>) = named.map(|(name, of)| (Some(name.clone()), Some(type_name(of)))).unzip();
                rows(self.head(), vec![("name", texts(names.into_iter())), ("type", texts(types.into_iter()))])
            }
        }
    }

    fn show_sources(&self, kind: SourceKind) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let sources: Vec<&Arc<Source>> = catalog.sources().filter(|source| source.kind == kind).collect();
        let text = |of: &dyn Fn(&Source) -> Option<String>| texts(sources.iter().map(|source| of(source)));
        rows(
            self.head(),
            vec![
                ("name", text(&|source| Some(source.name.clone()))),
                ("topic", text(&|source| Some(source.topic.to_string()))),
                ("key_format", text(&|source| Some(source.key_format.as_str().to_owned()))),
                ("value_format", text(&|source| Some(source.value_format.as_str().to_owned()))),
                ("query", text(&|source| source.query.as_ref().map(ToString::to_string))),
            ],
        )
    }

    fn show_queries(&self) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let queries = self.queries();
        let sql = queries.iter().map(|status| catalog.query(&status.id).ok().map(|query| query.sql.clone()));
        rows(
            self.head(),
            vec![
                ("id", texts(queries.iter().map(|status| Some(status.id.clone())))),
                ("sink", texts(queries.iter().map(|status| Some(status.sink.clone())))),
                ("state", texts(queries.iter().map(|status| Some(state_of(status))))),
                ("frontier", numbers(queries.iter().map(|status| status.frontier.get()))),
                ("rows_in", numbers(queries.iter().map(|status| status.rows_in))),
                ("rows_out", numbers(queries.iter().map(|status| status.rows_out))),
                ("bad_rows", numbers(queries.iter().map(|status| status.bad_rows))),
                ("sql", texts(sql)),
            ],
        )
    }

    /// Every setting that does something: what the session says, or what holds without.
    fn show_properties(&self, session: &Session) -> Result<Answer, QueryError> {
        let value = |setting: &Setting| session.setting(setting.name).unwrap_or(setting.default).to_owned();
        let said = |setting: &Setting| if session.setting(setting.name).is_some() { "session" } else { "default" };
        rows(
            self.head(),
            vec![
                ("name", texts(SETTINGS.iter().map(|setting| Some(setting.name.to_owned())))),
                ("value", texts(SETTINGS.iter().map(|setting| Some(value(setting))))),
                ("set_by", texts(SETTINGS.iter().map(|setting| Some(said(setting).to_owned())))),
                ("about", texts(SETTINGS.iter().map(|setting| Some(setting.about.to_owned())))),
            ],
        )
    }

    fn show_topics(&self, all: bool) -> Result<Answer, QueryError> {
        rows(self.head(), self.topic_columns(&self.listed_topics(all))?)
    }

    /// The topics that SHOW TOPICS lists; with `all` foldlog's own, too.
    pub(super) fn listed_topics(&self, all: bool) -> Vec<Arc<Topic>> {
        self.log.topics().into_iter().filter(|topic| all || !topic.name.is_system()).collect()
    }

    /// What SHOW TOPICS says of each, extended or not.
    pub(super) fn topic_columns(&self, topics: &[Arc<Topic>]) -> Result<Vec<(&'static str, ArrayRef)>, QueryError> {
        let records = topics.iter().map(|topic| self.records(&topic.name)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![
            ("name", texts(topics.iter().map(|topic| Some(topic.name.to_string())))),
            ("kind", texts(topics.iter().map(|topic| Some(topic.settings.kind.to_string())))),
            ("partitions", numbers(topics.iter().map(|topic| u64::from(topic.settings.partitions)))),
            ("records", numbers(records.into_iter())),
        ])
    }

    pub(super) fn describe(&self, name: &str, dialect: Dialect) -> Result<Answer, QueryError> {
        let source = self.snapshot().find(self.log.as_ref(), name)?;
        rows(self.head(), columns_told(&self.told_columns(&source, dialect)))
    }

    /// The columns of every stream, or of every table.
    pub(super) fn describe_all(&self, kind: SourceKind, dialect: Dialect) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let (mut names, mut told) = (Vec::new(), Vec::new());
        for source in catalog.sources().filter(|source| source.kind == kind) {
            let columns = self.told_columns(source, dialect);
            names.extend(columns.iter().map(|_| Some(source.name.clone())));
            told.extend(columns);
        }
        let mut columns = columns_told(&told);
        columns.insert(0, ("name", texts(names.into_iter())));
        rows(self.head(), columns)
    }

    /// Name, type and role of each column of a source, as the statements of a dialect have them.
    fn told_columns(&self, source: &Source, dialect: Dialect) -> Vec<[String; 3]> {
        // A view has no records, and of what every record has the row time alone.
        let is_view = self.supervisor.view(&source.name).is_some();
        let is_there = |column: &WantedColumn| !is_view || !matches!(column, WantedColumn::Pseudo(other) if *other != Pseudo::RowTime);
        let columns: Vec<WantedColumn> = source.all_columns().into_iter().filter(is_there).collect();
        let role = |column: &WantedColumn| match column {
            WantedColumn::Pseudo(_) => "always there",
            WantedColumn::Declared(place) if source.columns.get(*place).is_some_and(|column| column.key) => "key",
            WantedColumn::Declared(_) => "value",
        };
        let told = |column: &WantedColumn| {
            let field = source.wanted_field(*column)?;
            let (mut name, mut type_name) = (field.name().clone(), type_name(field.data_type()));
            if let (WantedColumn::Pseudo(pseudo), DialectKind::Ksql) = (column, dialect.kind) {
                // Where they need no quotes.
                if Pseudo::FOLDED.contains(pseudo) {
                    name = dialect.fold(&name);
                }
                if *pseudo == Pseudo::RowTime {
                    type_name = "BIGINT".to_owned();
                }
            }
            Some([name, type_name, role(column).to_owned()])
        };
        columns.iter().filter_map(told).collect()
    }

    pub(super) fn explain_query(&self, id: &str) -> Result<String, QueryError> {
        let catalog = self.snapshot();
        let plan = self.plan_of(&catalog, catalog.query(id)?)?.describe();
        let running = self.supervisor.queries().into_iter().find(|status| status.id == id);
        let kept = running.iter().flat_map(|status| &status.kept).map(|kept| format!("\nstate of {}", kept_text(kept)));
        Ok(kept.fold(plan, |told, kept| told + &kept))
    }

    /// What a statement other than a pull query would do.
    pub(super) fn explain_statement(&self, statement: &Statement, request: &Request) -> Result<String, QueryError> {
        let catalog = self.snapshot();
        match statement {
            Statement::CreateAs(create) => {
                let (sink, told) = match self.explain_replacement(&catalog, create, request)? {
                    Some((sink, told)) => (sink, Some(told)),
                    None => (self.sink(&catalog, create, request, None)?, None),
                };
                let plan = self.persistent(&catalog, create, self.dialect(&request.session), Arc::new(sink))?.describe();
                Ok(told.map_or(plan.clone(), |told| format!("{told}\n{plan}")))
            }
            Statement::InsertSelect(insert) => {
                Ok(self.feeding(&catalog, insert, self.dialect(&request.session), &QueryId::new(""))?.describe())
            }
            Statement::Push(select) => Ok(self.volatile(select, self.dialect(&request.session), &request.parameters)?.describe()),
            _ => Err(QueryError::Invalid("EXPLAIN takes a SELECT, a CREATE ... AS SELECT or the id of a query".to_owned())),
        }
    }
}

/// What DESCRIBE says of columns.
fn columns_told(columns: &[[String; 3]]) -> Vec<(&'static str, ArrayRef)> {
    let each = |place: usize| texts(columns.iter().map(|column| column.get(place).cloned()));
    vec![("column", each(0)), ("type", each(1)), ("role", each(2))]
}

/// A text as rows, one a line.
pub(super) fn lines(at: Position, text: &str) -> Result<Answer, QueryError> {
    rows(at, vec![("plan", texts(text.lines().map(|line| Some(line.to_owned()))))])
}

/// What an operator keeps, in words.
pub(super) fn kept_text(kept: &Kept) -> String {
    format!("{}: {} rows, {} bytes", kept.what, kept.rows, kept.bytes)
}

/// What is kept of a query over a restart, in words; none if that is nothing, and nothing was refused.
pub(super) fn checkpoint_text(checkpoint: &CheckpointStatus) -> Option<String> {
    let newest = checkpoint.newest.map(|(position, bytes)| format!("below position {position}, {bytes} bytes"));
    let set_aside = checkpoint.set_aside.as_ref().map(|reason| format!("one was set aside: {reason}"));
    let told: Vec<String> = newest.into_iter().chain(set_aside).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

pub(super) fn state_of(status: &QueryStatus) -> String {
    if let (Some(reason), QueryState::Folding { .. } | QueryState::Running) = (&status.trouble, &status.state) {
        return format!("failed and tries again: {reason}");
    }
    match &status.state {
        QueryState::Folding { at, end } => format!("folding, at {at} of {end}"),
        QueryState::Running if status.paused => "paused".to_owned(),
        QueryState::Running => "running".to_owned(),
        QueryState::Stopped => "stopped".to_owned(),
        QueryState::Failed(reason) => format!("failed: {reason}"),
    }
}

pub(super) fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}

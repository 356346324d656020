//! The end of the demo: every view is asked for what it holds, and every figure compared with what an independent script found.

use anyhow::{Context as _, anyhow};
use foldlog_sdk::{Client, Token, Value};

use super::expected::{self, Comparison, Expected};

const REPORT: &str = include_str!("../../../demo/flights/report.sql");

/// A pull query and what must come of it.
struct Question {
    name: &'static str,
    sql: &'static str,
    expected: fn() -> anyhow::Result<Expected>,
}

/// Over the log itself, over each view, and over a view joined with a table.
const QUESTIONS: [Question; 5] = [
    Question {
        name: "the log",
        sql: "SELECT type, COUNT(*) AS events FROM flights GROUP BY type ORDER BY type",
        expected: expected::events,
    },
    Question {
        name: "delays_by_carrier",
        sql: "SELECT carrier, landed, late, minutes_late, average_delay, best, worst FROM delays_by_carrier ORDER BY carrier",
        expected: expected::delays_by_carrier,
    },
    Question {
        name: "airport_board",
        sql: "SELECT origin, day, scheduled, departed, arrived, cancelled, diverted, longest_wait FROM airport_board ORDER BY origin, day",
        expected: expected::airport_board,
    },
    Question {
        name: "worst_routes",
        sql: "SELECT origin, dest, landed, average_delay, worst, fastest, miles FROM worst_routes ORDER BY origin, dest",
        expected: expected::worst_routes,
    },
    Question { name: "the report", sql: REPORT, expected: expected::report },
];

/// What came of the questions.
pub(super) struct Checked {
    /// The answer to the last question, as text.
    pub report: String,
    /// What was compared, or what differs.
    pub verdict: anyhow::Result<String>,
}

/// An answer as the comparison takes it.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<serde_json::Value>>,
}

/// Asks everything, at or after `token`, and compares.
pub(super) async fn all(client: &Client, days: usize, token: &Token) -> anyhow::Result<Checked> {
    let (mut sum, mut report) = (Comparison::default(), String::new());
    for Question { name, sql, expected } in QUESTIONS {
        let table = ask(client, sql, token).await.with_context(|| format!("cannot ask for {name}"))?;
        let comparison = expected()?.compare(days, &table.columns, &table.rows)?;
        if !comparison.holds() && comparison.differences.is_empty() {
            sum.differences.push(format!("{name}: nothing was compared"));
        }
        sum.rows += comparison.rows;
        sum.figures += comparison.figures;
        sum.differences.extend(comparison.differences.into_iter().map(|difference| format!("{name}: {difference}")));
        report = table.text();
    }
    let verdict = if sum.holds() {
        let (answers, rows, figures) = (QUESTIONS.len(), sum.rows, sum.figures);
        Ok(format!("Checked: {answers} answers, {rows} rows, {figures} figures equal those of the independent script."))
    } else {
        Err(anyhow!("these are not what the independent script found:\n  {}", sum.differences.join("\n  ")))
    };
    Ok(Checked { report, verdict })
}

async fn ask(client: &Client, sql: &str, token: &Token) -> anyhow::Result<Table> {
    let mut answer = client.query(sql).at_least(token.clone()).run().await?;
    let columns = answer.columns().iter().map(|column| column.name.clone()).collect();
    let mut rows = Vec::new();
    while let Some(row) = answer.next().await? {
        rows.push(row.values().iter().map(json).collect());
    }
    Ok(Table { columns, rows })
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) | Value::TimestampMs(value) | Value::Date(value) | Value::TimeMs(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Text(value) | Value::Decimal(value) | Value::Json(value) | Value::Nested { json: value, .. } => value.as_str().into(),
        Value::Binary(value) => format!("{value:?}").into(),
    }
}

impl Table {
    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
                other => other.to_string(),
            }));
        }
        for (place, value) in self.rows.first().into_iter().flatten().enumerate() {
            if let (true, Some(column)) = (value.is_number(), table.column_mut(place)) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        format!("\n{table}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_asked_for_in_the_columns_that_are_expected() {
        for Question { name, sql, expected } in QUESTIONS {
            let columns = expected().unwrap().columns;
            // The report names its columns with the table they come from.
            assert!(columns.iter().all(|column| sql.contains(column.as_str())), "{name}");
        }
    }

    #[test]
    fn values_are_compared_as_json() {
        assert_eq!(json(&Value::Integer(7)), serde_json::json!(7));
        assert_eq!(json(&Value::Double(-8.553191489361701)), serde_json::from_str::<serde_json::Value>("-8.553191489361701").unwrap());
        assert_eq!(json(&Value::Null), serde_json::Value::Null);
    }
}

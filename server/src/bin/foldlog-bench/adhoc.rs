//! Goal of ad-hoc SQL (G15): statements over a view of a million rows, beside plain `DataFusion` over the same batches.
//!
//! `DATAFUSION` names an interpreter of Python that has it, and pyarrow. Both answer the same statements with the same numbers.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use foldlog_log::NewRecord;
use foldlog_proto::v1::{ColumnValues, QueryRequest, RowEncoding, column_values::Values, query_batch, query_client::QueryClient};

use crate::{
    bench::{Bench, Subject},
    load::median,
    records::Records,
    report::{Bound, Report, short},
    streams::python,
};

/// Rows of the view.
const ROWS: u64 = 1_000_000;
/// Of what `DataFusion` does.
const SHARE: f64 = 0.85;

/// What each statement is, and the statement: one row of one BIGINT.
const STATEMENTS: [(&str, &str); 5] = [
    ("filter", "SELECT sum(amount) FROM accounts WHERE amount % 7 = 0"),
    ("20 groups", "SELECT sum(n) FROM (SELECT region, count(*) AS n, avg(rate) AS mean FROM accounts GROUP BY region) WHERE mean > 0.5"),
    ("100k groups", "SELECT max(n) FROM (SELECT amount, count(*) AS n FROM accounts GROUP BY amount)"),
    ("top 100", "SELECT sum(amount) FROM (SELECT amount FROM accounts ORDER BY amount DESC, account LIMIT 100)"),
    ("distinct", "SELECT count(DISTINCT amount) FROM accounts"),
];

/// The statements over a view that was read before, by the export of its rows, then over these in plain `DataFusion`.
pub async fn datafusion(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let python = python("DATAFUSION")?;
    let folder = bench.folder.join("adhoc");
    fill(&folder).await?;
    let mut subject = bench.start("adhoc", Vec::new()).await?;
    let columns = "account VARCHAR PRIMARY KEY, region VARCHAR, amount BIGINT, rate DOUBLE";
    subject.sql(&format!("CREATE TABLE opened ({columns}) WITH (kafka_topic = 'opened', value_format = 'json')")).await?;
    subject.run("CREATE TABLE accounts AS SELECT account, region, amount, rate FROM opened", "accounts").await?;
    subject.at_rest().await?;
    let rows = bench.folder.join("accounts.arrows");
    export(&subject, &rows).await?;
    let mut ours = Vec::with_capacity(STATEMENTS.len());
    for (_, sql) in STATEMENTS {
        ours.push(answered(&subject, sql, bench.repeats).await?);
    }
    subject.server.kill()?;
    let theirs = plain(&python, &rows, bench.repeats).await?;
    anyhow::ensure!(theirs.len() == ours.len(), "its driver answered {} statements", theirs.len());
    for (((name, _), (answer, seconds)), (their_answer, on_two, on_one)) in STATEMENTS.into_iter().zip(ours).zip(theirs) {
        anyhow::ensure!(answer == their_answer, "{name}: {answer} here, {their_answer} there");
        let what = format!(
            "{name}: {} rows of a view a second, {:.1} ms beside {:.1} ms of plain DataFusion on two threads, {:.1} ms on one",
            short(to_f64(ROWS) / seconds),
            seconds * 1e3,
            on_two * 1e3,
            on_one * 1e3
        );
        report.goal("G15", Bound::Times(on_two / seconds, SHARE), None, &what);
    }
    Ok(())
}

async fn fill(folder: &Path) -> anyhow::Result<()> {
    let mut filling = Records::open(folder)?;
    let topic = filling.topic("opened")?;
    for number in 0..ROWS {
        // Large odd steps: values that repeat in an order that looks like none.
        let (amount, rate) = (number.wrapping_mul(104_729) % 100_000, to_f64(number.wrapping_mul(7_919) % 1_000) / 1e3);
        let json = format!(r#"{{"region":"region-{}","amount":{amount},"rate":{rate}}}"#, number.wrapping_mul(31) % 20);
        filling
            .push(&topic, NewRecord { key: Some(format!("acct-{number}").into()), value: Some(json.into()), ..NewRecord::default() })
            .await?;
    }
    filling.finish().await
}

/// All rows of the view, as the bytes of an Arrow IPC stream.
async fn export(subject: &Subject, to: &Path) -> anyhow::Result<()> {
    let mut file = File::create(to).context("cannot make a file for the rows")?;
    let encoding = RowEncoding::ArrowIpc.into();
    let request =
        QueryRequest { sql: "SELECT account, region, amount, rate FROM accounts".to_owned(), encoding, ..QueryRequest::default() };
    let mut client = QueryClient::new(subject.channel.clone()).max_decoding_message_size(16 << 20);
    let mut batches = client.execute(request).await?.into_inner();
    let mut rows = 0;
    while let Some(batch) = batches.message().await? {
        match batch.message {
            Some(query_batch::Message::Schema(schema)) => file.write_all(&schema.arrow_ipc)?,
            Some(query_batch::Message::Rows(some)) => {
                rows += u64::from(some.count);
                file.write_all(&some.arrow_ipc)?;
            }
            _ => {}
        }
    }
    anyhow::ensure!(rows == ROWS, "the view has {rows} rows, {ROWS} expected");
    Ok(())
}

/// The answer of a statement, and the median of its seconds.
async fn answered(subject: &Subject, sql: &str, repeats: usize) -> anyhow::Result<(i64, f64)> {
    let (mut answer, mut times) = (None, Vec::with_capacity(repeats));
    for _ in 0..repeats {
        let began = Instant::now();
        let rows = subject.sql(sql).await?;
        times.push(began.elapsed().as_secs_f64());
        answer = rows.iter().flat_map(|rows| &rows.columns).find_map(first);
    }
    Ok((answer.with_context(|| format!("no number: {sql}"))?, median(times)))
}

fn first(column: &ColumnValues) -> Option<i64> {
    match column.values.as_ref()? {
        Values::Integers(numbers) => numbers.values.first().copied(),
        _ => None,
    }
}

async fn plain(python: &Path, rows: &Path, repeats: usize) -> anyhow::Result<Vec<(i64, f64, f64)>> {
    let mut command = Command::new(python);
    command.arg("-c").arg(include_str!("adhoc.py")).arg(rows).arg(repeats.to_string());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut statements) = child.stdin.take() {
            STATEMENTS.iter().try_for_each(|(_, sql)| writeln!(statements, "{sql}"))?;
        }
        child.wait_with_output()
    });
    let output = output.await?.context("cannot run its driver")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "its driver failed: {}", complaint.lines().last().unwrap_or_default());
    Ok(figures(&String::from_utf8_lossy(&output.stdout)))
}

/// Of lines `ANSWER<TAB>SECONDS<TAB>SECONDS`: on two threads and on one.
fn figures(text: &str) -> Vec<(i64, f64, f64)> {
    let figure = |line: &str| {
        let (answer, seconds) = line.split_once('\t')?;
        let (two, one) = seconds.split_once('\t')?;
        Some((answer.parse().ok()?, two.parse().ok()?, one.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_the_driver_says() {
        assert_eq!(figures("# a note\n7\t0.25\t0.5\n-3\t1e-3\t2e-3\nnone\t1\t1\n"), [(7, 0.25, 0.5), (-3, 0.001, 0.002)]);
    }
}

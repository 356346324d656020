//! A bank in four parts: deciders, a conflict between two tellers, a view of balances, and the view followed live.
//!
//! Run it against a server (`foldlog dev`, then `cargo run -p bank_account`), or let it start one:
//! `cargo run -p bank_account -- --foldlog target/release/foldlog`. It ends with exit code 0 if everything came out as it must.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use foldlog_sdk::{Aggregates, Client, Error, ExecuteError, Expected, NewEvent, Pushed, Token, TopicKind};
use serde::Deserialize;

use account::{Account, AccountCommand, AccountEvent, Refusal};
use server::Server;

mod account;
mod server;

/// The topic: one stream an account.
const TOPIC: &str = "accounts";

/// The events as SQL sees them, and what they add up to.
const VIEWS: [&str; 2] = [
    "CREATE STREAM IF NOT EXISTS accounts (account VARCHAR KEY, owner VARCHAR, cents BIGINT)
     WITH (topic = 'accounts', value_format = 'json')",
    "CREATE TABLE IF NOT EXISTS balances AS
     SELECT account,
            MAX(owner) AS owner,
            SUM(CASE type WHEN 'Deposited' THEN cents WHEN 'Withdrawn' THEN 0 - cents ELSE 0 END) AS cents,
            COUNT(*) AS events
     FROM accounts
     GROUP BY account",
];

/// Tellers who withdraw at once.
const TELLERS: i64 = 8;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Server::from_arguments().await?;
    let client = server.client.clone();
    client.create_topic(TOPIC, TopicKind::Events, None).await?;
    for statement in VIEWS {
        client.query(statement).execute().await?;
    }
    // Another account each time, so that the example can be run again on the same server.
    let account = format!("account-{}", client.head(None).await?.position);
    let follower = client.push("SELECT account, owner, cents FROM balances EMIT CHANGES").start().await?;

    let accounts = client.aggregates::<Account>(TOPIC);
    let (shown, ()) = tokio::try_join!(follow(follower, &account, 0), work(&client, &accounts, &account))?;
    println!("the live view showed {shown} balances of it, the last one is 0");
    Ok(())
}

async fn work(client: &Client, accounts: &Aggregates<Account>, account: &str) -> anyhow::Result<()> {
    open(accounts, account).await?;
    two_tellers(client, accounts, account).await?;
    let token = many_tellers(accounts, account).await?;
    look(client, account, token).await
}

/// Commands become events, or are refused.
async fn open(accounts: &Aggregates<Account>, account: &str) -> anyhow::Result<()> {
    execute(accounts, account, &AccountCommand::Open { owner: "the owner".to_owned() }).await?;
    let deposited = execute(accounts, account, &AccountCommand::Deposit { cents: 10_000 }).await?;
    println!("{account} is open with {} cents", deposited.balance());
    let too_much = AccountCommand::Withdraw { cents: 10_001, teller: "first".to_owned() };
    match accounts.execute(account, &too_much).await {
        Err(ExecuteError::Refused(refusal @ Refusal::Insufficient { .. })) => println!("10001 cents are refused: {refusal}"),
        other => anyhow::bail!("an overdraft was not refused: {other:?}"),
    }
    Ok(())
}

/// Two tellers look at the same balance; the second to write is told that the first was faster, and decides again.
async fn two_tellers(client: &Client, accounts: &Aggregates<Account>, account: &str) -> anyhow::Result<()> {
    let seen = accounts.load(account).await?;
    let withdrawal = |teller: &str| NewEvent::typed(&AccountEvent::Withdrawn { cents: 6_000, teller: teller.to_owned() });
    let append = |event| client.append(TOPIC).expect(account, Expected::seen(seen.version)).event(account, event).send();

    let first = append(withdrawal("first")?).await?;
    println!("the first teller pays out 6000 cents at version {}", first.versions.first().map_or(0, |stream| stream.version));
    match append(withdrawal("second")?).await {
        Err(Error::Conflict { violations, .. }) => {
            for violation in &violations {
                println!("the second teller is told: {violation}");
            }
        }
        other => anyhow::bail!("two withdrawals from one state: {other:?}"),
    }
    // On the newest state there is not enough left, so deciding again gives another answer than forcing it through would have.
    match accounts.execute(account, &AccountCommand::Withdraw { cents: 6_000, teller: "second".to_owned() }).await {
        Err(ExecuteError::Refused(Refusal::Insufficient { balance })) => println!("decided again: only {balance} cents are there"),
        other => anyhow::bail!("more was paid out than there was: {other:?}"),
    }
    Ok(())
}

/// Many tellers empty the account at once; conflicts are resolved by deciding again.
async fn many_tellers(accounts: &Aggregates<Account>, account: &str) -> anyhow::Result<Token> {
    let mut tellers = tokio::task::JoinSet::new();
    for number in 0..TELLERS {
        let (accounts, account) = (accounts.clone(), account.to_owned());
        let command = AccountCommand::Withdraw { cents: 4_000 / TELLERS, teller: format!("teller {number}") };
        tellers.spawn(async move { withdraw_patiently(&accounts, &account, &command).await });
    }
    let mut decisions = 0;
    let mut newest = None;
    while let Some(teller) = tellers.join_next().await {
        let (decided, token, version) = teller??;
        decisions += decided;
        newest = newest.max(Some((version, token)));
    }
    println!("{TELLERS} tellers took {decisions} decisions to empty the account");
    let balance = accounts.load(account).await?.state.balance();
    ensure!(balance == 0, "the account should be empty and has {balance} cents");
    Ok(Token::from_bytes(newest.context("nobody withdrew")?.1.into()))
}

/// Executes until others let it through: a conflict is no refusal, however often it comes.
async fn withdraw_patiently(
    accounts: &Aggregates<Account>,
    account: &str,
    command: &AccountCommand,
) -> anyhow::Result<(u32, Vec<u8>, Option<u64>)> {
    loop {
        match accounts.execute(account, command).await {
            Ok(done) => {
                let token = done.token().context("a withdrawal without an event")?.as_bytes().to_vec();
                return Ok((done.decisions, token, done.after.version));
            }
            Err(ExecuteError::Log(Error::Conflict { .. })) => {}
            Err(ExecuteError::Refused(refusal)) => anyhow::bail!("refused: {refusal}"),
            Err(ExecuteError::Log(error)) => return Err(error.into()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Balance {
    account: String,
    owner: Option<String>,
    cents: i64,
}

/// Reads the view, not before it reflects the last withdrawal.
async fn look(client: &Client, account: &str, written: Token) -> anyhow::Result<()> {
    let sql = format!("SELECT account, owner, cents FROM balances WHERE account = '{account}'");
    let balance: Balance = client.query(sql).at_least(written).one().await?;
    println!("the view says: {} of {} has {} cents", balance.account, balance.owner.as_deref().unwrap_or("nobody"), balance.cents);
    ensure!(balance.cents == 0, "the view is not where it must be");
    Ok(())
}

/// Follows the view until the account stands at `end` after it stood elsewhere; how many balances were shown.
async fn follow(mut changes: Pushed, account: &str, end: i64) -> anyhow::Result<u32> {
    let seen = async {
        let mut shown = 0;
        let mut left_the_end = false;
        while let Some(batch) = changes.next().await? {
            for (mark, row) in batch.rows.iter().filter(|(mark, _)| mark.is_present()) {
                let balance: Balance = row.to()?;
                if balance.account != account {
                    continue;
                }
                println!("  live: {} {} cents", mark.as_str(), balance.cents);
                shown += 1;
                left_the_end |= balance.cents != end;
                if left_the_end && balance.cents == end {
                    return Ok(shown);
                }
            }
        }
        anyhow::bail!("the live view ended")
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.context("the live view does not get there")?
}

async fn execute(accounts: &Aggregates<Account>, account: &str, command: &AccountCommand) -> anyhow::Result<Account> {
    match accounts.execute(account, command).await {
        Ok(done) => Ok(done.after.state),
        Err(ExecuteError::Refused(refusal)) => anyhow::bail!("refused: {refusal}"),
        Err(ExecuteError::Log(error)) => Err(error.into()),
    }
}

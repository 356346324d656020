//! An account: what may happen to it and who decides. Nothing here knows a server; the tests below need none.

use foldlog_sdk::Decider;
use serde::{Deserialize, Serialize};

/// What happened. The variants' names are the events' types; they are stored, so they never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountEvent {
    /// The account exists from now on.
    Opened {
        /// Whose it is.
        owner: String,
    },
    /// Money came in.
    Deposited {
        /// How much.
        cents: i64,
    },
    /// Money went out.
    Withdrawn {
        /// How much.
        cents: i64,
        /// Who paid it out.
        teller: String,
    },
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum AccountCommand {
    /// Open the account.
    Open {
        /// Whose it is to be.
        owner: String,
    },
    /// Pay in.
    Deposit {
        /// How much.
        cents: i64,
    },
    /// Pay out.
    Withdraw {
        /// How much.
        cents: i64,
        /// Who asks.
        teller: String,
    },
}

/// Why it is not done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such account.
    NotOpen,
    /// Nothing, or less, was to be moved.
    NotPositive,
    /// There is less than was asked for.
    Insufficient {
        /// What is there.
        balance: i64,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOpen => f.write_str("the account is not open"),
            Self::NotPositive => f.write_str("an amount must be positive"),
            Self::Insufficient { balance } => write!(f, "only {balance} cents are there"),
        }
    }
}

/// What the account's events add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    open: bool,
    balance: i64,
}

impl Account {
    /// Cents that are there.
    pub const fn balance(&self) -> i64 {
        self.balance
    }
}

impl Decider for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Refusal = Refusal;

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.open = true,
            AccountEvent::Deposited { cents } => self.balance += cents,
            AccountEvent::Withdrawn { cents, .. } => self.balance -= cents,
        }
    }

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, Refusal> {
        match command {
            // Asking twice is no error, and opens once.
            AccountCommand::Open { .. } if self.open => Ok(vec![]),
            AccountCommand::Open { owner } => Ok(vec![AccountEvent::Opened { owner: owner.clone() }]),
            _ if !self.open => Err(Refusal::NotOpen),
            AccountCommand::Deposit { cents } | AccountCommand::Withdraw { cents, .. } if *cents <= 0 => Err(Refusal::NotPositive),
            AccountCommand::Deposit { cents } => Ok(vec![AccountEvent::Deposited { cents: *cents }]),
            AccountCommand::Withdraw { cents, .. } if *cents > self.balance => Err(Refusal::Insufficient { balance: self.balance }),
            AccountCommand::Withdraw { cents, teller } => Ok(vec![AccountEvent::Withdrawn { cents: *cents, teller: teller.clone() }]),
        }
    }
}

#[cfg(test)]
mod tests {
    use foldlog_sdk::scenario::given;

    use super::*;

    fn opened() -> AccountEvent {
        AccountEvent::Opened { owner: "the owner".into() }
    }

    fn withdraw(cents: i64) -> AccountCommand {
        AccountCommand::Withdraw { cents, teller: "a teller".into() }
    }

    #[test]
    fn an_account_opens_once() {
        let open = AccountCommand::Open { owner: "the owner".into() };
        given::<Account>([]).when(&open).then([opened()]);
        given::<Account>([opened()]).when(&open).then_nothing();
    }

    #[test]
    fn what_was_paid_in_can_be_paid_out() {
        let after = given::<Account>([opened(), AccountEvent::Deposited { cents: 500 }])
            .when(&withdraw(500))
            .then([AccountEvent::Withdrawn { cents: 500, teller: "a teller".into() }]);
        assert_eq!(after.balance(), 0);
    }

    #[test]
    fn nothing_is_paid_out_that_is_not_there() {
        given::<Account>([opened(), AccountEvent::Deposited { cents: 500 }])
            .when(&withdraw(501))
            .then_refused(Refusal::Insufficient { balance: 500 });
    }

    #[test]
    fn money_moves_only_in_open_accounts_and_forwards() {
        given::<Account>([]).when(&AccountCommand::Deposit { cents: 1 }).then_refused(Refusal::NotOpen);
        given::<Account>([opened()]).when(&AccountCommand::Deposit { cents: -1 }).then_refused(Refusal::NotPositive);
        given::<Account>([opened()]).when(&withdraw(0)).then_refused(Refusal::NotPositive);
    }
}

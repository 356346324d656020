//! MASK and its kin: texts whose characters are hidden by their kind.

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::{
    definition::{Definition, form},
    input::{Fault, Input, Str, Values},
};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "mask",
        "A text with capital letters as X, small ones as x, digits as n and all else as -, or as the characters given; NULL in place of one leaves its kind as it is.",
        &[
            form("text VARCHAR -> VARCHAR", |input| masked(input, 1, |_, _, _| true)),
            form("text VARCHAR, capital VARCHAR, small VARCHAR, digit VARCHAR, other VARCHAR -> VARCHAR", |input| {
                masked(input, 1, |_, _, _| true)
            }),
        ],
        &[("mask('My Test $123')", "Xx-Xxxx--nnn")],
    ),
    Definition::new(
        "mask_keep_left",
        "As MASK, but for so many characters at the left.",
        &[
            form("text VARCHAR, kept INT -> VARCHAR", |input| masked(input, 2, |at, _, kept| at >= kept)),
            form("text VARCHAR, kept INT, capital VARCHAR, small VARCHAR, digit VARCHAR, other VARCHAR -> VARCHAR", |input| {
                masked(input, 2, |at, _, kept| at >= kept)
            }),
        ],
        &[("mask_keep_left('My Test $123', 4)", "My Txxx--nnn")],
    ),
    Definition::new(
        "mask_keep_right",
        "As MASK, but for so many characters at the right.",
        &[
            form("text VARCHAR, kept INT -> VARCHAR", |input| masked(input, 2, |at, all, kept| at + kept < all)),
            form("text VARCHAR, kept INT, capital VARCHAR, small VARCHAR, digit VARCHAR, other VARCHAR -> VARCHAR", |input| {
                masked(input, 2, |at, all, kept| at + kept < all)
            }),
        ],
        &[("mask_keep_right('My Test $123', 4)", "Xx-Xxxx-$123")],
    ),
    Definition::new(
        "mask_left",
        "As MASK, of so many characters at the left.",
        &[
            form("text VARCHAR, hidden INT -> VARCHAR", |input| masked(input, 2, |at, _, hidden| at < hidden)),
            form("text VARCHAR, hidden INT, capital VARCHAR, small VARCHAR, digit VARCHAR, other VARCHAR -> VARCHAR", |input| {
                masked(input, 2, |at, _, hidden| at < hidden)
            }),
        ],
        &[("mask_left('My Test $123', 4)", "Xx-Xest $123")],
    ),
    Definition::new(
        "mask_right",
        "As MASK, of so many characters at the right.",
        &[
            form("text VARCHAR, hidden INT -> VARCHAR", |input| masked(input, 2, |at, all, hidden| at + hidden >= all)),
            form("text VARCHAR, hidden INT, capital VARCHAR, small VARCHAR, digit VARCHAR, other VARCHAR -> VARCHAR", |input| {
                masked(input, 2, |at, all, hidden| at + hidden >= all)
            }),
        ],
        &[("mask_right('My Test $123', 4)", "My Test -nnn")],
    ),
];

/// What characters become, by their kind; none leaves them as they are.
struct Mask {
    capital: Option<char>,
    small: Option<char>,
    digit: Option<char>,
    other: Option<char>,
}

impl Mask {
    const DEFAULT: Self = Self { capital: Some('X'), small: Some('x'), digit: Some('n'), other: Some('-') };

    fn of(&self, one: char) -> char {
        let mask = if one.is_uppercase() {
            self.capital
        } else if one.is_lowercase() {
            self.small
        } else if one.is_numeric() {
            self.digit
        } else {
            self.other
        };
        mask.unwrap_or(one)
    }
}

/// Hides the characters of which `is_hidden` says so: of a place, the number of all and the number given.
fn masked(input: &Input<'_>, options: usize, is_hidden: impl Fn(usize, usize, usize) -> bool) -> Result<ArrayRef> {
    let text = input.column::<Str>(0)?;
    let number = if options > 1 { Some(input.column::<i32>(1)?) } else { None };
    let masks = input.columns::<Str>(options)?;
    input.each(|row| {
        let Some(text) = text.get(row) else { return Ok(None) };
        let number = match &number {
            None => 0,
            Some(number) => match number.get(row) {
                Some(number) => usize::try_from(number).map_err(|_| Fault)?,
                None => return Err(Fault),
            },
        };
        let mask = mask_of(&masks, row);
        let all = text.chars().count();
        let hidden = |(at, one): (usize, char)| if is_hidden(at, all, number) { mask.of(one) } else { one };
        Ok(Some(text.chars().enumerate().map(hidden).collect::<String>()))
    })
}

fn mask_of(masks: &[Values<'_, Str>], row: usize) -> Mask {
    match masks {
        [capital, small, digit, other] => {
            let one = |column: &Values<'_, Str>| column.get(row).and_then(|text| text.chars().next());
            Mask { capital: one(capital), small: one(small), digit: one(digit), other: one(other) }
        }
        _ => Mask::DEFAULT,
    }
}

//! The names of months, days and eras, in US English.

pub(super) const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
/// Monday first, as numbers of days count.
pub(super) const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub(super) const HALVES: [&str; 2] = ["AM", "PM"];
/// Before and in the common era; each with its long form.
pub(super) const ERAS: [(&str, &str); 2] = [("BC", "Before Christ"), ("AD", "Anno Domini")];
const QUARTERS: [&str; 4] = ["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"];

use super::pattern::Field;

/// All names of a field in the form of so many letters, each with its value.
pub(super) fn of(field: Field, count: usize) -> Vec<(i64, String)> {
    let short = |name: &str| match count {
        4 => name.to_owned(),
        5 => name.chars().take(1).collect(),
        _ => name.chars().take(3).collect(),
    };
    let numbered = |from: i64, names: Vec<String>| (from..).zip(names).collect();
    match field {
        Field::Month => numbered(1, MONTHS.iter().map(|name| short(name)).collect()),
        Field::Weekday => numbered(1, WEEKDAYS.iter().map(|name| short(name)).collect()),
        Field::HalfDay => numbered(0, HALVES.iter().map(|name| (*name).to_owned()).collect()),
        Field::Era => numbered(
            0,
            ERAS.iter()
                .map(|(name, long)| match count {
                    4 => (*long).to_owned(),
                    5 => name.chars().take(1).collect(),
                    _ => (*name).to_owned(),
                })
                .collect(),
        ),
        Field::Quarter => numbered(
            1,
            QUARTERS
                .iter()
                .map(|name| match count {
                    3 => format!("Q{}", name.chars().take(1).collect::<String>()),
                    4 => (*name).to_owned(),
                    _ => name.chars().take(1).collect(),
                })
                .collect(),
        ),
        _ => Vec::new(),
    }
}

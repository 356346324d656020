//! What the bench says: one line a goal, `goal NAME FIGURE LIMIT met|missed`, and behind it what was measured.

/// How much F0 may move during a run on a quiet machine.
const DISTURBED: f64 = 1.5;

/// The goals so far.
#[derive(Debug, Default)]
pub struct Report {
    /// What is asked for; all if nothing is named.
    only: Vec<String>,
    goals: usize,
    missed: Vec<&'static str>,
    /// F0 as it was measured over the run, in microseconds.
    device: Vec<f64>,
}

/// A figure and what it must not exceed, or fall below.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Microseconds, at most.
    Micros(f64, f64),
    /// Calls or events a second, at least.
    Rate(f64, f64),
    /// A bare number, at most.
    Ratio(f64, f64),
    /// How many times another figure, at least.
    Times(f64, f64),
    /// Mebibytes, at most.
    Mebibytes(f64, f64),
}

impl Bound {
    fn holds(self) -> bool {
        match self {
            Self::Micros(figure, most) | Self::Ratio(figure, most) | Self::Mebibytes(figure, most) => figure <= most,
            Self::Rate(figure, least) | Self::Times(figure, least) => figure >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Micros(figure, most) => format!("{figure:.0}us <={most:.0}us"),
            Self::Rate(figure, least) => format!("{}/s >={}/s", short(figure), short(least)),
            Self::Ratio(figure, most) => format!("{figure:.2} <={most:.2}"),
            Self::Times(figure, least) => format!("{figure:.2}x >={least:.2}x"),
            Self::Mebibytes(figure, most) => format!("{figure:.0}MiB <={most:.0}MiB"),
        }
    }
}

impl Report {
    /// A report of the named goals; of all if none is named.
    pub fn of(only: Vec<String>) -> Self {
        Self { only, ..Self::default() }
    }

    /// Says so if this program is built for finding faults and not for speed.
    pub fn unoptimised(&self) {
        if cfg!(debug_assertions) {
            self.note("NOTE: built without optimisation; these figures mean nothing");
        }
    }

    /// Whether a goal is asked for.
    pub fn wants(&self, goal: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == goal)
    }

    /// Whether any of these goals is asked for.
    pub fn wants_any(&self, goals: &[&str]) -> bool {
        goals.iter().any(|goal| self.wants(goal))
    }

    /// Tells a goal, if it is asked for: `also` must hold too.
    pub fn goal(&mut self, name: &'static str, bound: Bound, also: Option<Bound>, what: &str) {
        if !self.wants(name) {
            return;
        }
        let met = bound.holds() && also.is_none_or(Bound::holds);
        let word = if met { "met" } else { "missed" };
        let also = also.map(|bound| format!("; also {}", bound.text())).unwrap_or_default();
        println!("goal {name} {} {word} ({what}{also})", bound.text());
        self.goals += 1;
        if !met {
            self.missed.push(name);
        }
    }

    /// Tells that a part could not be measured: its goals are missed.
    pub fn failed(&mut self, part: &'static str, failed: &anyhow::Error) {
        println!("goal {part} not-measured - missed ({failed:#})");
        self.goals += 1;
        self.missed.push(part);
    }

    /// Notes F0 of a moment, and returns the least of the run so far.
    pub fn device(&mut self, p50: f64) -> f64 {
        self.device.push(p50);
        self.device.iter().copied().fold(p50, f64::min)
    }

    /// Tells something that is no goal.
    pub fn note(&self, what: &str) {
        println!("{what}");
    }

    /// The last line, and whether every goal was met.
    pub fn end(&self) -> bool {
        let (least, most) = self.device.iter().fold((f64::MAX, 0.0_f64), |(least, most), p50| (least.min(*p50), most.max(*p50)));
        if most > DISTURBED * least {
            println!(
                "NOTE: F0 moved between {least:.0}us and {most:.0}us during the run: the machine was not quiet, figures and limits waver"
            );
        }
        let met = self.goals - self.missed.len();
        let missed = if self.missed.is_empty() { String::new() } else { format!("; missed: {}", self.missed.join(" ")) };
        println!("goals={} met={met}{missed}", self.goals);
        self.goals > 0 && self.missed.is_empty()
    }
}

/// A number as people say it: 51234 as 51.2k.
pub fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.2}M", n / 1e6),
        n if n >= 1e3 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_only_if_both_bounds_hold() {
        let mut report = Report::default();
        report.goal("A", Bound::Micros(10.0, 10.0), Some(Bound::Rate(5.0, 5.0)), "");
        assert!(report.end());
        report.goal("B", Bound::Micros(10.0, 10.0), Some(Bound::Rate(4.0, 5.0)), "");
        report.goal("C", Bound::Ratio(1.3, 1.2), None, "");
        assert_eq!(report.missed, ["B", "C"]);
        assert!(!report.end());
    }

    #[test]
    fn only_what_is_asked_for_counts() {
        let mut report = Report::of(vec!["A".to_owned()]);
        assert!(report.wants_any(&["B", "A"]) && !report.wants_any(&["B"]));
        report.goal("B", Bound::Ratio(2.0, 1.0), None, "");
        assert!(!report.end(), "nothing was measured");
        report.goal("A", Bound::Ratio(1.0, 1.0), None, "");
        assert!(report.end());
    }

    #[test]
    fn what_could_not_be_measured_is_missed() {
        let mut report = Report::default();
        report.failed("D", &anyhow::anyhow!("no server"));
        assert!(!report.end());
    }

    #[test]
    fn a_busy_device_makes_no_limit_easier() {
        let mut report = Report::default();
        let f0: Vec<f64> = [100.0, 4_000.0, 90.0].into_iter().map(|p50| report.device(p50)).collect();
        assert_eq!(f0, [100.0, 100.0, 90.0]);
    }

    #[test]
    fn a_report_without_goals_is_no_success() {
        assert!(!Report::default().end());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([short(7.0), short(51_234.0), short(2_500_000.0)], ["7", "51.2k", "2.50M"]);
    }
}

//! A goal's figure and its limit, measured in turns: the device, the bare echo, foldlog, and again.
//!
//! Other work on the machine moves all three; only figures of the same moment may be compared.

use crate::{
    bench::Bench,
    disk,
    load::{self, Measured, median},
    report::Report,
};

/// What several runs of a loop came to.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Calls a second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
}

/// One goal's turns.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// The device: 4 KiB written and synced.
    pub f0: Figures,
    /// The bare echo of one append, 1 in flight.
    pub e0: Figures,
    /// What is measured.
    pub ours: Figures,
}

impl Figures {
    /// The median of several runs, figure by figure.
    pub fn of(runs: &[Measured]) -> Self {
        let figure = |of: fn(&Measured) -> f64| median(runs.iter().map(of).collect());
        Self { rate: figure(Measured::rate), p50: figure(Measured::p50), p99: figure(Measured::p99) }
    }
}

impl Turns {
    /// Measures in turns.
    pub async fn of(
        bench: &Bench,
        report: &mut Report,
        mut measure: impl AsyncFnMut() -> anyhow::Result<Measured>,
    ) -> anyhow::Result<Self> {
        let (mut device, mut echo, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.repeats {
            device.push(disk::write_and_sync(&bench.folder)?);
            echo.push(load::appends(&bench.echo.url, 1, 1, 1, bench.time).await?);
            ours.push(measure().await?);
        }
        let mut turns = Self { f0: Figures::of(&device), e0: Figures::of(&echo), ours: Figures::of(&ours) };
        // A device that is busy, perhaps with what foldlog left to write, must not make a limit easier to meet.
        turns.f0.p50 = report.device(turns.f0.p50);
        Ok(turns)
    }

    /// E0 + F0: what one durable append over gRPC cannot be faster than, in microseconds.
    pub const fn round_trip(&self) -> f64 {
        self.e0.p50 + self.f0.p50
    }

    /// Both in words.
    pub fn limits(&self) -> String {
        format!("F0 {:.0}us, E0 {:.0}us", self.f0.p50, self.e0.p50)
    }
}

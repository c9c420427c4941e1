//! The course of a run: warm-up, measured time, drain; what the processes cost meanwhile; the line on the terminal.

use super::{Meter, Tick};
use crate::{
    args::Common,
    process::{self, Usage},
    report::Cost,
};
use anyhow::{Context, Result, ensure};
use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// A broker may take so long to answer what is in flight at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);

/// Phases, readings and progress of a run.
pub struct Run {
    label: &'static str,
    begin: Instant,
    end: Instant,
    broker_pid: Option<u32>,
    before: Option<(Option<Usage>, Usage)>,
    after: Option<(Option<Usage>, Usage)>,
    shows: bool,
}

impl Run {
    /// Pins the thread and starts the clock: `warm_up` seconds, then `seconds` of measurement.
    ///
    /// # Errors
    /// The CPU can't be used.
    pub fn start(label: &'static str, common: &Common) -> Result<Run> {
        Run::begin(label, common, Instant::now() + Duration::from_secs_f64(common.warm_up))
    }

    /// As [`Run::start`], without a warm-up and from where another one ended: what is due lies in one of the two.
    ///
    /// # Errors
    /// The CPU can't be used.
    pub fn follow(label: &'static str, common: &Common, before: &Run) -> Result<Run> {
        Run::begin(label, common, before.end)
    }

    fn begin(label: &'static str, common: &Common, begin: Instant) -> Result<Run> {
        process::pin(common.cpu)?;
        Ok(Run {
            label,
            begin,
            end: begin + Duration::from_secs_f64(common.seconds),
            broker_pid: common.broker_pid,
            before: None,
            after: None,
            shows: std::io::stderr().is_terminal() && !common.quiet,
        })
    }

    /// Takes the readings that are due. To be called once a turn.
    ///
    /// # Errors
    /// A process is gone, or what is in flight is not answered.
    pub fn turn(&mut self, now: Instant) -> Result<()> {
        if self.before.is_none() && now >= self.begin {
            self.before = Some(self.usages()?);
        }
        if self.after.is_none() && now >= self.end {
            self.after = Some(self.usages()?);
        }
        ensure!(now < self.end + DRAIN_WITHIN, "what was in flight at the end was not answered within {} s", DRAIN_WITHIN.as_secs());
        Ok(())
    }

    /// Ends the measurement before its time.
    ///
    /// # Errors
    /// A process is gone.
    pub fn finish(&mut self, now: Instant) -> Result<()> {
        if self.after.is_none() {
            self.end = self.end.min(now);
            self.before = Some(self.before.map_or_else(|| self.usages(), Ok)?);
            self.after = Some(self.usages()?);
        }
        Ok(())
    }

    fn usages(&self) -> Result<(Option<Usage>, Usage)> {
        Ok((self.broker_pid.map(|pid| process::usage(Some(pid))).transpose()?, process::usage(None)?))
    }

    /// True until the measurement ends.
    #[must_use]
    pub fn goes_on(&self, now: Instant) -> bool {
        now < self.end
    }

    /// True while the measurement runs.
    #[must_use]
    pub fn measures(&self, now: Instant) -> bool {
        self.begin <= now && now < self.end
    }

    /// The end of the measurement.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Closes a meter's second if it is over.
    pub fn tick(&self, meter: &mut Meter, now: Instant) -> Option<Tick> {
        meter.tick(now, self.measures(now).then(|| now - self.begin))
    }

    /// Shows what a second brought, on a terminal.
    pub fn show(&self, tick: &Tick) {
        if self.shows {
            let state = if tick.second > 0.0 { format!("{:.0} s", tick.second) } else { "warm-up".to_owned() };
            let rate = if tick.mb_per_second >= 10.0 {
                format!("{:.0} MB/s", tick.mb_per_second)
            } else {
                format!("{:.2} MB/s", tick.mb_per_second)
            };
            let p99 = if tick.p99_us > 0 { format!("  p99 {:.2} ms", tick.p99_us as f64 / 1e3) } else { String::new() };
            eprint!("\r{} {state:>8}  {rate}  {:.0} records/s{p99}\x1b[K", self.label, tick.records_per_second);
            let _ = std::io::stderr().flush();
        }
    }

    /// The measured seconds and what the processes cost in them; the progress line is taken away.
    ///
    /// # Errors
    /// The run ended before its measurement began.
    pub fn cost(&self) -> Result<(f64, Cost)> {
        if self.shows {
            eprint!("\r\x1b[K");
        }
        let (broker_before, own_before) = self.before.context("the run was too short")?;
        let (broker_after, own_after) = self.after.context("the run was too short")?;
        let seconds = self.end.saturating_duration_since(self.begin).as_secs_f64().max(1e-6);
        Ok((seconds, Cost { broker: broker_before.zip(broker_after), own: (own_before, own_after) }))
    }
}

//! What a virtual machine takes away: time in which a CPU that only counts gets nothing done.
//!
//! Some hosts give a machine, its disk's emulation included, a share of CPU time in each 100 ms. Whoever reads the disk fast and keeps the
//! CPUs busy stands still for the rest of such a period, and no percentile of a broker is better than that.

use crate::process;
use anyhow::{Context, Result};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A gap from this length on is a stall: the kernel's own interruptions are shorter.
const STALL_MIN: Duration = Duration::from_millis(1);

/// The stalls of a CPU.
#[derive(Debug, Default)]
pub struct Stalls {
    /// The longest one.
    pub longest: Duration,
    /// All of them as a part of the time.
    pub share: f64,
}

/// Counts on `cpu` for as long as `work` takes.
///
/// # Errors
/// The CPU can't be used, or `work` fails.
pub fn during<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<(T, Stalls)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| -> Result<Stalls> {
            process::pin(Some(cpu))?;
            Ok(count(&done))
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let stalls = counting.join().ok().context("counting stalls panicked")??;
        Ok((result?, stalls))
    })
}

fn count(done: &AtomicBool) -> Stalls {
    let began = Instant::now();
    let (mut last, mut stalled, mut longest) = (began, Duration::ZERO, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let now = Instant::now();
        let gap = now - last;
        if gap >= STALL_MIN {
            stalled += gap;
            longest = longest.max(gap);
        }
        last = now;
    }
    Stalls { longest, share: stalled.as_secs_f64() / (last - began).as_secs_f64().max(f64::MIN_POSITIVE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_ends_with_the_work_and_brings_its_result() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let (found, stalls) = during(cpu, || Ok(7)).unwrap();
        assert_eq!(found, 7);
        assert!((0.0..=1.0).contains(&stalls.share), "{stalls:?}");
        assert!(during(cpu, || anyhow::bail!("failed")).map(|(found, _): ((), _)| found).is_err());
    }
}

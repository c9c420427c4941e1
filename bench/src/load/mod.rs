//! The load itself: producers and consumers on one thread, driven in steps, so that a command puts together what it
//! needs and one loop times all of it.

mod consumers;
mod meter;
mod producers;
mod run;
mod templates;

pub use consumers::{Consumers, Reading, Received};
pub use meter::{Counts, Meter, Tick};
pub use producers::{Acked, Load, Pace, Producers};
pub use run::Run;

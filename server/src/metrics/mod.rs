//! `/metrics` and `/health`, on a port and a thread of their own.
//!
//! * [`counters`]: what a core counts on its data path: plain cells. * [`codes`]: which errors an answer names.
//! * [`snapshot`]: what a core tells when it is asked, in steps that are short. * [`scrape`]: asks all cores, with a bound
//!   on time. * [`families`]: what is served, by name. * [`render`]: from a scrape to text. * [`text`]: the format.
//! * [`health`]: well or not. * [`process`]: what the kernel knows of this process. * [`http`]: the server.

pub mod codes;
pub mod counters;
pub mod families;
pub mod health;
pub mod http;
pub mod process;
pub mod render;
pub mod scrape;
pub mod snapshot;
pub mod text;

pub use counters::{Counters, Measured};

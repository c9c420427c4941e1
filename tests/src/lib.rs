//! The harness of the end-to-end tests: it starts brokers and clients as processes, and says in one place what a test may rely on.
//!
//! A test in `tests/` reads as a claim and is made of these pieces:
//!
//! - [`run`] gives it a [`scratch::Scratch`] directory on a real disk, and prints every log when the claim fails;
//! - [`broker::Broker`] is a `thalweg` process (or, with `THALWEG_TESTS_AGAINST=kafka`, a real Kafka: that is how a test shows that
//!   it asks for what Kafka does);
//! - [`clients::Session`] is a client program of one of the six [`clients::Family`]s, each a process that speaks JSON lines;
//! - [`kafka`] is Apache Kafka itself and its command-line tools;
//! - [`records`] compares what was acked with what was read, [`reader`] reads whole topics, [`wire`] asks by hand.
//!
//! What is missing on a user's machine is [`skip`]ped with the reason; where `CI=true` it is a failure.

pub mod admin;
pub mod broker;
pub mod clients;
pub mod compacting;
pub mod kafka;
pub mod namespace;
pub mod paths;
pub mod ports;
pub mod process;
pub mod reader;
pub mod records;
pub mod scratch;
pub mod skip;
pub mod wire;

pub use skip::run;

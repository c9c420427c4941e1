//! Ports for a broker: as many consecutive free ones as it has cores.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Below the range that the kernel gives to outgoing connections, so that no client's own end sits on them.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// The most cores of one broker in a test, and so the distance of two reservations.
const STEP: u16 = 16;

/// Consecutive ports, held for this test as long as the value lives (a lock file keeps other test processes away).
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _lock: Option<File>,
}

impl Ports {
    /// Reserves ports that nobody listens on.
    pub fn reserve() -> Result<Self> {
        let locks = std::env::temp_dir().join("thalweg-tests-ports");
        std::fs::create_dir_all(&locks).context("directory of port locks")?;
        // Different processes begin at different places, so that they rarely meet.
        let count = (LAST - FIRST) / STEP;
        let begin = (std::process::id() as u16).wrapping_mul(37) % count;
        for turn in 0..count {
            let base = FIRST + (begin + turn) % count * STEP;
            let lock = File::create(locks.join(base.to_string())).context("port lock")?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && (base..base + STEP).all(is_free) {
                return Ok(Ports { base, _lock: Some(lock) });
            }
        }
        bail!("no {STEP} consecutive free ports between {FIRST} and {LAST}")
    }

    /// Ports that the test has made sure of by itself.
    pub fn fixed(base: u16) -> Self {
        Ports { base, _lock: None }
    }

    /// The `index`th port.
    pub fn port(&self, index: u16) -> u16 {
        assert!(index < STEP, "only {STEP} ports are reserved");
        self.base + index
    }
}

/// Whether nobody listens on this port on either loopback address.
pub fn is_free(port: u16) -> bool {
    let v6_in_use = matches!(TcpListener::bind((Ipv6Addr::LOCALHOST, port)), Err(e) if e.kind() == std::io::ErrorKind::AddrInUse);
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && !v6_in_use
}

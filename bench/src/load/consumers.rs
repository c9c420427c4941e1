//! Consumers: each reads all partitions, or they share them as the members of a group do. Offsets are always checked.

use crate::{
    batch::{Batch, Checks, walk},
    connection::Connection,
    control::Topic,
    wire::{self, FetchBytes},
};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Consumers.
    pub clients: usize,
    /// They share the partitions; otherwise each reads all.
    pub share: bool,
    /// The bounds of a fetch.
    pub bytes: FetchBytes,
    /// Every so many batches the checksum is computed; 0 means never.
    pub crc_every: u64,
}

/// A batch that came, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its partition.
    pub partition: i32,
    /// The batch.
    pub batch: Batch,
}

/// One consumer's connection to one leader, with its positions there.
struct Reader {
    connection: Connection,
    positions: Vec<(i32, i64)>,
    waiting: bool,
    correlation: i32,
}

/// All consumers of a run.
pub struct Consumers {
    topic: String,
    readers: Vec<Reader>,
    bytes: FetchBytes,
    checks: Checks,
    /// Readers stop at these offsets.
    ends: Option<Vec<i64>>,
    /// Consumers that read a partition.
    readers_of_each: usize,
    /// Whose turn it was last.
    turn: usize,
}

impl Consumers {
    /// Connects; each partition is read from its offset in `begins` on.
    ///
    /// # Errors
    /// The network's.
    pub fn open(reading: &Reading, topic: &Topic, begins: &[i64], ends: Option<Vec<i64>>) -> Result<Consumers> {
        let mut readers = Vec::new();
        for client in 0..reading.clients {
            let mut by_leader: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
            for (partition, leader) in topic.leaders.iter().enumerate() {
                if !reading.share || partition % reading.clients == client {
                    by_leader.entry(leader).or_default().push((partition as i32, begins[partition]));
                }
            }
            for (leader, positions) in by_leader {
                readers.push(Reader { connection: Connection::open(leader)?, positions, waiting: false, correlation: 0 });
            }
        }
        Ok(Consumers {
            topic: topic.name.clone(),
            readers,
            bytes: reading.bytes,
            checks: Checks::every(reading.crc_every),
            ends,
            readers_of_each: if reading.share { 1 } else { reading.clients },
            turn: 0,
        })
    }

    /// Asks for more where an answer has come, sends and receives. `received` gets every batch; the answers are counted.
    ///
    /// # Errors
    /// The network's, the broker's, a gap, a wrong checksum, or what `received` says.
    pub fn step(&mut self, mut received: impl FnMut(Received) -> Result<()>) -> Result<u64> {
        (0..self.readers.len()).map(|at| self.step_of(at, usize::MAX, &mut received)).sum()
    }

    /// As [`Consumers::step`], for one of them in turn, and about `bytes_max` at most: whoever has something else to do on this thread
    /// doesn't wait long.
    ///
    /// # Errors
    /// As [`Consumers::step`].
    pub fn step_in_turn(&mut self, bytes_max: usize, mut received: impl FnMut(Received) -> Result<()>) -> Result<u64> {
        self.turn = (self.turn + 1) % self.readers.len();
        self.step_of(self.turn, bytes_max, &mut received)
    }

    fn step_of(&mut self, at: usize, bytes_max: usize, received: &mut impl FnMut(Received) -> Result<()>) -> Result<u64> {
        let reader = &mut self.readers[at];
        let mut answers = 0;
        if !reader.waiting && !at_end(self.ends.as_deref(), &reader.positions) {
            let mut request = reader.connection.buffer();
            reader.correlation = reader.correlation.wrapping_add(1);
            wire::fetch(&mut request, &self.topic, &reader.positions, self.bytes, reader.correlation);
            reader.connection.queue(request, None);
            reader.waiting = true;
        }
        let Reader { connection, positions, waiting, correlation } = reader;
        connection.send()?;
        connection.receive_some(bytes_max, |answered, body| {
            anyhow::ensure!(answered == *correlation && *waiting, "fetch {answered} was answered in place of {correlation}");
            *waiting = false;
            answers += 1;
            wire::fetched(body, |partition, records| {
                let position = positions.iter_mut().find(|position| position.0 == partition).context("a partition not asked for")?;
                let each = |batch| received(Received { partition, batch });
                position.1 = walk(records, position.1, &mut self.checks, each).with_context(|| format!("partition {partition}"))?;
                Ok(())
            })?;
            // What was read in full goes to the end of the next request, so that no partition starves.
            positions.rotate_left(1);
            Ok(())
        })?;
        Ok(answers)
    }

    /// True if all have read up to the ends that they were opened with.
    #[must_use]
    pub fn are_at_end(&self) -> bool {
        self.readers.iter().all(|reader| at_end(self.ends.as_deref(), &reader.positions))
    }

    /// True if each has asked and waits for an answer, or has nothing more to ask.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        self.readers.iter().all(|reader| reader.waiting || at_end(self.ends.as_deref(), &reader.positions))
    }

    /// Consumers that read each partition.
    #[must_use]
    pub fn readers_of_each(&self) -> usize {
        self.readers_of_each
    }

    /// The connections, to wait for.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> + Clone {
        self.readers.iter().map(|reader| &reader.connection)
    }
}

fn at_end(ends: Option<&[i64]>, positions: &[(i32, i64)]) -> bool {
    ends.is_some_and(|ends| positions.iter().all(|(partition, offset)| *offset >= ends[*partition as usize]))
}

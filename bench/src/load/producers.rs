//! Producers: requests on a schedule (open loop) or with a fixed number in flight (closed loop), every answer checked.

use super::templates::{Template, prepare};
use crate::{batch::Compression, connection::Connection, control::Topic, wire};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Records in a request.
    pub records: usize,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Records have one of so many keys, and a request holds a batch for each partition that its keys fall into.
    /// `None`: no keys, one partition a request.
    pub keys: Option<u64>,
    /// The codec of the batches.
    pub compression: Compression,
    /// What an ack promises: -1 (all) or 1.
    pub acks: i16,
    /// Clients; each has a connection of its own to every leader.
    pub clients: usize,
    /// Requests in flight on each connection.
    pub in_flight_max: usize,
    /// When requests are sent.
    pub pace: Pace,
}

/// Requests a second that one thread can keep a schedule of: with more it would never get to sending them.
const REQUESTS_PER_SECOND_MAX: f64 = 1_000_000.0;
/// A request of more bytes fits into no message of the protocol, with room for keys and headers.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next as soon as one is answered.
    Closed,
    /// So many a second of all clients together; what is late is timed from when it was due.
    Open(f64),
}

/// A batch that was acked.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Its partition.
    pub partition: i32,
    /// Its base offset.
    pub base: i64,
    /// Its records.
    pub records: u32,
    /// When its request was due.
    pub due: Instant,
}

/// An answered request: when it was due, its records and the bytes of its batches.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When it was due.
    pub due: Instant,
    /// Its records.
    pub records: u64,
    /// Bytes of its batches.
    pub bytes: u64,
}

/// One connection with its requests.
struct Lane {
    connection: Connection,
    templates: Vec<Rc<Template>>,
    next: usize,
    correlation: i32,
    /// When each request in flight was due. Answers come in this order.
    in_flight: VecDeque<(Instant, i32, Rc<Template>)>,
    /// Due, but the connection has as many in flight as it may.
    late: VecDeque<Instant>,
}

impl Lane {
    fn enqueue(&mut self, due: Instant) {
        let template = Rc::clone(&self.templates[self.next]);
        self.next = (self.next + 1) % self.templates.len();
        let mut first = self.connection.buffer();
        first.clear();
        first.extend_from_slice(&template.first);
        self.correlation = self.correlation.wrapping_add(1);
        wire::set_correlation(&mut first, self.correlation);
        self.connection.queue(first, Some(Rc::clone(&template.shared)));
        self.in_flight.push_back((due, self.correlation, template));
    }

    fn give_up(&mut self) -> Vec<(Instant, usize)> {
        let templates = self.templates.iter().cycle().skip(self.next);
        self.late.drain(..).zip(templates).map(|(due, template)| (due, template.parts.len())).collect()
    }
}

/// All producers of a run.
pub struct Producers {
    lanes: Vec<Lane>,
    in_flight_max: usize,
    schedule: Option<Schedule>,
    batches: u64,
}

/// The time from one request to the next.
fn interval(requests_per_second: f64) -> Result<Duration> {
    ensure!(
        requests_per_second <= REQUESTS_PER_SECOND_MAX,
        "{requests_per_second} requests a second are more than {REQUESTS_PER_SECOND_MAX}, which one thread can schedule: more records in a \
         request (--records, --linger-ms), or less --rate"
    );
    let seconds = 1.0 / requests_per_second;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("a request every {seconds} s"))
}

struct Schedule {
    due: Instant,
    interval: Duration,
    lane: usize,
}

impl Producers {
    /// Connects and prepares the requests. The schedule, if there is one, begins now.
    ///
    /// # Errors
    /// The network's, or the codec's.
    pub fn open(load: &Load, topic: &Topic) -> Result<Producers> {
        ensure!(load.acks != 0, "acks=0 is not answered, so there is nothing to measure");
        ensure!(load.records > 0 && load.in_flight_max > 0 && load.clients > 0, "records, in-flight and clients are at least 1");
        // What a record has besides its value, with a key.
        let request_bytes = load.record_bytes.saturating_add(40).saturating_mul(load.records);
        ensure!(request_bytes <= REQUEST_BYTES_MAX, "a request of {request_bytes} bytes: at most {REQUEST_BYTES_MAX} can be sent");
        let schedule = match load.pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some(Schedule { due: Instant::now(), interval: interval(rate)?, lane: 0 }),
        };
        let by_leader = topic.by_leader();
        let prepared: BTreeMap<&str, Vec<Rc<Template>>> = by_leader
            .iter()
            .map(|(leader, partitions)| Ok((*leader, prepare(load, topic, partitions, by_leader.len())?)))
            .collect::<Result<_>>()?;
        let mut lanes = Vec::new();
        for client in 0..load.clients {
            for (leader, templates) in &prepared {
                lanes.push(Lane {
                    connection: Connection::open(leader)?,
                    // Clients begin at different partitions.
                    next: client * templates.len() / load.clients,
                    templates: templates.clone(),
                    correlation: 0,
                    in_flight: VecDeque::new(),
                    late: VecDeque::new(),
                });
            }
        }
        // It begins when everything is ready.
        let schedule = schedule.map(|schedule| Schedule { due: Instant::now(), ..schedule });
        Ok(Producers { lanes, in_flight_max: load.in_flight_max, schedule, batches: 0 })
    }

    /// Queues what is due: by the schedule, or up to `budget` more requests in a closed loop.
    pub fn queue(&mut self, now: Instant, mut budget: usize) {
        let Some(schedule) = &mut self.schedule else {
            // Round by round, so that a small budget is shared.
            let mut queued = true;
            while queued && budget > 0 {
                queued = false;
                for lane in self.lanes.iter_mut().filter(|lane| lane.in_flight.len() < self.in_flight_max).take(budget) {
                    lane.enqueue(now);
                    budget -= 1;
                    queued = true;
                }
            }
            return;
        };
        while schedule.due <= now {
            self.lanes[schedule.lane].late.push_back(schedule.due);
            schedule.lane = (schedule.lane + 1) % self.lanes.len();
            schedule.due += schedule.interval;
        }
        for lane in &mut self.lanes {
            while lane.in_flight.len() < self.in_flight_max {
                let Some(due) = lane.late.pop_front() else { break };
                lane.enqueue(due);
            }
        }
    }

    /// Sends and receives what the sockets take and have. `acked` gets every batch, `answered` every request.
    ///
    /// # Errors
    /// The network's, the broker's, or an answer that does not fit its request.
    pub fn step(&mut self, mut acked: impl FnMut(Acked) -> Result<()>, mut answered: impl FnMut(Answered) -> Result<()>) -> Result<()> {
        for lane in &mut self.lanes {
            lane.connection.send()?;
            lane.connection.receive(|correlation, body| {
                let (due, expected, template) = lane.in_flight.pop_front().context("an answer without a request")?;
                ensure!(correlation == expected, "answer {correlation} came in place of {expected}");
                let mut batches = 0;
                wire::produced(body, |partition, base| {
                    let records =
                        template.records_for(partition).with_context(|| format!("an ack for partition {partition}, not asked for"))?;
                    batches += 1;
                    acked(Acked { partition, base, records, due })
                })?;
                ensure!(batches == template.parts.len(), "{batches} of {} partitions were answered", template.parts.len());
                self.batches += batches as u64;
                answered(Answered { due, records: template.records, bytes: template.batch_bytes })
            })?;
        }
        Ok(())
    }

    /// When the schedule wants the next request.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.schedule.as_ref().map(|schedule| schedule.due)
    }

    /// True if a closed loop has room for a request.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.schedule.is_none() && self.lanes.iter().any(|lane| lane.in_flight.len() < self.in_flight_max)
    }

    /// True if nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.in_flight.is_empty())
    }

    /// Batches in the request that has most of them.
    #[must_use]
    pub fn batches_per_request(&self) -> usize {
        self.lanes.iter().flat_map(|lane| &lane.templates).map(|template| template.parts.len()).max().unwrap_or(1)
    }

    /// Batches acked so far.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Gives up the requests that were due and never sent, and says when each was due and how many batches it would have had.
    pub fn give_up_late(&mut self) -> Vec<(Instant, usize)> {
        self.lanes.iter_mut().flat_map(Lane::give_up).collect()
    }

    /// The connections, to wait for.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> + Clone {
        self.lanes.iter().map(|lane| &lane.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_no_thread_can_keep_is_refused() {
        assert_eq!(interval(5_000.0).unwrap(), Duration::from_micros(200));
        assert!(interval(REQUESTS_PER_SECOND_MAX).unwrap() > Duration::ZERO);
        assert!(interval(2e9).is_err());
        // The slowest that the command line takes, in the largest requests.
        assert!(interval(1e-3 / 1e9).is_ok());
    }
}

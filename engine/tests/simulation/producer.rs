//! What producers do: plain ones send once, idempotent ones send again what has no ack, over crashes.

use crate::{
    counters::{Counters, Hit},
    life::Broker,
    model::{Batch, Model},
};
use engine::{log::AppendError, partition::PartitionId};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

/// Batches that an idempotent producer has in flight at most, as Kafka's clients.
pub const IN_FLIGHT_MAX: usize = 5;

/// An idempotent producer of one partition. It lives on over crashes, as clients do.
pub struct Producer {
    id: i64,
    partition: PartitionId,
    next_sequence: i32,
    /// Batches without an ack, oldest first, each with its sequence: sent again, byte for byte, until they have one.
    unacked: VecDeque<(i32, Rc<Batch>)>,
    /// How many of them were sent since the last error.
    sent: usize,
    /// Counts the errors.
    round: u64,
    busy: bool,
}

impl Producer {
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The broker went away: everything without an ack is sent again.
    pub fn restart(&mut self, model: &Model, counters: &mut Counters) {
        self.busy = false;
        self.sent = 0;
        self.round += 1;
        if let Some(partition) = model.partitions.get(&self.partition)
            && self.unacked.iter().any(|(_, batch)| partition.find(batch.label).is_none())
        {
            counters.hit(Hit::Resent);
        }
    }
}

impl Broker {
    /// A producer without idempotence sends a batch once.
    pub async fn produce_plain(self, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        let (batch, _) = self.batch(None);
        if !self.room(&log, id, batch.bytes.len()).await {
            return;
        }
        match self.append(&log, id, &batch) {
            Ok(base) => {
                let durable = Self::durability(&log, id, &batch, base);
                self.ack(&log, durable, id, &batch, base).await;
            }
            Err(error) => self.excuse(id, &error),
        }
    }

    /// A producer sends what has no ack yet, and up to `new` more batches behind it.
    pub async fn produce(self, producer: Rc<RefCell<Producer>>, new: usize) {
        if producer.borrow().busy {
            return;
        }
        let id = producer.borrow().partition;
        for _ in 0..new {
            let mut producer = producer.borrow_mut();
            if producer.unacked.len() < IN_FLIGHT_MAX {
                let sequence = producer.next_sequence;
                let (batch, records) = self.batch(Some((producer.id, sequence)));
                producer.unacked.push_back((sequence, batch));
                producer.next_sequence += records;
            }
        }
        // Now and then a client's timer runs out, and it sends again what is still on its way.
        if self.chance(8) {
            producer.borrow_mut().sent = 0;
        }
        producer.borrow_mut().busy = true;
        self.send(&producer, id).await;
        producer.borrow_mut().busy = false;
    }

    /// Producers that were cut off send again what has no ack.
    pub fn send_again(&self) {
        let producers = self.outside.producers.borrow().clone();
        let model = self.outside.model.borrow();
        let works = |id: PartitionId| !model.sick.contains(&id) && !model.shortened.contains(&id);
        let sends = |producer: &Rc<RefCell<Producer>>| !producer.borrow().unacked.is_empty() && works(producer.borrow().partition);
        for producer in producers.into_iter().filter(sends) {
            self.spawn(self.clone().produce(producer, 0));
        }
    }

    async fn send(&self, producer: &Rc<RefCell<Producer>>, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        loop {
            let next = producer.borrow().unacked.get(producer.borrow().sent).cloned();
            let Some((_, batch)) = next else { return };
            let round = producer.borrow().round;
            if !self.room(&log, id, batch.bytes.len()).await {
                return;
            }
            let place = producer.borrow().unacked.iter().position(|(_, other)| other.label == batch.label);
            // Acks and errors that came meanwhile decide anew what is next.
            let Some(place) = place.filter(|place| *place == producer.borrow().sent && round == producer.borrow().round) else { continue };
            match self.append(&log, id, &batch) {
                Ok(base) => {
                    producer.borrow_mut().sent = place + 1;
                    let durable = Self::durability(&log, id, &batch, base);
                    let (broker, log, producer) = (self.clone(), log.clone(), Rc::clone(producer));
                    self.spawn(async move {
                        let acked = broker.ack(&log, durable, id, &batch, base).await;
                        let mut producer = producer.borrow_mut();
                        if acked {
                            if let Some(place) = producer.unacked.iter().position(|(_, other)| other.label == batch.label) {
                                // Answers come in the order of the requests: those before it were acked as well.
                                producer.unacked.drain(..=place);
                                producer.sent = producer.sent.saturating_sub(place + 1);
                            }
                        } else {
                            producer.sent = 0;
                            producer.round += 1;
                        }
                    });
                }
                Err(AppendError::OutOfOrderSequence { .. })
                    if place > 0 && self.is_missing(id, &producer.borrow().unacked[place - 1].1) =>
                {
                    // The batch before it was discarded, and its error is still on the way.
                    producer.borrow_mut().sent = 0;
                    return;
                }
                Err(error) => {
                    self.excuse(id, &error);
                    producer.borrow_mut().sent = 0;
                    return;
                }
            }
        }
    }

    fn is_missing(&self, id: PartitionId, batch: &Batch) -> bool {
        self.outside.model.borrow().partitions.get(&id).is_none_or(|partition| partition.find(batch.label).is_none())
    }

    /// Another idempotent producer for a partition.
    pub fn new_producer(&self, partition: PartitionId) -> Rc<RefCell<Producer>> {
        let mut producers = self.outside.producers.borrow_mut();
        let id = 1000 + producers.len() as i64;
        let producer = Producer { id, partition, next_sequence: 0, unacked: VecDeque::new(), sent: 0, round: 0, busy: false };
        producers.push(Rc::new(RefCell::new(producer)));
        Rc::clone(producers.last().expect("just pushed"))
    }
}

//! What a core counts on its data path: plain cells, no lock, no allocation for a request that is well. The clock is read
//! once per receive and once per send, whichever number of requests or answers it holds.

#![deny(clippy::disallowed_types)]

use super::codes::Answered;
use crate::api::APIS;
use engine::measure::{Latency, Times};
use kafka_protocol::messages::ApiKey;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Instant,
};

/// What a core has counted.
pub struct Counters {
    apis: Vec<ApiCounters>,
    /// By API key and code. As many as there are codes, at most.
    errors: RefCell<BTreeMap<(i16, i16), u64>>,
    refused_requests: Cell<u64>,
    refused_connections: Cell<u64>,
    parked_fetches: Cell<u64>,
    sendfile_bytes: Cell<u64>,
}

#[derive(Default)]
struct ApiCounters {
    requests: Cell<u64>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    latency: Latency,
}

/// A request on its way to its answer.
pub struct Measured {
    /// Its place in [`APIS`]; none if it is of no API that is served.
    api: Option<usize>,
    came: Instant,
}

/// A fetch waits for as long as this is held.
pub struct Parked<'a>(&'a Cell<u64>);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            apis: APIS.iter().map(|_| ApiCounters::default()).collect(),
            errors: RefCell::default(),
            refused_requests: Cell::new(0),
            refused_connections: Cell::new(0),
            parked_fetches: Cell::new(0),
            sendfile_bytes: Cell::new(0),
        }
    }
}

impl Counters {
    /// A request of `bytes` came, its length cut off; `request` are its first bytes at least.
    #[must_use]
    pub fn came(&self, request: &[u8], bytes: usize, when: Instant) -> Measured {
        let key = request.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
        let api = APIS.iter().position(|api| Some(api.key as i16) == key);
        if let Some(api) = api {
            add(&self.apis[api].requests, 1);
            add(&self.apis[api].request_bytes, bytes as u64 + 4);
        }
        Measured { api, came: when }
    }

    /// Its answer of `bytes` went out.
    pub fn answered(&self, request: &Measured, bytes: usize, when: Instant) {
        if let Some(api) = request.api {
            add(&self.apis[api].response_bytes, bytes as u64);
            self.apis[api].latency.record_us(when.saturating_duration_since(request.came).as_micros() as u64);
        }
    }

    /// An answer names an error.
    pub fn failed(&self, api: ApiKey, code: i16) {
        *self.errors.borrow_mut().entry((api as i16, code)).or_default() += 1;
    }

    /// The errors of an answer.
    pub fn errors_of(&self, api: ApiKey, answer: &impl Answered) {
        answer.error_codes(|code| {
            if code != 0 {
                self.failed(api, code);
            }
        });
    }

    /// A request was no request, or can't be answered: its connection is closed.
    pub fn refused_request(&self) {
        add(&self.refused_requests, 1);
    }

    /// A connection was closed at once: there are as many as there may be.
    pub fn refused_connection(&self) {
        add(&self.refused_connections, 1);
    }

    /// A fetch begins to wait.
    #[must_use]
    pub fn parked_fetch(&self) -> Parked<'_> {
        add(&self.parked_fetches, 1);
        Parked(&self.parked_fetches)
    }

    /// Bytes of an answer went out by sendfile.
    pub fn sent_from_file(&self, bytes: usize) {
        add(&self.sendfile_bytes, bytes as u64);
    }

    /// All of it so far.
    #[must_use]
    pub fn stats(&self) -> CounterStats {
        let of_api = |counters: &ApiCounters| ApiStats {
            requests: counters.requests.get(),
            request_bytes: counters.request_bytes.get(),
            response_bytes: counters.response_bytes.get(),
            latency: counters.latency.times(),
        };
        CounterStats {
            apis: self.apis.iter().map(|counters| (counters.requests.get() > 0).then(|| of_api(counters))).collect(),
            errors: self.errors.borrow().clone(),
            refused_requests: self.refused_requests.get(),
            refused_connections: self.refused_connections.get(),
            parked_fetches: self.parked_fetches.get(),
            sendfile_bytes: self.sendfile_bytes.get(),
        }
    }
}

/// A copy of [`Counters`].
pub struct CounterStats {
    /// In the order of [`APIS`]; none for one that was never asked for.
    pub apis: Vec<Option<ApiStats>>,
    /// Errors that answers named: how often, by API key and code.
    pub errors: BTreeMap<(i16, i16), u64>,
    /// Requests that ended their connection.
    pub refused_requests: u64,
    /// Connections beyond the bound.
    pub refused_connections: u64,
    /// Fetches that wait now.
    pub parked_fetches: u64,
    /// Bytes of answers that went out by sendfile.
    pub sendfile_bytes: u64,
}

/// What was counted of one API.
pub struct ApiStats {
    /// Requests.
    pub requests: u64,
    /// Their bytes, lengths included.
    pub request_bytes: u64,
    /// The bytes of their answers.
    pub response_bytes: u64,
    /// From a request's arrival to its answer's end.
    pub latency: Times,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{HeartbeatResponse, LeaveGroupResponse, leave_group_response::MemberResponse};
    use std::time::Duration;

    #[test]
    fn a_request_is_counted_when_it_comes_and_timed_when_its_answer_went() {
        let counters = Counters::default();
        let came = Instant::now();
        let measured = counters.came(&[0, 1, 0, 11, 0, 0, 0, 1], 8, came);
        counters.answered(&measured, 100, came + Duration::from_millis(3));
        let nonsense = counters.came(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1], 8, came);
        counters.answered(&nonsense, 100, came);
        let stats = counters.stats();
        let asked: Vec<_> = stats.apis.iter().enumerate().filter_map(|(at, api)| Some((at, api.as_ref()?))).collect();
        let [(at, fetch)] = asked[..] else { panic!("one API was asked for, not {}", asked.len()) };
        assert_eq!(APIS[at].key, ApiKey::Fetch);
        assert_eq!((fetch.requests, fetch.request_bytes, fetch.response_bytes), (1, 12, 100));
        assert_eq!((fetch.latency.count(), fetch.latency.sum_us), (1, 3_000));
    }

    #[test]
    fn errors_are_counted_by_code_and_no_error_is_none() {
        let counters = Counters::default();
        counters.errors_of(ApiKey::Heartbeat, &HeartbeatResponse::default());
        let members = [0, 25, 25].map(|code| MemberResponse::default().with_error_code(code));
        counters.errors_of(ApiKey::LeaveGroup, &LeaveGroupResponse::default().with_members(members.into()));
        assert_eq!(counters.stats().errors, BTreeMap::from([((ApiKey::LeaveGroup as i16, 25), 2)]));
    }

    #[test]
    fn a_fetch_is_parked_while_it_waits() {
        let counters = Counters::default();
        let parked = counters.parked_fetch();
        assert_eq!(counters.stats().parked_fetches, 1);
        drop(parked);
        assert_eq!(counters.stats().parked_fetches, 0);
    }
}

//! What comes from the network is hostile: 10,000 malformed inputs against a running broker, which answers with Kafka's
//! errors or closes the connection, keeps its memory, and serves another client meanwhile.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use server::walk::{Field, Kind, Message, REQUESTS};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::*;

const INPUTS_MIN: usize = 10_000;
const RSS_GROWTH_MAX: u64 = 20 << 20;

/// A request with one element in every array, and where its counts are.
struct Sample {
    bytes: Vec<u8>,
    counts: Vec<usize>,
    flexible: bool,
    version: i16,
}

impl Sample {
    fn of(message: &Message, version: i16) -> Sample {
        let mut sample = Sample { bytes: Vec::new(), counts: Vec::new(), flexible: version >= message.flexible, version };
        sample.structure(message.fields);
        sample
    }

    fn structure(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            match field.kind {
                Kind::Fixed(bytes) => self.bytes.extend(vec![0; bytes]),
                Kind::String => self.string(),
                Kind::Bytes if self.flexible => self.bytes.extend([2, b'x']),
                Kind::Bytes => self.bytes.extend([0, 0, 0, 1, b'x']),
                Kind::Structure(fields) => self.structure(fields),
                Kind::Array(_) | Kind::Strings | Kind::Fixeds(_) => {
                    self.counts.push(self.bytes.len());
                    self.bytes.extend_from_slice(if self.flexible { &[2] } else { &[0, 0, 0, 1] });
                    match field.kind {
                        Kind::Array(fields) => self.structure(fields),
                        Kind::Fixeds(bytes) => self.bytes.extend(vec![0; bytes]),
                        _ => self.string(),
                    }
                }
            }
        }
        if self.flexible {
            self.bytes.push(0);
        }
    }

    fn string(&mut self) {
        self.bytes.extend_from_slice(if self.flexible { &[2, b'x'] } else { &[0, 1, b'x'] });
    }

    /// The same with another count in one array.
    fn with_count(&self, place: usize, count: i32) -> Vec<u8> {
        let old = if self.flexible { 1 } else { 4 };
        let body = Body::new().raw(&self.bytes[..place]);
        let body = if self.flexible { body.varint(count as u32) } else { body.i32(count) };
        body.raw(&self.bytes[place + old..]).0
    }
}

/// Sends bytes on a connection of their own and reads what comes, until the broker closes it or has answered and is
/// asked to close.
fn throw(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(HANGS)).unwrap();
    // The broker may close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "neither answered nor closed: {:?}", &bytes[..bytes.len().min(80)]);
    }
}

fn versions() -> impl Iterator<Item = (&'static Message, i16)> {
    server::api::APIS.iter().flat_map(|api| {
        let message = REQUESTS.iter().find(|message| message.key as i16 == api.key as i16).expect("each API has a schema");
        (api.min..=api.max).map(move |version| (message, version))
    })
}

/// Requests that change the broker's state by design (topics, groups) would make its memory grow by right.
fn is_harmless(message: &Message) -> bool {
    !matches!(message.key as i16, 11 | 19 | 37)
}

#[test]
fn ten_thousand_malformed_inputs_change_nothing() {
    let broker = Broker::start(2);
    let mut admin = broker.connect();
    let leader = admin.topic("undisturbed")[0] as usize;
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let undisturbed = std::thread::spawn({
        let (mut client, stop, rounds) = (broker.connect_to(leader), Arc::clone(&stop), Arc::clone(&rounds));
        move || {
            while !stop.load(Ordering::Relaxed) {
                let offset = rounds.fetch_add(1, Ordering::Relaxed) as i64;
                let answer = client.call(PRODUCE, 7, &produce("undisturbed", 0, -1, &batch(&[1; 100])));
                assert_eq!(produced(&answer), (0, offset));
                let answer = fetched(&client.call(FETCH, 11, &fetch("undisturbed", &[0], Fetch { offset, ..Fetch::default() })));
                assert_eq!(answer[0].3[..8], offset.to_be_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    // Buffers that are there once: the allocator's, the connections' map, the first error messages.
    for _ in 0..200 {
        throw(broker.ports[0], &[0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
    let before = broker.rss();
    let mut random = SmallRng::seed_from_u64(4);
    let mut inputs = 0;
    let mut port = broker.ports.iter().cycle();
    let mut hostile = |bytes: &[u8]| {
        throw(*port.next().unwrap(), bytes);
        inputs += 1;
    };

    // A count of 2^31-1, and others, in every array of every request in every version.
    for (message, version) in versions() {
        let sample = Sample::of(message, version);
        for place in &sample.counts {
            for count in [i32::MAX, -2, 1_000_001] {
                hostile(&frame(message.key as i16, version, 1, &sample.with_count(*place, count)));
            }
        }
        // Cut at some place, whole frames and cut ones.
        for _ in 0..4 {
            let cut = random.random_range(0..=sample.bytes.len());
            hostile(&frame(message.key as i16, version, 1, &sample.bytes[..cut]));
            let framed = frame(message.key as i16, version, 1, &sample.bytes);
            hostile(&framed[..random.random_range(0..framed.len())]);
        }
        if is_harmless(message) {
            hostile(&frame(message.key as i16, version, 1, &sample.bytes));
        }
    }
    // Lengths: 2 GiB, negative, too short, above the bound.
    for length in [i32::MAX, -1, i32::MIN, 0, 1, 7, (100 << 20) + 1] {
        hostile(&[&length.to_be_bytes()[..], &[0; 100]].concat());
    }
    // A length that is allowed, of which nothing comes.
    for _ in 0..50 {
        hostile(&[&(100i32 << 20).to_be_bytes()[..], &[0; 3000]].concat());
    }
    // Unknown keys and versions.
    for key in -5..120 {
        hostile(&frame(key, random.random_range(-3..40), 1, &[0; 40]));
    }
    // Bad batches: any byte of a good one changed.
    let good = batch(b"hello");
    for at in 0..good.len() {
        for _ in 0..8 {
            let mut bad = good.clone();
            bad[at] = random.random();
            hostile(&frame(PRODUCE, 7, 1, &produce("undisturbed-not", 0, -1, &bad)));
        }
    }
    // Random bytes, with and without a plausible beginning.
    while inputs < INPUTS_MIN {
        let mut bytes = vec![0; random.random_range(0..300)];
        random.fill_bytes(&mut bytes);
        let input = match inputs % 3 {
            0 => bytes,
            1 => [&(bytes.len() as i32).to_be_bytes()[..], &bytes].concat(),
            _ => {
                let api = &server::api::APIS[random.random_range(0..server::api::APIS.len())];
                frame(api.key as i16, random.random_range(api.min..=api.max), 1, &bytes)
            }
        };
        throw(*[broker.ports[0], broker.ports[1]].get(inputs % 2).unwrap(), &input);
        inputs += 1;
    }

    // Connections that say nothing, or half of something, and stay.
    let silent: Vec<TcpStream> = (0..200)
        .map(|count| {
            let mut stream = TcpStream::connect(("127.0.0.1", broker.ports[count % 2])).unwrap();
            stream.write_all(&frame(METADATA, 0, 1, &[0; 4])[..count % 15]).unwrap();
            stream
        })
        .collect();
    let seen = rounds.load(Ordering::Relaxed);
    while rounds.load(Ordering::Relaxed) < seen + 20 && !undisturbed.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(silent);
    stop.store(true, Ordering::Relaxed);
    undisturbed.join().expect("another client is undisturbed");

    let grown = |broker: &Broker| broker.rss().saturating_sub(before);
    for _ in 0..100 {
        if grown(&broker) <= RSS_GROWTH_MAX {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let tail = rounds.load(Ordering::Relaxed) as u64 * 4096;
    assert!(grown(&broker) <= RSS_GROWTH_MAX + tail.min(1 << 20), "{} KiB more than before", grown(&broker) >> 10);
    assert!(rounds.load(Ordering::Relaxed) > 20);
    let mut broker = broker;
    assert!(broker.stop().0, "and it stops cleanly");
}

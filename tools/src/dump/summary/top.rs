//! The most frequent keys, with a bounded number of counters (space-saving, Metwally 2005).

use std::collections::{BTreeSet, HashMap};

/// Counters. A key that has more than 1 in so many of all records is among them for certain.
const COUNTERS_MAX: usize = 1_000;
/// A longer key is told by so many bytes of its front.
const KEY_BYTES_MAX: usize = 256;

/// Counts byte strings.
#[derive(Default)]
pub(super) struct Top {
    /// Count and error by key.
    counters: HashMap<Vec<u8>, (u64, u64)>,
    order: BTreeSet<(u64, Vec<u8>)>,
}

/// A frequent key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) key: Vec<u8>,
    /// At most so often.
    pub(super) count: u64,
    /// And at least this much less.
    pub(super) error: u64,
}

impl Top {
    pub(super) fn add(&mut self, key: &[u8]) {
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        if let Some((count, _)) = self.counters.get_mut(key) {
            let moved = self.order.take(&(*count, key.to_vec())).map_or_else(|| key.to_vec(), |(_, key)| key);
            *count += 1;
            self.order.insert((*count, moved));
            return;
        }
        let mut error = 0;
        if self.counters.len() == COUNTERS_MAX
            && let Some((count, least)) = self.order.pop_first()
        {
            self.counters.remove(&least);
            error = count;
        }
        self.counters.insert(key.to_vec(), (error + 1, error));
        self.order.insert((error + 1, key.to_vec()));
    }

    /// The `count` most frequent, the most frequent first.
    pub(super) fn most(&self, count: usize) -> Vec<Counted> {
        let found = self.order.iter().rev().take(count);
        found
            .map(|(count, key)| Counted { key: key.clone(), count: *count, error: self.counters.get(key).map_or(0, |(_, error)| *error) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_keys_are_found_among_many_rare_ones() {
        let mut top = Top::default();
        for number in 0..20_000u32 {
            top.add(&number.to_be_bytes());
            if number % 5 == 0 {
                top.add(b"often");
            }
            if number % 20 == 0 {
                top.add(b"sometimes");
            }
        }
        let most = top.most(2);
        assert_eq!([&most[0].key[..], &most[1].key[..]], [&b"often"[..], b"sometimes"]);
        assert!(most.iter().zip([4_000, 1_000]).all(|(found, real)| found.count >= real && found.count - found.error <= real), "{most:?}");
        assert_eq!(top.counters.len(), COUNTERS_MAX);
    }
}

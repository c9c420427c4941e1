//! The last offset of each key, in a bounded table of 24 bytes a key (Kafka: `SkimpyOffsetMap`): a hash of 128 bits stands
//! for the key. The hash has a secret of its own in each job, so nobody can choose two keys that collide.

use siphasher::sip128::SipHasher13;

/// Memory for a key, in bytes, when the table is as full as it may be: its slot, and its last offset in the list of those that
/// stay.
pub const KEY_BYTES: usize = size_of::<Slot>() * LOAD.1 / LOAD.0 + size_of::<i64>();

/// At most this part of the slots is taken.
const LOAD: (usize, usize) = (3, 4);

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

const FREE: Slot = Slot { hash: [0, 0], offset: -1 };
const _: () = assert!(size_of::<Slot>() == 24);

/// What became of an offset of a part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// A part that comes later has its key.
    Superseded,
    /// It is the last one of its key so far, which this part had before.
    Again,
    /// The same of a key that nobody had: it has this place now.
    New(usize),
}

/// Keys and their last offsets.
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    keys: usize,
    keys_max: usize,
    secret: (u64, u64),
}

impl KeyMap {
    /// Room for `keys_max` keys (one at least).
    pub fn new(keys_max: usize, secret: (u64, u64)) -> KeyMap {
        let keys_max = keys_max.max(1);
        KeyMap { slots: vec![FREE; slots_for(keys_max)], keys: 0, keys_max, secret }
    }

    /// True if `keys` more keys surely find room.
    pub fn has_room(&self, keys: usize) -> bool {
        self.keys + keys <= self.keys_max
    }

    /// True without a key.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Makes room for `keys` keys in an empty map: one batch must always fit.
    pub fn reserve(&mut self, keys: usize) {
        assert!(self.is_empty(), "only an empty map grows");
        if keys > self.keys_max {
            *self = KeyMap::new(keys, self.secret);
        }
    }

    /// Notes an offset of a key. Offsets only rise.
    pub fn put(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        let at = self.slot(hash);
        if self.slots[at].offset < 0 {
            assert!(self.keys < self.keys_max, "room was asked for");
            self.keys += 1;
        }
        self.slots[at] = Slot { hash, offset };
    }

    /// Notes an offset of a key of a part of the log that ends at `end`, while what is behind it is known already: nothing, if a later
    /// record of the key is there. Within the part offsets only rise.
    pub fn put_of_part(&mut self, key: &[u8], offset: i64, end: i64) -> Put {
        let hash = self.hash(key);
        let at = self.slot(hash);
        let known = self.slots[at].offset;
        if known >= end {
            return Put::Superseded;
        }
        self.slots[at] = Slot { hash, offset };
        if known >= 0 {
            return Put::Again;
        }
        assert!(self.keys < self.keys_max, "room was asked for");
        self.keys += 1;
        Put::New(at)
    }

    /// The last offset of the key for which [`KeyMap::put_of_part`] has taken this place.
    pub fn offset_at(&self, at: usize) -> i64 {
        self.slots[at].offset
    }

    /// The last offset of a key.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let offset = self.slots[self.slot(self.hash(key))].offset;
        (offset >= 0).then_some(offset)
    }

    /// The last offsets of all keys, in order.
    pub fn last_offsets(&self) -> Vec<i64> {
        let mut offsets = Vec::with_capacity(self.keys);
        offsets.extend(self.slots.iter().map(|slot| slot.offset).filter(|offset| *offset >= 0));
        offsets.sort_unstable();
        offsets
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(key);
        [hash.h1, hash.h2]
    }

    /// Where the hash is, or would go.
    fn slot(&self, hash: [u64; 2]) -> usize {
        let mut at = ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize;
        while self.slots[at].offset >= 0 && self.slots[at].hash != hash {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }
}

fn slots_for(keys: usize) -> usize {
    keys.div_ceil(LOAD.0) * LOAD.1 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_knows_the_last_offset_of_every_key(keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 1..300)) {
            let mut map = KeyMap::new(keys.len(), (1, 2));
            let mut expected = BTreeMap::new();
            for (offset, key) in keys.iter().enumerate() {
                prop_assert_eq!(map.get(key), expected.get(key).copied());
                map.put(key, offset as i64);
                expected.insert(key.clone(), offset as i64);
            }
            for (key, offset) in &expected {
                prop_assert_eq!(map.get(key), Some(*offset));
            }
            let mut offsets: Vec<i64> = expected.values().copied().collect();
            offsets.sort_unstable();
            prop_assert_eq!(map.last_offsets(), offsets);
            prop_assert!(map.has_room(keys.len() - expected.len()) && !map.has_room(keys.len() - expected.len() + 1));
        }
    }

    #[test]
    fn parts_that_come_from_the_last_to_the_first_leave_the_same_offsets() {
        let mut map = KeyMap::new(10, (5, 6));
        let Put::New(a) = map.put_of_part(b"a", 10, 20) else { panic!("it is new") };
        assert_eq!(map.put_of_part(b"a", 12, 20), Put::Again);
        assert_eq!(map.put_of_part(b"a", 5, 10), Put::Superseded);
        let Put::New(b) = map.put_of_part(b"b", 6, 10) else { panic!("it is new") };
        assert_eq!((map.offset_at(a), map.offset_at(b)), (12, 6));
        assert_eq!((map.get(b"a"), map.get(b"b"), map.last_offsets()), (Some(12), Some(6), vec![6, 12]));
    }

    #[test]
    fn a_batch_with_more_keys_than_it_holds_finds_room_in_an_empty_map() {
        let mut map = KeyMap::new(2, (3, 4));
        map.reserve(100);
        (0..100u8).for_each(|key| map.put(&[key], i64::from(key)));
        assert!((0..100u8).all(|key| map.get(&[key]) == Some(i64::from(key))));
        assert!(!map.has_room(1));
    }
}

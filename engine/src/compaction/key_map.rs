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

/// A table is not smaller than for so many keys, and has room for four times as many when it is full: so the old and the new one together
/// are no more than [`KEY_BYTES`] a key, and a log with few keys has a table that a cache holds.
const KEYS_MIN: usize = 1 << 10;
const GROWS: usize = 4;

/// Keys and their last offsets.
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    keys: usize,
    /// Room for so many keys now, and when it has grown.
    room: usize,
    keys_max: usize,
    secret: (u64, u64),
    /// The slots of keys that nobody had before the part that is noted, if they are wanted.
    new: Option<Vec<usize>>,
}

impl KeyMap {
    /// Room for `keys_max` keys (one at least).
    pub fn new(keys_max: usize, secret: (u64, u64)) -> KeyMap {
        let keys_max = keys_max.max(1);
        let mut room = keys_max;
        while room / GROWS >= KEYS_MIN {
            room = room.div_ceil(GROWS);
        }
        KeyMap { slots: vec![FREE; slots_for(room)], keys: 0, room, keys_max, secret, new: None }
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
        assert!(self.is_empty(), "only an empty map is made anew");
        if keys > self.keys_max {
            *self = KeyMap::new(keys, self.secret);
        }
    }

    /// Notes an offset of a key. Offsets only rise.
    pub fn put(&mut self, key: &[u8], offset: i64) {
        let noted = self.put_of_part(key, offset, i64::MAX);
        assert!(noted, "nothing is known that comes later");
    }

    /// A part of the log begins, of which the keys that nobody had are remembered.
    pub fn begin_part(&mut self) {
        self.new = Some(Vec::new());
    }

    /// Notes an offset of a key of a part of the log that ends at `end`, while what is behind it is known already. False if a later
    /// record of the key is there. Within the part offsets only rise.
    pub fn put_of_part(&mut self, key: &[u8], offset: i64, end: i64) -> bool {
        let hash = self.hash(key);
        let mut at = self.slot(hash);
        let known = self.slots[at].offset;
        if known >= end {
            return false;
        }
        if known < 0 {
            if self.keys == self.room {
                self.grow();
                at = self.slot(hash);
            }
            self.keys += 1;
            if let Some(new) = &mut self.new {
                new.push(at);
            }
        }
        self.slots[at] = Slot { hash, offset };
        true
    }

    /// How many keys of this part nobody had.
    pub fn new_keys(&self) -> usize {
        self.new.as_ref().map_or(0, Vec::len)
    }

    /// The keys that nobody had are not wanted any more.
    pub fn forget_part(&mut self) {
        self.new = None;
    }

    /// The last offsets of the keys of this part that nobody had, in order.
    pub fn end_part(&mut self) -> Vec<i64> {
        let new = self.new.take().unwrap_or_default();
        let mut offsets: Vec<i64> = new.into_iter().map(|at| self.slots[at].offset).collect();
        offsets.sort_unstable();
        offsets
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

    fn grow(&mut self) {
        assert!(self.room < self.keys_max, "room was asked for");
        self.room = self.room.saturating_mul(GROWS).min(self.keys_max);
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots_for(self.room)]);
        for slot in old.iter().filter(|slot| slot.offset >= 0) {
            let at = self.slot(slot.hash);
            self.slots[at] = *slot;
        }
        let new = self.new.take().map(|new| new.into_iter().map(|at| self.slot(old[at].hash)).collect());
        self.new = new;
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
        map.begin_part();
        assert!(map.put_of_part(b"a", 10, 20) && map.put_of_part(b"a", 12, 20));
        assert_eq!((map.new_keys(), map.end_part()), (1, vec![12]));
        map.begin_part();
        assert!(!map.put_of_part(b"a", 5, 10) && map.put_of_part(b"b", 6, 10));
        assert_eq!(map.end_part(), [6]);
        assert_eq!((map.get(b"a"), map.get(b"b"), map.last_offsets()), (Some(12), Some(6), vec![6, 12]));
    }

    #[test]
    fn it_grows_and_still_knows_all_keys_and_which_of_them_are_new() {
        let mut map = KeyMap::new(100_000, (7, 8));
        let key = |number: i64| number.to_be_bytes();
        let end = 1_000_000;
        (0..5_000).for_each(|number| map.put(&key(number), end + number));
        map.begin_part();
        (0..95_000).for_each(|number| assert_eq!(map.put_of_part(&key(number), number, end), number >= 5_000));
        assert_eq!((map.new_keys(), map.has_room(5_000), map.has_room(5_001)), (90_000, true, false));
        assert_eq!(map.end_part(), (5_000..95_000).collect::<Vec<_>>());
        assert_eq!((map.get(&key(4_999)), map.get(&key(94_999)), map.get(&key(95_000))), (Some(end + 4_999), Some(94_999), None));
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

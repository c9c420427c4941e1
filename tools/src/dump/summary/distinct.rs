//! How many different keys there are: exact while they are few, then estimated within about 1% (HyperLogLog).

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hasher},
};

/// Up to so many are counted exactly.
const EXACT_MAX: usize = 10_000;
/// Bits of a hash that choose the register: 16,384 registers are a standard error of 0.8%.
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;

/// Counts different byte strings.
pub(super) struct Distinct {
    exact: HashSet<u64>,
    /// The most leading zeros of any hash, by its first bits.
    registers: Vec<u8>,
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct { exact: HashSet::new(), registers: vec![0; REGISTERS] }
    }
}

impl Distinct {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let hash = hasher.finish();
        if self.exact.len() <= EXACT_MAX {
            self.exact.insert(hash);
        }
        let rank = ((hash << INDEX_BITS) | (1 << (INDEX_BITS - 1))).leading_zeros() as u8 + 1;
        let register = &mut self.registers[(hash >> (64 - INDEX_BITS)) as usize];
        *register = rank.max(*register);
    }

    /// True while the count is no estimate.
    pub(super) fn is_exact(&self) -> bool {
        self.exact.len() <= EXACT_MAX
    }

    pub(super) fn count(&self) -> u64 {
        if self.is_exact() {
            return self.exact.len() as u64;
        }
        let m = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|rank| 2f64.powi(-i32::from(*rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let zeros = self.registers.iter().filter(|rank| **rank == 0).count() as f64;
        // Few of many registers are set: how many are not tells more.
        (if estimate <= 2.5 * m && zeros > 0.0 { m * (m / zeros).ln() } else { estimate }).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_and_many_are_estimated_within_three_percent() {
        for count in [0u64, 1, 10_000, 30_000, 200_000] {
            let mut distinct = Distinct::default();
            for number in (0..count).chain(0..count / 2) {
                distinct.add(&number.to_be_bytes());
            }
            let error = distinct.count().abs_diff(count);
            assert!(error == 0 || (!distinct.is_exact() && error * 100 <= count * 3), "{count}: {}", distinct.count());
        }
    }
}

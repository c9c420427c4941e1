//! Record batches: made once and sent many times, and walked over when they come back.

mod encode;
mod keys;
mod walk;

pub use encode::{Compression, encode};
pub use keys::partition_of;
pub use walk::{Batch, Checks, walk};

/// Bytes of a batch's header.
pub const HEADER_BYTES: usize = 61;

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(bytes: &[u8], offset: i64) -> anyhow::Result<(i64, u64)> {
        let mut records = 0;
        let next = walk(bytes, offset, &mut Checks::every(1), |batch| {
            records += batch.records;
            Ok(())
        })?;
        Ok((next, records))
    }

    #[test]
    fn a_walk_counts_what_was_encoded_and_sees_gaps_and_flipped_bits() {
        let mut batch = encode(&[None; 10], 100, Compression::None, 1).unwrap();
        assert_eq!(walked(&batch, 0).unwrap(), (10, 10));
        assert_eq!(walked(&batch, 4).unwrap().1, 6);
        assert_eq!(walked(&batch[..batch.len() - 1], 0).unwrap().1, 0);
        assert!(walked(&batch, 10).is_err(), "a gap");
        batch[80] ^= 1;
        assert!(walked(&batch, 0).is_err(), "a flipped bit");
    }

    #[test]
    fn lz4_makes_a_batch_smaller() {
        let keys = [Some(&b"key-1"[..]), Some(b"key-2")];
        let plain = encode(&keys, 1_000, Compression::None, 1).unwrap();
        let packed = encode(&keys, 1_000, Compression::Lz4, 1).unwrap();
        assert!(packed.len() * 3 < plain.len() * 2, "{} of {}", packed.len(), plain.len());
        assert_eq!(walked(&packed, 0).unwrap(), (2, 2));
    }
}

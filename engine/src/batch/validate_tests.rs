//! Claims about what is accepted, and with which error the rest is refused.

use super::*;
use crate::batch::BatchBuilder;
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn rules() -> Rules {
    Rules { now_ms: NOW, ..Rules::default() }
}

fn two_records() -> BatchBuilder {
    BatchBuilder::new().record(NOW, Some(b"a"), Some(b"1")).record(NOW + 5, None, Some(b"2"))
}

/// The batch with some bytes replaced and a CRC that fits again.
fn forged(mut batch: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc(&batch);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn refused(batch: &[u8], rules: &Rules) -> BatchError {
    validate(batch, rules).expect_err("refused")
}

#[test]
fn what_clients_send_is_accepted_in_every_codec() {
    for codec in 0..5 {
        let batch = two_records().codec(Codec::of_id(codec).expect("known")).producer(4, 0, 9).build();
        for strict in [false, true] {
            let checked = validate(&batch, &Rules { strict, ..rules() }).expect("valid");
            assert_eq!((checked.header.record_count(), checked.max_timestamp), (2, NOW + 5));
        }
    }
    let appended = validate(&two_records().build(), &Rules { log_append_time: true, ..rules() }).expect("valid");
    assert_eq!(appended.max_timestamp, NOW);
    assert!(
        validate(&two_records().transactional().producer(4, 0, 9).build(), &rules())
            .expect("the log's to refuse")
            .header
            .is_transactional()
    );
}

#[test]
fn a_wrong_maximum_timestamp_is_found_out() {
    let batch = forged(two_records().build(), 35, &(NOW + 99).to_be_bytes());
    assert_eq!(validate(&batch, &rules()).expect("valid").max_timestamp, NOW + 5);
}

#[test]
fn damage_is_corrupt_and_bad_counts_are_invalid_records() {
    let batch = two_records().build();
    for length in 1..batch.len() {
        assert!(matches!(refused(&batch[..length], &rules()), BatchError::Corrupt(_)), "{length} bytes");
    }
    let mut flipped = batch.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert!(matches!(refused(&flipped, &rules()), BatchError::Corrupt(_)));
    assert!(matches!(refused(&[], &rules()), BatchError::InvalidRecord(_)));
    assert!(matches!(refused(&[batch.clone(), batch.clone()].concat(), &rules()), BatchError::InvalidRecord(_)));
    for (at, bytes) in [
        (0, 1i64.to_be_bytes().to_vec()),
        (23, 2i32.to_be_bytes().to_vec()),
        (23, (-1i32).to_be_bytes().to_vec()),
        (57, 3i32.to_be_bytes().to_vec()),
        (57, 0i32.to_be_bytes().to_vec()),
        (57, i32::MIN.to_be_bytes().to_vec()),
        (43, 1i64.to_be_bytes().to_vec()),
        (21, (1i16 << 5).to_be_bytes().to_vec()),
        (21, (1i16 << 6).to_be_bytes().to_vec()),
    ] {
        assert!(matches!(refused(&forged(batch.clone(), at, &bytes), &rules()), BatchError::InvalidRecord(_)), "{bytes:?} at {at}");
    }
    let both = forged(forged(batch.clone(), 57, &3i32.to_be_bytes()), 23, &2i32.to_be_bytes());
    assert!(matches!(refused(&both, &rules()), BatchError::InvalidRecord(_)), "a third record that isn't there");
    assert_eq!(refused(&forged(batch.clone(), 21, &7i16.to_be_bytes()), &rules()), BatchError::UnsupportedCompression(7));
}

#[test]
fn old_formats_are_named() {
    for magic in [0u8, 1] {
        let mut batch = two_records().build();
        batch[16] = magic;
        assert_eq!(refused(&batch, &rules()), BatchError::UnsupportedFormat(magic as i8));
    }
    let mut batch = two_records().build();
    batch[16] = 3;
    assert!(matches!(refused(&batch, &rules()), BatchError::Corrupt(_)));
}

#[test]
fn bounds_are_inclusive() {
    let batch = two_records().build();
    let bytes = batch.len();
    assert!(validate(&batch, &Rules { max_message_bytes: bytes, segment_bytes: bytes as u64, ..rules() }).is_ok());
    let max = bytes - 1;
    assert_eq!(refused(&batch, &Rules { max_message_bytes: max, ..rules() }), BatchError::TooLarge { bytes, max });
    let max = max as u64;
    assert_eq!(refused(&batch, &Rules { segment_bytes: max, ..rules() }), BatchError::LargerThanSegment { bytes, max });
}

#[test]
fn timestamps_must_be_near_the_brokers_clock() {
    let at = |timestamp| BatchBuilder::new().record(timestamp, Some(b"k"), None);
    let narrow = Rules { timestamp_before_max_ms: 100, timestamp_after_max_ms: 10, ..rules() };
    for codec in [Codec::None, Codec::Gzip] {
        for (timestamp, fits) in [(NOW - 100, true), (NOW - 101, false), (NOW + 10, true), (NOW + 11, false), (-1, true), (i64::MIN, false)]
        {
            let batch = at(timestamp).codec(codec).build();
            // A batch's maximum is never below "none", so a compressed one that lies below it is judged by its base.
            assert_eq!(validate(&batch, &narrow).is_ok(), fits, "{timestamp} {codec:?}");
            assert!(validate(&batch, &Rules { log_append_time: true, ..narrow }).is_ok());
        }
    }
}

#[test]
fn a_compacted_topic_needs_keys_even_in_compressed_batches() {
    let compacted = Rules { compacted: true, ..rules() };
    for codec in 0..5 {
        let codec = Codec::of_id(codec).expect("known");
        assert!(matches!(refused(&two_records().codec(codec).build(), &compacted), BatchError::InvalidRecord(_)));
        assert!(validate(&BatchBuilder::new().codec(codec).record(NOW, Some(b"k"), None).build(), &compacted).is_ok());
    }
}

#[test]
fn a_compressed_batch_that_lies_is_noticed_where_it_is_walked() {
    let batch = two_records().codec(Codec::Zstd).build();
    let forged = forged(forged(batch, 57, &3i32.to_be_bytes()), 23, &2i32.to_be_bytes());
    assert!(validate(&forged, &rules()).is_ok());
    assert!(matches!(refused(&forged, &Rules { strict: true, ..rules() }), BatchError::InvalidRecord(_)));
    let bomb = BatchBuilder::new().codec(Codec::Gzip).record(NOW, Some(b"k"), Some(&vec![0; 1 << 20])).build();
    let bounded = Rules { strict: true, decompressed_bytes_max: 1 << 16, ..rules() };
    assert!(matches!(refused(&bomb, &bounded), BatchError::Corrupt(_)));
}

proptest! {
    #[test]
    fn any_bytes_are_accepted_or_refused_without_a_panic(bytes: Vec<u8>, strict: bool) {
        let _ = validate(&bytes, &Rules { strict, ..rules() });
    }

    #[test]
    fn a_batch_with_any_damage_and_a_fitting_crc_never_panics(
        codec in 0i16..5, damage in prop::collection::vec((0usize..200, any::<u8>()), 1..4), strict: bool,
    ) {
        let mut batch = two_records().codec(Codec::of_id(codec).expect("known")).build();
        for (at, byte) in damage {
            let at = at % batch.len();
            batch = forged(batch, at, &[byte]);
        }
        let _ = validate(&batch, &Rules { strict, compacted: strict, ..rules() });
    }
}

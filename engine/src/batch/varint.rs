//! Kafka's variable-length integers: zigzag, seven bits a byte, low bits first (Kafka: `ByteUtils`).

/// A reader at the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// An unsigned varint of at most `bits` bits; `None` if it is longer or the bytes end.
    fn unsigned(&mut self, bits: u32) -> Option<u64> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            if shift >= bits || (shift + 7 > bits && part >> (bits - shift) != 0) {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    pub(super) fn varint(&mut self) -> Option<i32> {
        // Lengths and small deltas fit a byte nearly always.
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Some((i32::from(byte) >> 1) ^ -(i32::from(byte) & 1));
        }
        let value = self.unsigned(32)? as u32;
        Some((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    pub(super) fn varlong(&mut self) -> Option<i64> {
        let value = self.unsigned(64)?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn byte(&mut self) -> Option<i8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte as i8)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes behind a varint length: -1 is null, below that is an error.
    pub(super) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            len => Some(Some(self.take(usize::try_from(len).ok()?)?)),
        }
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, i32::try_from(bytes.len()).expect("a field is below 2 GiB"));
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive_encoding(small: i32, large: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, small);
            put_varlong(&mut out, large);
            let mut cursor = Cursor(&out);
            prop_assert_eq!(cursor.varint(), Some(small));
            prop_assert_eq!(cursor.varlong(), Some(large));
            prop_assert!(cursor.0.is_empty());
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert_eq!(Cursor(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), None);
        assert_eq!(Cursor(&[0x80; 11]).varlong(), None);
        assert_eq!(Cursor(&[0x80]).varint(), None);
        assert_eq!(Cursor(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Some(i32::MIN));
    }
}

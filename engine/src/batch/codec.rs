//! The compressions of Kafka, each bounded in what it may produce.

use std::io::{self, Read, Write};

/// What one batch may decompress to, in bytes, wherever the broker or a tool has to look inside.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// A batch's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in xerial's framing or raw.
    Snappy,
    /// LZ4's frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// xerial's stream header: a magic number, then version and lowest compatible version, 4 bytes each.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// The uncompressed size of the blocks that xerial's framing is written in.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

impl Codec {
    /// The codec of the attribute bits.
    #[must_use]
    pub fn of_id(id: i16) -> Option<Codec> {
        Some(match id {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }

    /// The attribute bits.
    #[must_use]
    pub fn id(self) -> i16 {
        self as i16
    }

    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// Decompresses to at most `bytes_max` bytes.
///
/// # Errors
/// What the codec says, or [`io::ErrorKind::FileTooLarge`] if the bound was passed.
pub fn decompress(codec: Codec, bytes: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => {
            if bytes.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            Ok(bytes.to_vec())
        }
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(bytes), bytes_max),
        Codec::Snappy => snappy(bytes, bytes_max),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), bytes_max),
        Codec::Zstd => read_bounded(zstd::stream::read::Decoder::with_buffer(bytes)?, bytes_max),
    }
}

fn too_large(bytes_max: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it decompresses to more than {bytes_max} bytes"))
}

fn read_bounded(reader: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut out)?;
    if out.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(out) }
}

fn snappy(bytes: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, bytes_max, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(|| invalid("the snappy stream header is cut short"))?;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(|| invalid("a snappy block length is cut short"))?;
        let (block, behind) =
            behind.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(|| invalid("a snappy block is cut short"))?;
        snappy_block(block, bytes_max, &mut out)?;
        rest = behind;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block)?;
    // Snappy can't shrink a block below 3/64: a length beyond that is a lie, and is refused before memory is taken.
    if length > bytes_max - out.len() || length as u64 > block.len() as u64 * 64 {
        return Err(too_large(bytes_max));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..])?;
    out.truncate(start + written);
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Compresses, as Kafka's Java client frames it.
///
/// # Errors
/// What the codec says.
pub fn compress(codec: Codec, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Codec::Snappy => {
            let mut out = XERIAL_MAGIC.to_vec();
            out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
            for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block)?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            Ok(out)
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish().map_err(io::Error::other)
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
        for codec in ALL {
            let packed = compress(codec, &bytes).expect("compresses");
            assert_eq!(decompress(codec, &packed, bytes.len()).expect("decompresses"), bytes, "{codec:?}");
            assert_eq!(Codec::of_id(codec.id()), Some(codec));
        }
    }

    #[test]
    fn raw_snappy_is_understood_too() {
        let packed = snap::raw::Encoder::new().compress_vec(b"no framing").expect("compresses");
        assert_eq!(decompress(Codec::Snappy, &packed, 100).expect("decompresses"), b"no framing");
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bytes = vec![0; 1 << 20];
        for codec in ALL {
            let packed = compress(codec, &bytes).expect("compresses");
            assert!(decompress(codec, &packed, bytes.len() - 1).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_cut_stream_is_an_error_and_no_panic() {
        let packed: Vec<_> = ALL[1..].iter().map(|codec| (codec, compress(*codec, &[7; 5_000]).expect("compresses"))).collect();
        for (codec, packed) in packed {
            for cut in 1..packed.len() {
                if let Ok(bytes) = decompress(*codec, &packed[..cut], 1 << 20) {
                    assert!(bytes.len() < 5_000 || *codec == Codec::Lz4 || *codec == Codec::Gzip, "{codec:?} cut at {cut}");
                }
            }
        }
    }
}

//! The few Kafka requests of the hot path, encoded and read by hand: Produce v7 and Fetch v11, the newest versions
//! without tagged fields, so that nothing is allocated per request.

use anyhow::{Result, bail, ensure};

/// The correlation id's place in a request, behind its length prefix, key and version.
const CORRELATION_AT: usize = 8;

fn header(out: &mut Vec<u8>, key: i16, version: i16) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&0i32.to_be_bytes());
    string(out, "thalweg-bench");
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A Produce v7 request up to where its first batch begins, for a body of `rest_bytes` bytes that follows: `partitions`
/// times partition, size and batch, of which the first partition and its size (`first`) stand in here already.
#[must_use]
pub fn produce_prefix(topic: &str, acks: i16, partitions: usize, first: (i32, usize), rest_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    header(&mut out, 0, 7);
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out.extend_from_slice(&acks.to_be_bytes());
    out.extend_from_slice(&30_000i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    string(&mut out, topic);
    out.extend_from_slice(&(partitions as i32).to_be_bytes());
    out.extend_from_slice(&partition_head(first.0, first.1));
    let length = (out.len() - 4 + rest_bytes) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// What stands before a partition's batch in a Produce request: its number and the batch's size.
#[must_use]
pub fn partition_head(partition: i32, batch_bytes: usize) -> [u8; 8] {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&partition.to_be_bytes());
    head[4..].copy_from_slice(&(batch_bytes as i32).to_be_bytes());
    head
}

/// Writes the correlation id into an encoded request.
pub fn set_correlation(request: &mut [u8], correlation: i32) {
    request[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
}

/// How much a fetch may bring, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct FetchBytes {
    /// In all.
    pub whole_max: i32,
    /// Of one partition.
    pub partition_max: i32,
}

/// A Fetch v11 request for partitions at their offsets, without a session; it waits up to 500 ms, as Kafka's clients do.
pub fn fetch(out: &mut Vec<u8>, topic: &str, positions: &[(i32, i64)], bytes: FetchBytes, correlation: i32) {
    out.clear();
    header(out, 1, 11);
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&500i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&bytes.whole_max.to_be_bytes());
    out.push(0);
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    string(out, topic);
    out.extend_from_slice(&(positions.len() as i32).to_be_bytes());
    for (partition, offset) in positions {
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&(-1i64).to_be_bytes());
        out.extend_from_slice(&bytes.partition_max.to_be_bytes());
    }
    out.extend_from_slice(&0i32.to_be_bytes());
    string(out, "");
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    set_correlation(out, correlation);
}

/// Reads a response field by field; an end that comes too early is an error.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `n` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        ensure!(n <= self.0.len(), "a response ends {} bytes too early", n - self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(taken)
    }

    /// An i16.
    ///
    /// # Errors
    /// The response ends.
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    /// An i32.
    ///
    /// # Errors
    /// The response ends.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// An i64.
    ///
    /// # Errors
    /// The response ends.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// Skips a string.
    ///
    /// # Errors
    /// The response ends.
    pub fn skip_string(&mut self) -> Result<()> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.take(length).map(|_| ())
    }
}

/// Hands each partition of a Produce v7 response body to `each`, with the base offset that its batch was given.
///
/// # Errors
/// The broker's error code, a malformed response, or what `each` says.
pub fn produced(body: &[u8], mut each: impl FnMut(i32, i64) -> Result<()>) -> Result<()> {
    let mut fields = Fields(body);
    for _ in 0..fields.i32()? {
        fields.skip_string()?;
        for _ in 0..fields.i32()? {
            let partition = fields.i32()?;
            let error = fields.i16()?;
            if error != 0 {
                bail!("the broker refused a batch of partition {partition}: Kafka error {error}");
            }
            each(partition, fields.i64()?)?;
            // Log append time and log start offset.
            fields.take(16)?;
        }
    }
    Ok(())
}

/// Hands each partition's records of a Fetch v11 response body to `each`.
///
/// # Errors
/// The broker's error code, a malformed response, or what `each` says.
pub fn fetched(body: &[u8], mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
    let mut fields = Fields(body);
    fields.i32()?;
    let error = fields.i16()?;
    ensure!(error == 0, "the broker refused a fetch: Kafka error {error}");
    fields.i32()?;
    for _ in 0..fields.i32()? {
        fields.skip_string()?;
        for _ in 0..fields.i32()? {
            let partition = fields.i32()?;
            let error = fields.i16()?;
            ensure!(error == 0, "the broker refused a fetch of partition {partition}: Kafka error {error}");
            fields.take(24)?;
            let aborted = usize::try_from(fields.i32()?).unwrap_or(0);
            fields.take(aborted * 16)?;
            fields.i32()?;
            let length = usize::try_from(fields.i32()?).unwrap_or(0);
            each(partition, fields.take(length)?)?;
        }
    }
    Ok(())
}

//! Sizes as people write them: `64MiB`, `1g`, `1048576`.

/// Bytes of a size. K, M, G and T are powers of 1024 with or without `iB`; `kB`, `MB`, `GB` are too, as in Kafka's and
/// the kernel's world.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A size for people.
#[must_use]
pub fn show(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) if bytes.is_multiple_of(1 << shift) => format!("{} {unit}", bytes >> shift),
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [("16MiB", 16 << 20), ("16 m", 16 << 20), ("1G", 1 << 30), ("4096", 4096), ("2kb", 2048), ("10b", 10)];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "-1", "1.5G", "16 parsecs", "99999999999T"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!([show(128 << 20), show(1536), show(7)], ["128 MiB", "1.5 KiB", "7 bytes"]);
    }
}

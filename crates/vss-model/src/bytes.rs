//! Sizes and rates in bytes, as people write and read them.

use std::fmt;

/// A number of bytes in the largest unit of 1024 of which there is one: `412 MiB`, `1.2 GiB`. One decimal below ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = UNITS[0];
        for next in &UNITS[1..] {
            // What would be rounded to 1024 is one of the next unit.
            if value < 1023.5 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if value < 9.95 { write!(f, "{value:.1} {unit}") } else { write!(f, "{value:.0} {unit}") }
    }
}

/// The number of bytes that a text names: a number with at most three decimals, then nothing or a unit. `K`, `M`, `G`, `T`
/// are powers of 1024, also written `KiB`...; `KB`, `MB`, `GB`, `TB` are powers of 1000, as in the tools of coreutils. Capital
/// or small; a space may stand before the unit.
///
/// # Errors
/// Half a sentence that says what is wrong, for `--max-rate` and its like.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no number of bytes: write 50M, 1.5G or 100MB");
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > 3 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let thousandths: u64 = format!("{decimals:0<3}").parse().map_err(|_| wrong())?;
    let rest = u128::from(thousandths) * u128::from(factor) / 1000;
    let bytes = u128::from(whole) * u128::from(factor) + rest;
    u64::try_from(bytes).map_err(|_| format!("{text} is more bytes than there can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        let shown = |bytes: u64| Bytes(bytes).to_string();
        assert_eq!([0, 1023, 1024, 1536].map(shown), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB"]);
        assert_eq!(shown(412 << 20), "412 MiB");
        assert_eq!(shown(1_288_490_189), "1.2 GiB");
        assert_eq!(shown((1 << 20) - 1), "1.0 MiB");
        assert_eq!(shown((10 << 30) - 1), "10 GiB");
        assert_eq!(shown(u64::MAX), "16 EiB");
    }

    #[test]
    fn sizes_are_read_as_coreutils_reads_them() {
        for (text, bytes) in [
            ("50M", 50 << 20),
            ("50 MiB", 50 << 20),
            ("50m", 50 << 20),
            ("50MB", 50_000_000),
            ("1.5G", 3 << 29),
            ("1.001kb", 1001),
            ("2T", 2 << 40),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "-1", "1.", ".5", "1.2345G", "1 2", "1e9", "5X", "5MBit", "1..2", "99999999999999999999"]
        {
            assert!(parse(wrong).unwrap_err().contains("no number of bytes"), "{wrong}");
        }
        assert!(parse("99999999999T").unwrap_err().contains("more bytes than there can be"));
    }
}

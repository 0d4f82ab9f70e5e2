//! Class ids of writers that name none: made from their name, the same on every machine and for ever.

use vss_model::WriterClassId;

/// FNV-1a's 128-bit start value and prime (RFC 9923).
const FNV_START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The class id of the writer with this name.
///
/// A GUID of version 8 (RFC 9562, 5.8: the maker's own) that holds the 128-bit FNV-1a hash of `vss-writer-script:` and
/// the name, less the six bits of version and variant. Not made to withstand an attacker: who writes names here is root.
#[must_use]
pub fn class_id(name: &str) -> WriterClassId {
    let hash = b"vss-writer-script:"
        .iter()
        .chain(name.as_bytes())
        .fold(FNV_START, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME));
    let version = 0xf000_u128 << 64;
    let variant = 0xc000_u128 << 48;
    WriterClassId::from_u128((hash & !version & !variant) | (0x8000_u128 << 64) | (0x8000_u128 << 48))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_the_same_for_ever() {
        assert_eq!(class_id("shop"), class_id("shop"));
        assert_ne!(class_id("shop"), class_id("shop2"));
        let text = class_id("shop").to_string();
        assert_eq!((&text[14..15], "89ab".contains(&text[19..20])), ("8", true), "{text} is no version 8 GUID");
        assert_eq!(text, "f7d057e3-6a4e-8802-9008-77436ff29573");
    }
}

//! The ids of the house: one type for each kind of thing, so that a set can never be passed where a shadow copy is meant.
//!
//! Text form: 36 lower-case characters with hyphens. Read in any case, with or without braces, as Windows writes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text was not a GUID. Carries the text, cut to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a GUID (wanted: 8-4-4-4-12 hexadecimal digits, braces allowed)")]
pub struct InvalidId(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id (version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id with this 128-bit value; for the fixed ids of in-box parts.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(Uuid::from_u128(value))
            }

            /// The 16 bytes of the id, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId(text.chars().take(64).collect()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// One session object of a requester: one backup, or one restore, or one query (spec R 1.1).
    SessionId
}
id! {
    /// One shadow copy set: the copies of several volumes with one common point in time (spec P 0.2).
    SetId
}
id! {
    /// One shadow copy: the point-in-time image of one volume (spec P 0.2).
    ShadowId
}
id! {
    /// One provider (spec P 2.1).
    ProviderId
}
id! {
    /// The kind of a writer: chosen by its author, stable for ever (spec R 0).
    WriterClassId
}
id! {
    /// One running writer: made anew each time that its process registers (spec R 0).
    WriterInstanceId
}
id! {
    /// One asynchronous operation of a session: what `Wait`, `QueryStatus` and `Cancel` name (spec R 1.2).
    OperationId
}

/// FNV-1a's 128-bit start value and prime (RFC 9923).
const FNV_START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl WriterClassId {
    /// The class id of the writer with this name in the family of writers `family`: the same on every machine and for ever.
    ///
    /// A GUID of version 8 (RFC 9562, 5.8: the maker's own) that holds the 128-bit FNV-1a hash of `FAMILY:NAME`, less the six
    /// bits of version and variant. Not made to withstand an attacker: who chooses names here is root.
    #[must_use]
    pub fn of_name(family: &str, name: &str) -> Self {
        let bytes = family.bytes().chain([b':']).chain(name.bytes());
        let hash = bytes.fold(FNV_START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME));
        let version = 0xf000_u128 << 64;
        let variant = 0xc000_u128 << 48;
        Self::from_u128((hash & !version & !variant) | (0x8000_u128 << 64) | (0x8000_u128 << 48))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_class_stays_the_same_for_ever() {
        let of_name = |name| WriterClassId::of_name("vss-writer-script", name);
        assert_ne!(of_name("shop"), of_name("shop2"));
        let text = of_name("shop").to_string();
        assert_eq!((&text[14..15], "89ab".contains(&text[19..20])), ("8", true), "{text} is no version 8 GUID");
        assert_eq!(text, "f7d057e3-6a4e-8802-9008-77436ff29573");
    }

    #[test]
    fn reads_what_windows_writes() {
        let plain: SetId = "b5946137-7b9f-4925-af80-51abd60b20d5".parse().unwrap();
        let windows: SetId = "{B5946137-7B9F-4925-AF80-51ABD60B20D5}".parse().unwrap();
        assert_eq!(plain, windows);
        assert_eq!(windows.to_string(), "b5946137-7b9f-4925-af80-51abd60b20d5");
    }

    #[test]
    fn refuses_other_text_and_names_it() {
        let error = "not-an-id".parse::<SetId>().unwrap_err();
        assert!(error.to_string().contains("not-an-id"));
    }
}

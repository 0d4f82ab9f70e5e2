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

#[cfg(test)]
mod tests {
    use super::*;

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

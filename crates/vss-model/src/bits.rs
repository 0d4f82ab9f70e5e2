//! Bit masks of VSS: a number whose bits have names, and whose unknown bits stay.

/// Defines a mask: its type, and each bit with its text for a person.
macro_rules! bits {
    ($(#[$doc:meta])* $mask:ident = $default:literal; $($(#[$bit_doc:meta])* $bit:ident = $value:literal, $text:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $mask(pub u32);

        impl Default for $mask {
            fn default() -> Self {
                Self($default)
            }
        }

        impl $mask {
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)*

            /// Each bit that has a name, with it.
            pub const NAMES: &'static [(u32, &'static str)] = &[$(($value, $text),)*];

            /// True when every bit of `other` is set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// True when a bit of `other` is set.
            #[must_use]
            pub const fn has_any(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of both.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The names of the bits that are set; what has no name in hexadecimal, last.
            #[must_use]
            pub fn names(self) -> Vec<String> {
                let mut left = self.0;
                let mut names = Vec::new();
                for (bit, text) in Self::NAMES.iter().filter(|(bit, _)| self.0 & bit == *bit) {
                    left &= !bit;
                    names.push((*text).to_owned());
                }
                if left != 0 {
                    names.push(format!("{left:#x}"));
                }
                names
            }
        }
    };
}

pub(crate) use bits;

//! Patterns of file names, as writers give them: `*` stands for any characters, `?` for one.

use serde::{Deserialize, Serialize};

/// A pattern without a directory part. Letters count as they are written; a leading dot is nothing special.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern of this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// True when it names one file: that file has to be there.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// True when every name matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// True when `name` matches, by the rule of [`vss_model::pattern`].
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        vss_model::pattern::matches(&self.0, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, matches) in [
            ("*", "", true),
            ("*", ".hidden", true),
            ("*.db", "a.db", true),
            ("*.db", "a.db.old", false),
            ("a*b*c", "abbbc", true),
            ("a*b*c", "abbb", false),
            ("?.db", "a.db", true),
            ("??", "a", false),
            ("data", "Data", false),
            ("data", "data", true),
            ("*a*a*a*a*a*b", &"a".repeat(250), false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name.as_bytes()), matches, "{pattern} {name}");
        }
        assert!(Pattern::new("?x").matches(b"\xffx") && Pattern::new("\u{fc}*").matches("\u{fc}x".as_bytes()));
        assert!(Pattern::new("a").is_literal() && !Pattern::new("a?").is_literal());
        assert!(Pattern::new("**").is_everything() && !Pattern::new("*a").is_everything());
    }
}

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

    /// True when `name` matches. `?` takes one character, or one byte that belongs to none.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut in_name) = (0, 0);
        // Behind the last star, and where in the name it has given up so far.
        let mut star: Option<(usize, usize)> = None;
        while in_name < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    star = Some((at, in_name));
                }
                Some(b'?') => {
                    at += 1;
                    in_name += character(&name[in_name..]);
                }
                Some(byte) if *byte == name[in_name] => {
                    at += 1;
                    in_name += 1;
                }
                _ => {
                    let Some((behind, taken)) = star else { return false };
                    star = Some((behind, taken + 1));
                    at = behind;
                    in_name = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// How many bytes the first character has.
fn character(name: &[u8]) -> usize {
    let chunk = name.utf8_chunks().next();
    chunk.and_then(|chunk| chunk.valid().chars().next()).map_or(1, char::len_utf8)
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
            ("?.db", "\u{fc}.db", true),
            ("??", "a", false),
            ("data", "Data", false),
            ("data", "data", true),
            ("*a*a*a*a*a*b", &"a".repeat(250), false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name.as_bytes()), matches, "{pattern} {name}");
        }
        assert!(Pattern::new("?x").matches(b"\xffx"));
        assert!(Pattern::new("a").is_literal() && !Pattern::new("a?").is_literal());
        assert!(Pattern::new("**").is_everything() && !Pattern::new("*a").is_everything());
    }
}

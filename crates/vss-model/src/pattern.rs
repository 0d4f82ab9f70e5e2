//! File name patterns: `?` stands for one byte, `*` for any number of them, everything else for itself. Case counts.

/// True when the whole name matches. Takes at most as many steps as the lengths multiplied.
#[must_use]
pub fn matches(pattern: &str, name: &[u8]) -> bool {
    let pattern = pattern.as_bytes();
    let (mut at, mut in_name) = (0, 0);
    // Where the last `*` stands, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                in_name = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_patterns_say() {
        let table = [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.log", "x.log", true),
            ("*.log", "x.log.1", false),
            ("*a*b", "xaxxaxb", true),
            ("*a*b", "xaxxax", false),
            ("Perfc???.dat", "Perfc009.dat", true),
            ("A", "a", false),
        ];
        for (pattern, name, wanted) in table {
            assert_eq!(matches(pattern, name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_end_soon() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, "a".repeat(4000).as_bytes()));
    }
}

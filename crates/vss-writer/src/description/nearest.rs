//! What somebody perhaps meant who wrote a word that nobody knows.

/// Says that this `word` (a key, a name) is unknown, and which known one is the nearest; when none is near, which there are.
pub(super) fn unknown<'a>(kind: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let shown: String = word.chars().take(64).collect();
    let nearest = known.iter().map(|other| (distance(word, other), *other)).min();
    match nearest {
        // A third of it may be wrong.
        Some((steps, nearest)) if steps <= nearest.chars().count().div_ceil(3) => {
            format!("unknown {kind} `{shown}`; `{nearest}` is the nearest")
        }
        Some(_) => format!("unknown {kind} `{shown}`; known are `{}`", known.join("`, `")),
        None => format!("unknown {kind} `{shown}`; there is none"),
    }
}

/// How many letters must be put in, taken out or changed to make one word of the other; of long words the beginning counts.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, letter) in other.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (place, own) in one.iter().enumerate() {
            let changed = diagonal + usize::from(*own != letter);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[one.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_are_counted() {
        for (one, other, wanted) in [("", "", 0), ("level", "levle", 2), ("abc", "", 3), ("kitten", "sitting", 3)] {
            assert_eq!((distance(one, other), distance(other, one)), (wanted, wanted), "{one} {other}");
        }
    }

    #[test]
    fn what_is_far_from_all_is_answered_with_all() {
        let known = ["name", "level"];
        assert_eq!(unknown("key", "nam", known.into_iter()), "unknown key `nam`; `name` is the nearest");
        assert_eq!(unknown("key", "zzzzz", known.into_iter()), "unknown key `zzzzz`; known are `name`, `level`");
        assert!(unknown("key", &"x".repeat(9000), std::iter::empty()).len() < 100);
    }
}

//! Writers that a requester names: which classes the names stand for, and what is said of a name that nobody answers to.

use crate::{VssCode, VssError, WriterClassId};

/// The classes of the named writers, ascending and each once, of those that are registered; and what is to be said of the first
/// name that nobody has. A name stands for the classes of all who have it, as EnableWriterClasses takes them.
#[must_use]
pub fn classes_of<'a>(
    names: &[String],
    registered: impl Iterator<Item = (&'a str, WriterClassId)> + Clone,
) -> (Vec<WriterClassId>, Option<VssError>) {
    let is_named = |name: &str| names.iter().any(|named| named == name);
    let mut classes: Vec<WriterClassId> =
        registered.clone().filter(|(name, _)| is_named(name)).map(|(_, class_id)| class_id).collect();
    classes.sort_unstable();
    classes.dedup();
    let unknown = names.iter().find(|named| registered.clone().all(|(name, _)| name != **named));
    let unknown = unknown.map(|name| {
        VssError::new(VssCode::ObjectNotFound, format!("No writer named \"{name}\" is registered"))
            .with_hint("`vss list writers` shows those that are")
    });
    (classes, unknown)
}

/// What is to be said of the first of these names that no writer has which `answered` to Identify: one that does not is in no
/// metadata (spec R 2.2), and one that was asked for by name must be.
#[must_use]
pub fn silent<'a>(
    mut names: impl Iterator<Item = &'a String>,
    answered: impl Iterator<Item = &'a str> + Clone,
) -> Option<VssError> {
    let silent = names.find(|named| answered.clone().all(|name| name != **named))?;
    let message = format!("Writer \"{silent}\" did not say what it owns (Identify)");
    Some(VssError::new(VssCode::ObjectNotFound, message).with_hint("See the writer's log, and restart it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_become_classes_each_once() {
        let class = WriterClassId::from_u128;
        let registered =
            [("postgresql", class(1)), ("postgresql", class(1)), ("redis", class(2)), ("script", class(3))];
        let of = |asked: &[&str]| classes_of(&names(asked), registered.into_iter());
        assert_eq!(of(&["redis", "postgresql"]), (vec![class(1), class(2)], None));
        assert_eq!(of(&[]), (Vec::new(), None));
        let (classes, unknown) = of(&["oracle", "redis"]);
        let unknown = unknown.unwrap();
        assert_eq!((classes, unknown.code), (vec![class(2)], VssCode::ObjectNotFound));
        assert!(unknown.message.contains("\"oracle\""), "{unknown}");
    }

    #[test]
    fn who_was_named_and_is_silent_is_named() {
        let of = |asked: &[&str], answered: &[&str]| {
            silent(names(asked).iter(), answered.iter().copied()).map(|error| error.message)
        };
        assert_eq!(of(&["redis"], &["redis", "script"]), None);
        assert!(of(&["script", "redis"], &["script"]).unwrap().contains("\"redis\""));
    }
}

//! Changing a document without losing what is not known: what is known is written twice, as it was and as it is to be, and
//! only the difference of the two goes into the document.

use crate::fields::known_name;
use crate::tree::{Document, Element, Node};
use std::collections::{HashMap, VecDeque};

/// What tells elements of one name apart.
const KEYS: [&str; 9] = [
    "writerId",
    "instanceId",
    "logicalPath",
    "componentName",
    "path",
    "filespec",
    "filename",
    "sourcePath",
    "sourceFilename",
];

/// Makes the document say `new` instead of `base`, which is what it says now. Both are elements of our own.
pub(crate) fn apply(document: &mut Document, base: &Element, new: Element) {
    let source = std::mem::take(&mut document.source);
    merge(&source, &mut document.root, base, new);
    document.source = source;
}

fn merge(source: &str, old: &mut Element, base: &Element, new: Element) {
    merge_attributes(source, old, base, &new);
    merge_children(source, old, base, new.children);
}

fn merge_attributes(source: &str, old: &mut Element, base: &Element, new: &Element) {
    let raw_in = |element: &Element, name: &str| {
        element.attributes.iter().find(|one| one.name.get("") == name).map(|one| one.value.get("").to_owned())
    };
    for attribute in &new.attributes {
        let (name, raw) = (attribute.name.get(""), attribute.value.get(""));
        if raw_in(base, name).as_deref() != Some(raw) {
            old.set_raw(source, name, raw);
        }
    }
    for attribute in &base.attributes {
        let name = attribute.name.get("");
        if raw_in(new, name).is_none() {
            old.unset(source, name);
        }
    }
}

/// The name of an element and what tells it from its namesakes. An element of the root that is there once has its name alone.
fn key(element: &Element) -> String {
    let name = element.name.get("");
    let mut key = name.to_owned();
    if name != "IDENTIFICATION" {
        for attribute in element.attributes.iter().filter(|one| KEYS.contains(&one.name.get(""))) {
            key.push('\0');
            key.push_str(attribute.name.get(""));
            key.push('\0');
            key.push_str(attribute.value.get(""));
        }
    }
    key
}

fn is_empty(element: &Element) -> bool {
    element.attributes.is_empty() && element.children.is_empty()
}

fn merge_children(source: &str, old: &mut Element, base: &Element, new: Vec<Node>) {
    // Where each known element of the document stands among those of its name.
    let mut of_name: HashMap<&str, VecDeque<&Element>> = HashMap::new();
    for element in base.elements() {
        of_name.entry(element.name.get("")).or_default().push_back(element);
    }
    let mut wanted: HashMap<String, VecDeque<usize>> = HashMap::new();
    let mut new: Vec<Option<Element>> = new
        .into_iter()
        .filter_map(|node| if let Node::Element(element) = node { Some(Some(element)) } else { None })
        .collect();
    for (place, element) in new.iter().enumerate() {
        wanted.entry(element.as_ref().map(key).unwrap_or_default()).or_default().push_back(place);
    }
    let mut changed = false;
    let mut children = Vec::with_capacity(old.children.len());
    // Behind which child of the document each new element belongs: the one of its forerunner.
    let mut place_of = vec![None; new.len()];
    for mut node in std::mem::take(&mut old.children) {
        if let Node::Element(element) = &mut node
            && let Some(base) = of_name.get_mut(known_name(element, source)).and_then(VecDeque::pop_front)
        {
            let place = wanted.get_mut(&key(base)).and_then(VecDeque::pop_front);
            let Some((place, element_now)) = place.and_then(|place| Some((place, new[place].take()?))) else {
                changed = true;
                continue;
            };
            merge(source, element, base, element_now);
            place_of[place] = Some(children.len());
        }
        children.push(node);
    }
    // An empty list that the document leaves out, and that stays empty, goes on being left out.
    for base in of_name.into_values().flatten().filter(|element| is_empty(element)) {
        if let Some(place) = wanted.get(&key(base)).and_then(|places| places.front())
            && new[*place].as_ref().is_some_and(is_empty)
        {
            new[*place] = None;
        }
    }
    let mut added: Vec<(usize, Element)> = Vec::new();
    let mut behind = None;
    for (place, element) in new.into_iter().enumerate() {
        match element {
            // As the first of the new list it goes before the first that stayed.
            Some(element) => {
                let next = place_of[place..].iter().flatten().min().copied();
                added.push((behind.map_or(next.unwrap_or(children.len()), |at: usize| at + 1), element));
            }
            None => behind = place_of[place].or(behind),
        }
    }
    changed |= !added.is_empty();
    if added.is_empty() {
        old.children = children;
    } else {
        added.sort_by_key(|(at, _)| *at);
        let mut added = added.into_iter().peekable();
        for (at, node) in children.into_iter().enumerate() {
            while let Some((_, element)) = added.next_if(|(before, _)| *before <= at) {
                old.children.push(Node::Element(element));
            }
            old.children.push(node);
        }
        old.children.extend(added.map(|(_, element)| Node::Element(element)));
    }
    if changed && old.end.is_none() {
        // It was written as <a/>, or is ours.
        old.start = None;
    }
}

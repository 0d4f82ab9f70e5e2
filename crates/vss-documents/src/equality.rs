//! When two documents are equal: when they say the same.
//!
//! Compared are elements by namespace and name, in order; their attributes by namespace and name, in any order, with the
//! text that their values stand for; and the text in them, with references and CDATA resolved and line ends as `\n`. Left
//! out are the encoding, the declaration, comments and processing instructions, prefixes and declarations of namespaces (what
//! they stand for is compared), quotation marks, and white space between elements; white space beside other text counts.

use crate::characters::{is_blank, unescape};
use crate::error::shown;
use crate::tree::{Document, Element, Node};
use std::collections::BTreeMap;

/// The first difference between two documents, in words; none when they are equal.
#[must_use]
pub fn difference(one: &Document, other: &Document) -> Option<String> {
    let mut scopes = (Scope::default(), Scope::default());
    compare((one, &one.root), (other, &other.root), &mut scopes)
}

/// The namespaces in force, by prefix; the innermost declaration last.
#[derive(Default)]
struct Scope<'a>(Vec<(&'a str, String)>);

impl<'a> Scope<'a> {
    /// Enters an element; gives back where to return to.
    fn enter(&mut self, document: &'a Document, element: &'a Element) -> usize {
        let before = self.0.len();
        for attribute in &element.attributes {
            let name = attribute.name.get(&document.source);
            let prefix = name.strip_prefix("xmlns:").or((name == "xmlns").then_some(""));
            if let Some(prefix) = prefix {
                self.0.push((prefix, unescape(attribute.value.get(&document.source)).into_owned()));
            }
        }
        before
    }

    /// The namespace of a prefix; empty without one.
    fn of(&self, prefix: &str) -> &str {
        let known = self.0.iter().rev().find(|one| one.0 == prefix);
        known.map_or(if prefix == "xml" { "xml" } else { "" }, |one| &one.1)
    }

    /// The namespace and the local name of an element.
    fn expand<'n>(&self, name: &'n str) -> (String, &'n str) {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        (self.of(prefix).to_owned(), local)
    }
}

fn compare<'a>(
    (one, left): (&'a Document, &'a Element),
    (other, right): (&'a Document, &'a Element),
    scopes: &mut (Scope<'a>, Scope<'a>),
) -> Option<String> {
    let marks = (scopes.0.enter(one, left), scopes.1.enter(other, right));
    let names = (left.name.get(&one.source), right.name.get(&other.source));
    let place = || format!("{} against {}: ", one.position(left.offset()), other.position(right.offset()));
    let found = if scopes.0.expand(names.0) != scopes.1.expand(names.1) {
        Some(format!("{}<{}> and <{}>", place(), shown(names.0), shown(names.1)))
    } else if let Some(what) =
        compare_attributes(&attributes(one, left, &scopes.0), &attributes(other, right, &scopes.1))
    {
        Some(format!("{}<{}> {what}", place(), shown(names.0)))
    } else {
        let (mine, others) = (content(one, left), content(other, right));
        if mine.len() == others.len() {
            mine.into_iter().zip(others).find_map(|pair| match pair {
                (Piece::Element(left), Piece::Element(right)) => compare((one, left), (other, right), scopes),
                (Piece::Text(left), Piece::Text(right)) if left == right => None,
                _ => Some(format!("{}what stands in <{}> differs", place(), shown(names.0))),
            })
        } else {
            Some(format!("{}<{}> has {} parts and {}", place(), shown(names.0), mine.len(), others.len()))
        }
    };
    scopes.0.0.truncate(marks.0);
    scopes.1.0.truncate(marks.1);
    found
}

type Attributes = BTreeMap<(String, String), String>;

fn attributes(document: &Document, element: &Element, scope: &Scope<'_>) -> Attributes {
    let mut found = BTreeMap::new();
    for attribute in &element.attributes {
        let name = attribute.name.get(&document.source);
        if name == "xmlns" || name.starts_with("xmlns:") {
            continue;
        }
        // An attribute without a prefix is in no namespace.
        let (namespace, local) = match name.split_once(':') {
            Some((prefix, local)) => (scope.of(prefix).to_owned(), local),
            None => (String::new(), name),
        };
        found.insert((namespace, local.to_owned()), unescape(attribute.value.get(&document.source)).into_owned());
    }
    found
}

fn compare_attributes(one: &Attributes, other: &Attributes) -> Option<String> {
    let say = |name: &(String, String), left: Option<&String>, right: Option<&String>| {
        let value =
            |value: Option<&String>| value.map_or_else(|| "nothing".to_owned(), |it| format!("\"{}\"", shown(it)));
        format!("{} is {} and {}", shown(&name.1), value(left), value(right))
    };
    let changed = one.iter().find(|(name, value)| other.get(*name) != Some(value));
    if let Some((name, value)) = changed {
        return Some(say(name, Some(value), other.get(name)));
    }
    let added = other.iter().find(|(name, _)| !one.contains_key(*name));
    added.map(|(name, value)| say(name, None, Some(value)))
}

enum Piece<'a> {
    Element(&'a Element),
    Text(String),
}

/// What counts of an element's content: its elements, and the text between them that is more than white space.
fn content<'a>(document: &Document, element: &'a Element) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    for node in &element.children {
        match node {
            Node::Text(raw) => text.push_str(&unescape(raw.get(&document.source))),
            Node::Data(raw) => {
                let data = raw.get(&document.source);
                let data = data.strip_prefix("<![CDATA[").and_then(|data| data.strip_suffix("]]>")).unwrap_or(data);
                text.push_str(&data.replace("\r\n", "\n").replace('\r', "\n"));
            }
            Node::Aside(_) => {}
            Node::Element(inner) => {
                push_text(&mut pieces, &mut text);
                pieces.push(Piece::Element(inner));
            }
        }
    }
    push_text(&mut pieces, &mut text);
    pieces
}

fn push_text(pieces: &mut Vec<Piece<'_>>, text: &mut String) {
    let text = std::mem::take(text);
    if !is_blank(&text) {
        pieces.push(Piece::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(one: &str, other: &str) -> Option<String> {
        difference(&Document::parse(one.as_bytes()).unwrap(), &Document::parse(other.as_bytes()).unwrap())
    }

    #[test]
    fn what_does_not_count() {
        let same = [
            ("<a x='1' y=\"2\"/>", "<?xml version=\"1.0\"?>\n<a y='2' x='1'></a>"),
            ("<a><b/><!-- c --></a>", "<a>\n  <b></b>\n</a>"),
            ("<a xmlns='u'><b/></a>", "<p:a xmlns:p='u'><p:b/></p:a>"),
            ("<a xmlns:p='u' p:x='1'/>", "<a xmlns:q='u' q:x='&#49;'/>"),
            ("<a>x &amp; y</a>", "<a><![CDATA[x & y]]></a>"),
            ("<a x='1&#10;2'/>", "<a x='1\r\n2'/>"),
        ];
        for (one, other) in same {
            assert_eq!(differ(one, other), None, "{one} and {other}");
        }
    }

    #[test]
    fn what_counts() {
        let different = [
            ("<a/>", "<b/>"),
            ("<a xmlns='u'/>", "<a xmlns='v'/>"),
            ("<a xmlns='u'/>", "<a/>"),
            ("<a x='1'/>", "<a x='2'/>"),
            ("<a x='1'/>", "<a/>"),
            ("<a/>", "<a x=''/>"),
            ("<a xmlns:p='u' p:x='1'/>", "<a x='1'/>"),
            ("<a><b/><c/></a>", "<a><c/><b/></a>"),
            ("<a><b/></a>", "<a><b/><b/></a>"),
            ("<a>x</a>", "<a> x</a>"),
            ("<a>x<b/></a>", "<a><b/>x</a>"),
        ];
        for (one, other) in different {
            assert!(differ(one, other).is_some(), "{one} and {other}");
            assert!(differ(other, one).is_some(), "{other} and {one}");
        }
        let told = differ("<a><b x='1'/></a>", "<a>\n<b x='2'/></a>").unwrap();
        assert_eq!(told, "line 1, column 4 against line 2, column 1: <b> x is \"1\" and \"2\"");
    }
}

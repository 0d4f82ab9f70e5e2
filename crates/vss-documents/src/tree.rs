//! A document as it was read: every element, attribute and piece of text, in order, as stretches of the source. What is not
//! changed is written again byte by byte, whatever it was.

use crate::characters::{escape, unescape};
use crate::encoding::{self, Encoding};
use crate::error::Position;
use std::borrow::Cow;

/// Written text: a stretch of the source, or text of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    /// From, and up to but not including.
    Source(u32, u32),
    /// Ours.
    Own(Box<str>),
}

impl Raw {
    pub(crate) fn own(text: impl Into<String>) -> Self {
        Self::Own(text.into().into_boxed_str())
    }

    /// The text. A stretch is always one of the source that it was read from.
    pub(crate) fn get<'a>(&'a self, source: &'a str) -> &'a str {
        match self {
            Self::Source(from, to) => source.get(*from as usize..*to as usize).unwrap_or_default(),
            Self::Own(text) => text,
        }
    }
}

/// An attribute, its value as it is written between the quotation marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: Raw,
    pub(crate) value: Raw,
    /// Which mark: `"` or `'`.
    pub(crate) quote: char,
}

/// What stands in an element, or beside the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Element(Element),
    /// Characters and references.
    Text(Raw),
    /// `<![CDATA[...]]>`, whole.
    Data(Raw),
    /// A comment, a processing instruction or the declaration, whole.
    Aside(Raw),
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: Raw,
    /// The start tag as it was read; none once its attributes were changed.
    pub(crate) start: Option<Raw>,
    /// The end tag as it was read; none for `<a/>` and for an element of ours.
    pub(crate) end: Option<Raw>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) children: Vec<Node>,
}

impl Element {
    /// A new one without anything in it.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: Raw::own(name), start: None, end: None, attributes: Vec::new(), children: Vec::new() }
    }

    /// Where it begins in the source; 0 for one of ours.
    pub(crate) fn offset(&self) -> usize {
        match self.start {
            Some(Raw::Source(from, _)) => from as usize,
            _ => 0,
        }
    }

    /// Sets an attribute, at its place when it is there already.
    pub(crate) fn set(&mut self, source: &str, name: &str, value: &str) {
        self.set_raw(source, name, &escape(value));
    }

    pub(crate) fn set_raw(&mut self, source: &str, name: &str, raw: &str) {
        self.start = None;
        match self.attributes.iter_mut().find(|one| one.name.get(source) == name) {
            Some(attribute) => {
                // Ours is escaped for this mark alone.
                attribute.quote = '"';
                attribute.value = Raw::own(raw);
            }
            None => self.attributes.push(Attribute { name: Raw::own(name), value: Raw::own(raw), quote: '"' }),
        }
    }

    /// Takes an attribute away.
    pub(crate) fn unset(&mut self, source: &str, name: &str) {
        self.start = None;
        self.attributes.retain(|one| one.name.get(source) != name);
    }

    /// The elements in it.
    pub(crate) fn elements(&self) -> impl DoubleEndedIterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            _ => None,
        })
    }

    fn write(&self, source: &str, out: &mut String) {
        let name = self.name.get(source);
        match &self.start {
            Some(start) => out.push_str(start.get(source)),
            None => {
                out.push('<');
                out.push_str(name);
                for attribute in &self.attributes {
                    out.push(' ');
                    out.push_str(attribute.name.get(source));
                    out.push('=');
                    out.push(attribute.quote);
                    out.push_str(attribute.value.get(source));
                    out.push(attribute.quote);
                }
                out.push_str(if self.is_closed() { "/>" } else { ">" });
            }
        }
        for child in &self.children {
            child.write(source, out);
        }
        match &self.end {
            Some(end) => out.push_str(end.get(source)),
            None if self.is_closed() => {}
            None => {
                out.push_str("</");
                out.push_str(name);
                out.push('>');
            }
        }
    }

    /// True when it is written as `<a/>`.
    fn is_closed(&self) -> bool {
        self.children.is_empty() && self.end.is_none()
    }
}

impl Node {
    fn write(&self, source: &str, out: &mut String) {
        match self {
            Self::Element(element) => element.write(source, out),
            Self::Text(raw) | Self::Data(raw) | Self::Aside(raw) => out.push_str(raw.get(source)),
        }
    }
}

/// A document: what was read, and what was changed in it since.
#[derive(Debug, Clone)]
pub struct Document {
    pub(crate) source: String,
    pub(crate) encoding: Encoding,
    pub(crate) has_mark: bool,
    /// Before the root.
    pub(crate) before: Vec<Node>,
    pub(crate) root: Element,
    /// After it.
    pub(crate) after: Vec<Node>,
}

impl Document {
    /// A new one, in UTF-8, with this root.
    pub(crate) fn of(root: Element) -> Self {
        Self {
            source: String::new(),
            encoding: Encoding::Utf8,
            has_mark: false,
            before: Vec::new(),
            root,
            after: Vec::new(),
        }
    }

    /// How its characters are written.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The name of the root, with its prefix if it has one.
    #[must_use]
    pub fn root_name(&self) -> &str {
        self.root.name.get(&self.source)
    }

    /// The document as text. What was not changed is as it was read.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(self.source.len() + 64);
        for node in &self.before {
            node.write(&self.source, &mut out);
        }
        self.root.write(&self.source, &mut out);
        for node in &self.after {
            node.write(&self.source, &mut out);
        }
        out
    }

    /// The document as bytes, in the encoding that it was read in, with a byte order mark if it had one.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(&self.to_text(), self.encoding, self.has_mark)
    }

    /// What an attribute of the element says.
    pub(crate) fn value<'a>(&'a self, element: &'a Element, name: &str) -> Option<Cow<'a, str>> {
        let attribute = element.attributes.iter().find(|one| one.name.get(&self.source) == name)?;
        Some(unescape(attribute.value.get(&self.source)))
    }

    /// Where an attribute's value stands; the element where it has none.
    pub(crate) fn place_of(&self, element: &Element, name: &str) -> Position {
        let attribute = element.attributes.iter().find(|one| one.name.get(&self.source) == name);
        let offset = match attribute.map(|attribute| &attribute.value) {
            Some(Raw::Source(from, _)) => *from as usize,
            _ => element.offset(),
        };
        self.position(offset)
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        Position::of(&self.source, offset)
    }
}

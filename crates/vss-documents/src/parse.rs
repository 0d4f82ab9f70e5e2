//! From bytes to a tree. The tokens are quick-xml's; what it lets pass and XML does not is refused here, and so is what XML
//! lets pass and no document of VSS needs: document type declarations, with all that they could expand.

use crate::characters::{bad_reference, forbidden, is_blank, is_name, is_space};
use crate::encoding::{self, Encoding};
use crate::error::{DocumentError, Fault, Position, shown};
use crate::limits;
use crate::tree::{Attribute, Document, Element, Node, Raw};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

impl Document {
    /// Reads a document of any schema.
    ///
    /// # Errors
    /// What is wrong with it, and where: [`Fault::Corrupt`] for what is no well-formed XML, [`Fault::Invalid`] for a
    /// document type declaration, an encoding that is not read, and anything beyond [`limits`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let (source, encoding, has_mark) = encoding::decode(bytes)?;
        let mut parts = {
            let mut parser = Parser { source: &source, parts: Parts::default() };
            parser.read(encoding)?;
            parser.parts
        };
        match parts.root.take() {
            Some(root) => Ok(Self { source, encoding, has_mark, before: parts.before, root, after: parts.after }),
            None => {
                let end = Position::of(&source, source.len());
                Err(DocumentError::new(Fault::Corrupt, end, "the document ends without an element"))
            }
        }
    }
}

/// What was read so far. Offsets fit: a document has at most [`limits::DOCUMENT_BYTES`], in UTF-8 twice as many.
#[derive(Default)]
struct Parts {
    before: Vec<Node>,
    root: Option<Element>,
    after: Vec<Node>,
    /// The elements that are open, outermost first.
    open: Vec<Element>,
    /// Prefixes that are declared, and at which depth.
    prefixes: Vec<(Box<str>, usize)>,
    nodes: usize,
    attributes: usize,
}

struct Parser<'a> {
    source: &'a str,
    parts: Parts,
}

impl Parser<'_> {
    fn read(&mut self, encoding: Encoding) -> Result<(), DocumentError> {
        if let Some(place) = forbidden(self.source) {
            let one = self.source[place..].chars().next().map_or(0, u32::from);
            return Err(self.corrupt(place, format!("the character U+{one:04X} cannot be in a document")));
        }
        let mut reader = Reader::from_str(self.source);
        reader.config_mut().check_comments = true;
        // Where a piece of text began that goes on.
        let mut text: Option<usize> = None;
        loop {
            let from = offset(reader.buffer_position());
            let event = match reader.read_event() {
                Ok(event) => event,
                Err(error) => return Err(self.failed(&error, offset(reader.error_position()), from)),
            };
            let to = offset(reader.buffer_position());
            if matches!(event, Event::Text(_) | Event::GeneralRef(_)) {
                text.get_or_insert(from);
                continue;
            }
            if let Some(began) = text.take() {
                self.text(began, from)?;
            }
            match event {
                Event::Start(tag) => {
                    let element = self.element(&tag, from, to)?;
                    self.parts.open.push(element);
                }
                Event::Empty(tag) => {
                    let element = self.element(&tag, from, to)?;
                    self.end_scope(self.parts.open.len());
                    self.add(Node::Element(element), from)?;
                }
                Event::End(_) => {
                    let Some(mut element) = self.parts.open.pop() else {
                        return Err(self.corrupt(from, "an end tag without its start tag"));
                    };
                    element.end = Some(raw(from, to));
                    self.end_scope(self.parts.open.len());
                    self.add(Node::Element(element), from)?;
                }
                Event::CData(_) if self.parts.open.is_empty() => {
                    return Err(self.corrupt(from, "text outside of the root element"));
                }
                Event::CData(_) => self.add(Node::Data(raw(from, to)), from)?,
                Event::Comment(_) => self.add(Node::Aside(raw(from, to)), from)?,
                Event::PI(instruction) => {
                    if !is_name(instruction.target()) || instruction.target().eq_ignore_ascii_case("xml") {
                        return Err(self.corrupt(from, "a processing instruction without a name of its own"));
                    }
                    self.add(Node::Aside(raw(from, to)), from)?;
                }
                Event::Decl(declaration) => {
                    if from != 0 {
                        return Err(self.corrupt(from, "an XML declaration that is not at the beginning"));
                    }
                    match declaration.version().as_deref() {
                        Ok("1.0") => {}
                        Ok(other) => {
                            return Err(self.invalid(from, format!("XML version {} is not read", shown(other))));
                        }
                        Err(_) => return Err(self.corrupt(from, "an XML declaration without a version")),
                    }
                    match declaration.encoding() {
                        None => {}
                        Some(Ok(name)) => self.check_encoding(&name, encoding)?,
                        Some(Err(_)) => return Err(self.corrupt(from, "an encoding without its value")),
                    }
                    self.add(Node::Aside(raw(from, to)), from)?;
                }
                Event::DocType(_) => {
                    let message = "a document type declaration: no document of VSS has one, and none is read";
                    return Err(self.invalid(from, message));
                }
                Event::Eof => break,
                Event::Text(_) | Event::GeneralRef(_) => {}
            }
        }
        match self.parts.open.last() {
            None => Ok(()),
            Some(element) => {
                let name = shown(element.name.get(self.source));
                let begun = Position::of(self.source, element.offset());
                let message = format!("the document ends before </{name}>, the end of what begins at {begun}");
                Err(self.corrupt(self.source.len(), message))
            }
        }
    }

    /// An element from its start tag.
    fn element(&mut self, tag: &BytesStart<'_>, from: usize, to: usize) -> Result<Element, DocumentError> {
        let depth = self.parts.open.len();
        if depth >= limits::DEPTH {
            return Err(self.invalid(from, format!("elements are nested more than {} deep", limits::DEPTH)));
        }
        if depth == 0 && self.parts.root.is_some() {
            return Err(self.corrupt(from, "a second element beside the root"));
        }
        let name = tag.name();
        let name = self.name(name.as_ref(), from)?;
        // As many as the files of Windows have.
        let mut attributes = Vec::with_capacity(4);
        for attribute in tag.attributes() {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(error) => {
                    let place = from + 1 + attribute_error_place(&error);
                    return Err(self.corrupt(place.min(to), format!("attribute: {error}")));
                }
            };
            let key = attribute.key;
            let key_raw = self.name(key.as_ref(), from)?;
            let Raw::Source(key_from, _) = key_raw else { return Err(self.corrupt(from, "an attribute of nothing")) };
            if !self.source.as_bytes().get(key_from as usize - 1).is_some_and(|byte| is_space(*byte)) {
                return Err(self.corrupt(key_from as usize, "no blank before an attribute"));
            }
            if attributes.len() >= limits::ATTRIBUTES_PER_ELEMENT {
                let message = format!("an element has more than {} attributes", limits::ATTRIBUTES_PER_ELEMENT);
                return Err(self.invalid(key_from as usize, message));
            }
            let value = self.stretch(&attribute.value, from)?;
            let Raw::Source(value_from, _) = value else { return Err(self.corrupt(from, "a value of nothing")) };
            self.check_value(&attribute.value, value_from as usize)?;
            let key = key.as_ref();
            if key == "xmlns" || key.starts_with("xmlns:") {
                let prefix = key.strip_prefix("xmlns:").unwrap_or_default();
                if !prefix.is_empty() && attribute.value.is_empty() {
                    return Err(self.corrupt(key_from as usize, "a prefix for no namespace"));
                }
                if self.parts.prefixes.len() >= limits::PREFIXES {
                    let message = format!("more than {} namespaces are declared at once", limits::PREFIXES);
                    return Err(self.invalid(key_from as usize, message));
                }
                self.parts.prefixes.push((prefix.into(), depth));
            }
            let quote = if self.source.as_bytes().get(value_from as usize - 1) == Some(&b'\'') { '\'' } else { '"' };
            attributes.push(Attribute { name: key_raw, value, quote });
        }
        self.parts.attributes += attributes.len();
        if self.parts.attributes > limits::ATTRIBUTES {
            return Err(self.invalid(from, format!("more than {} attributes", limits::ATTRIBUTES)));
        }
        self.check_prefixes(&name, &attributes, from)?;
        Ok(Element { name, start: Some(raw(from, to)), end: None, attributes, children: Vec::new() })
    }

    /// A name, as a stretch of the source.
    fn name(&self, name: &str, from: usize) -> Result<Raw, DocumentError> {
        if !is_name(name) {
            return Err(self.corrupt(from, format!("\"{}\" is no name", shown(name))));
        }
        if name.len() > limits::NAME_BYTES {
            return Err(self.invalid(from, format!("a name has more than {} bytes", limits::NAME_BYTES)));
        }
        self.stretch(name, from)
    }

    /// The stretch of the source that quick-xml has borrowed.
    fn stretch(&self, text: &str, from: usize) -> Result<Raw, DocumentError> {
        let begins = text.as_ptr().addr().checked_sub(self.source.as_ptr().addr());
        match begins.filter(|begins| self.source.get(*begins..begins + text.len()).is_some()) {
            Some(begins) => Ok(raw(begins, begins + text.len())),
            None => Err(self.corrupt(from, "an attribute that cannot be read")),
        }
    }

    fn check_value(&self, value: &str, from: usize) -> Result<(), DocumentError> {
        if let Some(place) = value.find('<') {
            return Err(self.corrupt(from + place, "the character < in an attribute"));
        }
        self.check_references(value, from)
    }

    fn check_references(&self, text: &str, from: usize) -> Result<(), DocumentError> {
        match bad_reference(text) {
            None => Ok(()),
            Some((place, name)) => {
                let message = format!("&{}; stands for nothing: no entity is declared", shown(name));
                Err(self.corrupt(from + place, message))
            }
        }
    }

    /// Every prefix in use must be declared here or further out.
    fn check_prefixes(&self, name: &Raw, attributes: &[Attribute], from: usize) -> Result<(), DocumentError> {
        let used = attributes.iter().map(|attribute| &attribute.name).chain([name]);
        for raw in used {
            let Some((prefix, _)) = raw.get(self.source).split_once(':') else { continue };
            let is_known = matches!(prefix, "xml" | "xmlns") || self.parts.prefixes.iter().any(|one| *one.0 == *prefix);
            if !is_known {
                return Err(self.corrupt(from, format!("the prefix {} is not declared", shown(prefix))));
            }
        }
        Ok(())
    }

    /// Forgets the prefixes of an element at this depth.
    fn end_scope(&mut self, depth: usize) {
        while self.parts.prefixes.last().is_some_and(|one| one.1 >= depth) {
            self.parts.prefixes.pop();
        }
    }

    fn text(&mut self, from: usize, to: usize) -> Result<(), DocumentError> {
        let text = &self.source[from..to];
        if self.parts.open.is_empty() && !is_blank(text) {
            let blanks = text.bytes().take_while(|byte| is_space(*byte)).count();
            return Err(self.corrupt(from + blanks, "text outside of the root element"));
        }
        if let Some(place) = text.find("]]>") {
            return Err(self.corrupt(from + place, "]]> outside of CDATA"));
        }
        self.check_references(text, from)?;
        self.add(Node::Text(raw(from, to)), from)
    }

    fn add(&mut self, node: Node, from: usize) -> Result<(), DocumentError> {
        self.parts.nodes += 1;
        if self.parts.nodes > limits::NODES {
            return Err(self.invalid(from, format!("more than {} elements and pieces of text", limits::NODES)));
        }
        match (self.parts.open.last_mut(), node) {
            (Some(parent), node) => parent.children.push(node),
            (None, Node::Element(root)) => self.parts.root = Some(root),
            (None, node) if self.parts.root.is_none() => self.parts.before.push(node),
            (None, node) => self.parts.after.push(node),
        }
        Ok(())
    }

    /// The declared encoding must be the one in use.
    fn check_encoding(&self, declared: &str, used: Encoding) -> Result<(), DocumentError> {
        let is_utf16 = used != Encoding::Utf8;
        let agrees = match declared.to_ascii_lowercase().as_str() {
            "utf-8" | "us-ascii" => !is_utf16,
            // Tools that turn such a file into UTF-8 leave the declaration as it was.
            "utf-16" | "utf-16le" | "utf-16be" | "unicode" => true,
            _ => false,
        };
        if agrees {
            return Ok(());
        }
        let message = format!("the encoding {} is not read: UTF-8 and UTF-16 are", shown(declared));
        Err(self.invalid(0, message))
    }

    fn corrupt(&self, offset: usize, message: impl Into<String>) -> DocumentError {
        DocumentError::new(Fault::Corrupt, Position::of(self.source, offset), message)
    }

    fn invalid(&self, offset: usize, message: impl Into<String>) -> DocumentError {
        DocumentError::new(Fault::Invalid, Position::of(self.source, offset), message)
    }

    /// What quick-xml found.
    fn failed(&self, error: &quick_xml::Error, place: usize, from: usize) -> DocumentError {
        // Its place is where it noticed; never before the token that it could not read.
        self.corrupt(place.max(from), shown_error(error))
    }
}

/// An error of quick-xml in one line, with a bounded part of the document in it.
fn shown_error(error: &quick_xml::Error) -> String {
    let text: String = error.to_string().chars().take(200).collect();
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// A stretch of the source.
fn raw(from: usize, to: usize) -> Raw {
    let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Raw::Source(narrow(from), narrow(to))
}

/// Where in the tag, counted from its name, an attribute is wrong.
const fn attribute_error_place(error: &quick_xml::events::attributes::AttrError) -> usize {
    use quick_xml::events::attributes::AttrError;
    match error {
        AttrError::ExpectedEq(place)
        | AttrError::ExpectedValue(place)
        | AttrError::UnquotedValue(place)
        | AttrError::ExpectedQuote(place, _)
        | AttrError::Duplicated(place, _) => *place,
    }
}

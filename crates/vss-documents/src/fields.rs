//! Reading the attributes of an element of a known schema: what is missing or wrong is told with its place, what is not
//! known is remarked.
//!
//! Attributes of our own, for what Windows has no word for, are in the namespace [`NAMESPACE`]. One of them that has the name
//! of another attribute holds its exact bytes, percent-encoded, where these are no text that XML can hold: any byte but NUL
//! may be in a name on Linux.

use crate::characters::{is_character, percent_decode, percent_encode};
use crate::error::{DocumentError, Fault, Remark, shown};
use crate::limits;
use crate::tree::{Document, Element, Raw};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The namespace of our own attributes; its prefix is always [`PREFIX`].
pub(crate) const NAMESPACE: &str = "urn:linuxvss:documents";
/// The prefix that we give it.
pub(crate) const PREFIX: &str = "linux";

/// Ends the name of one of our own that is percent-encoded, because XML cannot hold its text.
const BYTES: &str = "Bytes";

/// A document whose root is of a known schema, while it is read.
pub(crate) struct Reading<'a> {
    document: &'a Document,
    /// True when the document declares our namespace.
    has_own: bool,
    remarks: RefCell<Vec<Remark>>,
    unsaid: Cell<usize>,
}

impl<'a> Reading<'a> {
    /// Begins with the root, which must be this element of this namespace.
    pub(crate) fn new(document: &'a Document, root: &str, namespace: &str) -> Result<Self, DocumentError> {
        let invalid = |message: String| {
            Err(DocumentError::new(Fault::Invalid, document.position(document.root.offset()), message))
        };
        if document.root_name() != root {
            return invalid(format!("the root is <{}>, not <{root}>", shown(document.root_name())));
        }
        let found = document.value(&document.root, "xmlns").unwrap_or_default();
        if found != namespace {
            return invalid(format!("the namespace is \"{}\", not \"{namespace}\"", shown(&found)));
        }
        let declared = document.value(&document.root, &format!("xmlns:{PREFIX}"));
        if declared.as_ref().is_some_and(|declared| declared != NAMESPACE) {
            return invalid(format!("the prefix {PREFIX} stands for another namespace than {NAMESPACE}"));
        }
        let has_own = declared.is_some();
        Ok(Self { document, has_own, remarks: RefCell::default(), unsaid: Cell::new(0) })
    }

    /// The root.
    pub(crate) fn root(&self) -> Fields<'a, '_> {
        self.fields(&self.document.root)
    }

    fn fields(&self, element: &'a Element) -> Fields<'a, '_> {
        Fields { reading: self, element, used: Cell::new(0) }
    }

    /// Notes what is no error.
    pub(crate) fn remark(&self, element: &Element, message: String) {
        let mut remarks = self.remarks.borrow_mut();
        if remarks.len() < limits::REMARKS {
            // The place of each costs a walk through the source.
            remarks.push(Remark { position: self.document.position(element.offset()), message });
        } else {
            self.unsaid.set(self.unsaid.get() + 1);
        }
    }

    /// What was noted, and how much more there was.
    pub(crate) fn into_remarks(self) -> (Vec<Remark>, usize) {
        (self.remarks.into_inner(), self.unsaid.get())
    }
}

/// The name of an element within the root; empty where it declares namespaces of its own, since these may be others.
pub(crate) fn known_name<'a>(element: &'a Element, source: &'a str) -> &'a str {
    let declares = |name: &str| name == "xmlns" || name.strip_prefix("xmlns:") == Some(PREFIX);
    let is_foreign = element.attributes.iter().any(|one| declares(one.name.get(source)));
    if is_foreign { "" } else { element.name.get(source) }
}

/// The attributes of one element, and which of them were asked for.
pub(crate) struct Fields<'a, 'r> {
    reading: &'r Reading<'a>,
    pub(crate) element: &'a Element,
    /// A bit for each attribute: there are at most [`limits::ATTRIBUTES_PER_ELEMENT`].
    used: Cell<u64>,
}

impl<'a, 'r> Fields<'a, 'r> {
    /// The elements in it, with their names; one of another namespace has none.
    pub(crate) fn elements(&self) -> impl Iterator<Item = (&'a str, Fields<'a, 'r>)> {
        let reading = self.reading;
        self.element
            .elements()
            .map(move |element| (known_name(element, &reading.document.source), reading.fields(element)))
    }

    /// The name of the element.
    pub(crate) fn name(&self) -> &'a str {
        self.element.name.get(&self.reading.document.source)
    }

    /// An error in this attribute.
    pub(crate) fn invalid(&self, attribute: &str, message: impl std::fmt::Display) -> DocumentError {
        let position = self.reading.document.place_of(self.element, attribute);
        DocumentError::new(Fault::Invalid, position, format!("<{}> {attribute}: {message}", shown(self.name())))
    }

    /// An element that may be there once.
    pub(crate) fn twice(&self) -> DocumentError {
        let position = self.reading.document.position(self.element.offset());
        DocumentError::new(Fault::Invalid, position, format!("a second <{}>", shown(self.name())))
    }

    /// An element that must be there.
    pub(crate) fn missing(&self, element: &str) -> DocumentError {
        let position = self.reading.document.position(self.element.offset());
        DocumentError::new(Fault::Invalid, position, format!("<{}> has no <{element}>", shown(self.name())))
    }

    fn find(&self, name: &str) -> Option<Cow<'a, str>> {
        let source = &self.reading.document.source;
        let place = self.element.attributes.iter().position(|one| one.name.get(source) == name)?;
        self.used.set(self.used.get() | 1 << (place & 63));
        Some(crate::characters::unescape(self.element.attributes[place].value.get(source)))
    }

    /// An attribute of our own.
    pub(crate) fn own(&self, name: &str) -> Option<Cow<'a, str>> {
        if self.reading.has_own { self.find(&format!("{PREFIX}:{name}")) } else { None }
    }

    /// A text in an attribute of our own; empty when it is missing.
    pub(crate) fn own_text(&self, name: &str) -> Result<String, DocumentError> {
        let Some(exact) = self.own(&format!("{name}{BYTES}")) else {
            return Ok(self.own(name).unwrap_or_default().into_owned());
        };
        let text = percent_decode(&exact).and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| self.invalid(&format!("{PREFIX}:{name}{BYTES}"), "no characters, percent-encoded"))
    }

    /// The bytes of an attribute: what it says, or what our own attribute of its name says that it is.
    fn bytes(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, DocumentError> {
        let text = self.find(name);
        if let Some(exact) = self.own(name) {
            let bytes = percent_decode(&exact).filter(|bytes| !bytes.contains(&0));
            let bytes = bytes.ok_or_else(|| self.invalid(name, "a % without two digits behind it, or a NUL"))?;
            return Ok(Some(Cow::Owned(bytes)));
        }
        Ok(text.map(|text| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }))
    }

    /// A text that may be missing.
    pub(crate) fn optional_text(&self, name: &str) -> Result<Option<String>, DocumentError> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let text = String::from_utf8(bytes.into_owned());
        text.map(Some).map_err(|_| self.invalid(name, "no characters"))
    }

    /// A text; empty when it is missing.
    pub(crate) fn text(&self, name: &str) -> Result<String, DocumentError> {
        Ok(self.optional_text(name)?.unwrap_or_default())
    }

    /// A text that must be there, and not be empty.
    pub(crate) fn required(&self, name: &str) -> Result<String, DocumentError> {
        let text = self.optional_text(name)?;
        text.filter(|text| !text.is_empty()).ok_or_else(|| self.invalid(name, "missing or empty"))
    }

    /// A path that may be missing.
    pub(crate) fn optional_path(&self, name: &str) -> Result<Option<PathBuf>, DocumentError> {
        Ok(self.bytes(name)?.map(|bytes| PathBuf::from(OsString::from_vec(bytes.into_owned()))))
    }

    /// A path that must be there.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf, DocumentError> {
        self.optional_path(name)?.ok_or_else(|| self.invalid(name, "missing"))
    }

    /// `yes` or `no`, if it is there.
    pub(crate) fn optional_yes(&self, name: &str) -> Result<Option<bool>, DocumentError> {
        match self.find(name).as_deref() {
            None => Ok(None),
            Some("yes") => Ok(Some(true)),
            Some("no") => Ok(Some(false)),
            Some(other) => Err(self.invalid(name, format!("\"{}\" is neither yes nor no", shown(other)))),
        }
    }

    /// `yes` or `no`; no when it is missing.
    pub(crate) fn yes(&self, name: &str) -> Result<bool, DocumentError> {
        Ok(self.optional_yes(name)?.unwrap_or_default())
    }

    /// A whole number in decimal; none when it is missing.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, DocumentError> {
        let Some(text) = self.find(name) else { return Ok(None) };
        let is_plain = text.bytes().all(|digit| digit.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_plain);
        number.map(Some).ok_or_else(|| self.invalid(name, format!("\"{}\" is no number, or too large", shown(&text))))
    }

    /// A GUID, if it is there.
    pub(crate) fn optional_id<T: FromStr>(&self, name: &str) -> Result<Option<T>, DocumentError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.find(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| self.invalid(name, error))
    }

    /// A GUID that must be there.
    pub(crate) fn id<T: FromStr>(&self, name: &str) -> Result<T, DocumentError>
    where
        T::Err: std::fmt::Display,
    {
        self.optional_id(name)?.ok_or_else(|| self.invalid(name, "missing"))
    }

    /// One of several words; none when it is missing, and for a word that this release does not know, which is remarked.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(T, &str)]) -> Option<T> {
        let text = self.find(name)?;
        let known = words.iter().find(|(_, word)| *word == text).map(|(value, _)| *value);
        if known.is_none() {
            let message = format!("<{}> {name}: \"{}\" is not known here", shown(self.name()), shown(&text));
            self.reading.remark(self.element, message);
        }
        known
    }

    /// Remarks that the element is not known.
    pub(crate) fn unknown(&self) {
        self.reading.remark(self.element, format!("<{}> is not known here, and kept", shown(self.name())));
    }

    /// Ends the reading of the element: attributes that nobody asked for are remarked.
    pub(crate) fn end(&self) {
        let source = &self.reading.document.source;
        for (place, attribute) in self.element.attributes.iter().enumerate() {
            let name = attribute.name.get(source);
            let is_used = self.used.get() & 1 << (place & 63) != 0;
            if !is_used && name != "xmlns" && !name.starts_with("xmlns:") {
                let message = format!("<{}> {} is not known here, and kept", shown(self.name()), shown(name));
                self.reading.remark(self.element, message);
            }
        }
    }

    /// Ends the reading of an element that should have no elements in it.
    pub(crate) fn end_leaf(&self) {
        self.end();
        self.elements().for_each(|(_, inner)| inner.unknown());
    }
}

/// Writing attributes: the other way.
impl Element {
    /// Adds an attribute that is not there yet.
    pub(crate) fn with(mut self, name: &str, text: &str) -> Self {
        self.add(name, text.as_bytes());
        self
    }

    /// The same for a path.
    pub(crate) fn with_path(mut self, name: &str, path: &Path) -> Self {
        self.add(name, path.as_os_str().as_bytes());
        self
    }

    /// The same, unless the text is empty.
    pub(crate) fn with_some(self, name: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.with(name, text) }
    }

    /// The same for yes and no.
    pub(crate) fn with_yes(self, name: &str, yes: bool) -> Self {
        self.with(name, if yes { "yes" } else { "no" })
    }

    /// The same, unless it is no.
    pub(crate) fn with_yes_only(self, name: &str, yes: bool) -> Self {
        if yes { self.with(name, "yes") } else { self }
    }

    /// The same for a text in an attribute of our own.
    pub(crate) fn with_own_text(self, name: &str, text: &str) -> Self {
        if text.chars().all(is_character) {
            return self.with_own(name, text);
        }
        self.with_own(&format!("{name}{BYTES}"), &percent_encode(text.as_bytes()))
    }

    /// The same for an attribute of our own whose text XML can hold.
    pub(crate) fn with_own(self, name: &str, text: &str) -> Self {
        let name = format!("{PREFIX}:{name}");
        self.with(&name, text)
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let is_exact = text.as_bytes() == bytes && text.chars().all(is_character);
        let written: Cow<'_, str> = if is_exact {
            text
        } else {
            text.chars().map(|one| if is_character(one) { one } else { '\u{fffd}' }).collect()
        };
        self.set("", name, &written);
        if !is_exact && !name.contains(':') {
            self.set("", &format!("{PREFIX}:{name}"), &percent_encode(bytes));
        }
    }

    /// True when this element or one in it has an attribute of our own.
    pub(crate) fn has_own(&self) -> bool {
        let is_own = |name: &Raw| name.get("").strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(':'));
        self.attributes.iter().any(|attribute| is_own(&attribute.name)) || self.elements().any(Self::has_own)
    }
}

//! A document of a known schema: what it says, and how it was written.

use crate::error::{DocumentError, Remark};
use crate::fields::{Fields, NAMESPACE, PREFIX, Reading};
use crate::merge;
use crate::tree::{Document, Element};

/// The version that Windows writes.
const VERSION: &str = "1.2";

/// How a kind of document says what it says.
pub(crate) trait Schema: Sized {
    /// The root.
    const ROOT: &str;
    /// Its namespace, as Windows writes it.
    const NAMESPACE: &str;

    /// Reads everything in the root but its version.
    fn read(root: &Fields<'_, '_>) -> Result<Self, DocumentError>;

    /// Adds everything to the root, attributes and elements in the order of Windows.
    fn write(&self, root: Element) -> Element;
}

/// A document: what it says, and how it was written.
#[derive(Debug, Clone)]
pub struct TypedDocument<T> {
    document: Document,
    content: T,
    remarks: Vec<Remark>,
    unsaid: usize,
}

#[expect(private_bounds, reason = "the schemas are those of Windows; nobody adds one")]
impl<T: Schema> TypedDocument<T> {
    /// A new document that says this.
    ///
    /// # Errors
    /// [`crate::Fault::Invalid`] for what could not be read back: a component without a name, a pattern that is empty.
    pub fn new(content: &T) -> Result<Self, DocumentError> {
        Self::of(Document::of(write(content)))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// Those of [`Document::parse`]; [`crate::Fault::Invalid`] for another document, for what is missing and what is no value of
    /// its attribute. A word that this release does not know is no error, and neither is an unknown element or attribute:
    /// see [`Self::remarks`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::of(Document::parse(bytes)?)
    }

    /// The same for a document that was read without its schema.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(document: Document) -> Result<Self, DocumentError> {
        let reading = Reading::new(&document, T::ROOT, T::NAMESPACE)?;
        let root = reading.root();
        root.text("version")?;
        let content = T::read(&root)?;
        let (remarks, unsaid) = reading.into_remarks();
        Ok(Self { document, content, remarks, unsaid })
    }

    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &T {
        &self.content
    }

    /// Changes what it says. What this release does not know stays where it stands; what did not change stays as it was
    /// written, in its order.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is changed then.
    pub fn set_content(&mut self, content: &T) -> Result<(), DocumentError> {
        let mut document = self.document.clone();
        merge::apply(&mut document, &write(&self.content), write(content));
        *self = Self::of(document)?;
        Ok(())
    }

    /// The document as it is written.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// What was not known when it was read, and how much more of it there was than is kept.
    #[must_use]
    pub fn remarks(&self) -> (&[Remark], usize) {
        (&self.remarks, self.unsaid)
    }
}

/// The root with all that is to be said.
fn write<T: Schema>(content: &T) -> Element {
    let root = Element::new(T::ROOT).with("xmlns", T::NAMESPACE).with("version", VERSION);
    let root = content.write(root);
    if root.has_own() { root.with(&format!("xmlns:{PREFIX}"), NAMESPACE) } else { root }
}

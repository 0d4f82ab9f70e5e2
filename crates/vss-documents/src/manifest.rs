//! The manifest of a cabinet of diskshadow (`Manifest.xml`): which documents belong to which shadow copy set. Read only.
//!
//! Windows writes it in UTF-16 without a declaration, in no namespace, and with `%s` for each blank in the name of a writer.

use crate::encoding::Encoding;
use crate::error::{DocumentError, Fault, shown};
use crate::tree::{Document, Element};
use serde::Serialize;
use vss_model::{ProviderId, SetId, ShadowId};

/// The root.
pub(crate) const ROOT: &str = "Manifest";

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// How its characters are written.
    #[serde(skip)]
    pub encoding: Encoding,
    /// The shadow copy set.
    pub set_id: SetId,
    /// The machine that made it.
    pub machine: String,
    /// Its shadow copies.
    pub shadows: Vec<ManifestShadow>,
    /// The file of the Backup Components Document.
    pub backup_components: String,
    /// Names that the script gave, and what they stand for.
    pub aliases: Vec<ManifestAlias>,
    /// The writers, each with the file of its metadata.
    pub writers: Vec<ManifestWriter>,
}

/// A shadow copy in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestShadow {
    /// Its id.
    pub id: ShadowId,
    /// The name that the script gave it; empty without one.
    pub alias: String,
    /// The volume that it is of.
    pub volume: String,
    /// The provider that the script named; all zeros for none.
    pub provider: Option<ProviderId>,
}

/// A name that a script gave to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestAlias {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub value: String,
}

/// A writer in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestWriter {
    /// Its name.
    pub name: String,
    /// The file of its Writer Metadata Document, where it was when the manifest was written.
    pub metadata_file: String,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Those of [`Document::parse`]; [`Fault::Invalid`] for another document and for what is missing in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::of(&Document::parse(bytes)?)
    }

    /// The same for a document that was read without its schema.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(document: &Document) -> Result<Self, DocumentError> {
        let part = Part { document, element: &document.root };
        if document.root_name() != ROOT {
            return Err(part.invalid(&format!("the root is <{}>, not <{ROOT}>", shown(document.root_name()))));
        }
        let set = part.one("ShadowCopySet")?;
        let shadow = |part: Part<'_>| {
            Ok(ManifestShadow {
                id: part.id("GUID")?,
                alias: part.text("Alias").unwrap_or_default(),
                volume: part.required("OriginalVolume")?,
                provider: part.text("Provider").map(|_| part.id("Provider")).transpose()?,
            })
        };
        let writer = |part: Part<'_>| {
            Ok(ManifestWriter {
                name: part.required("Name")?.replace("%s", " "),
                metadata_file: part.required("MetadataFile")?,
            })
        };
        let alias = |part: Part<'_>| Ok(ManifestAlias { name: part.required("Name")?, value: part.required("Value")? });
        Ok(Self {
            encoding: document.encoding(),
            set_id: set.id("GUID")?,
            machine: set.text("MachineName").unwrap_or_default(),
            shadows: set.all("ShadowCopy").map(shadow).collect::<Result<_, _>>()?,
            backup_components: part.one("BackupComponents")?.required("File")?,
            aliases: part.within("Aliases", "Alias").map(alias).collect::<Result<_, _>>()?,
            writers: part.within("Writers", "Writer").map(writer).collect::<Result<_, _>>()?,
        })
    }
}

/// An element of the manifest.
#[derive(Clone, Copy)]
struct Part<'a> {
    document: &'a Document,
    element: &'a Element,
}

impl<'a> Part<'a> {
    fn name(&self) -> &'a str {
        self.element.name.get(&self.document.source)
    }

    fn all(self, name: &'static str) -> impl Iterator<Item = Self> {
        let parts = self.element.elements().map(move |element| Part { document: self.document, element });
        parts.filter(move |part| part.name() == name)
    }

    fn within(self, outer: &'static str, inner: &'static str) -> impl Iterator<Item = Self> {
        self.all(outer).flat_map(move |part| part.all(inner))
    }

    fn one(self, name: &'static str) -> Result<Self, DocumentError> {
        self.all(name).next().ok_or_else(|| self.invalid(&format!("<{}> has no <{name}>", shown(self.name()))))
    }

    fn text(self, name: &str) -> Option<String> {
        Some(self.document.value(self.element, name)?.into_owned())
    }

    fn required(self, name: &str) -> Result<String, DocumentError> {
        self.text(name).ok_or_else(|| self.invalid(&format!("<{}> has no {name}", shown(self.name()))))
    }

    fn id<T: std::str::FromStr>(self, name: &str) -> Result<T, DocumentError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.required(name)?;
        text.parse().map_err(|error| {
            let position = self.document.place_of(self.element, name);
            DocumentError::new(Fault::Invalid, position, format!("<{}> {name}: {error}", shown(self.name())))
        })
    }

    fn invalid(self, message: &str) -> DocumentError {
        DocumentError::new(Fault::Invalid, self.document.position(self.element.offset()), message)
    }
}

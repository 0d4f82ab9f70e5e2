//! What a session has gathered: context, backup state, writers, components, and the set with its volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use vss_model::{
    Attributes, BackupState, ComponentKind, ComponentName, Context, ProviderId, SetId, ShadowId, VolumeId, VssCode,
    VssError, WriterClassId, WriterInstanceId, WriterMetadata, limits, selection,
};

/// Which classes of writers take part (spec R 7.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriterFilter {
    /// None until the first EnableWriterClasses: all.
    only: Option<BTreeSet<WriterClassId>>,
    /// Kept out, also when enabled before.
    never: BTreeSet<WriterClassId>,
    /// Running writers that are kept out; others of their class are not.
    never_instances: BTreeSet<WriterInstanceId>,
}

impl WriterFilter {
    /// True when this running writer of this class takes part.
    #[must_use]
    pub fn allows(&self, class: WriterClassId, instance: WriterInstanceId) -> bool {
        !self.never.contains(&class)
            && !self.never_instances.contains(&instance)
            && self.only.as_ref().is_none_or(|only| only.contains(&class))
    }

    /// The first call keeps every other class out; later calls add.
    pub(crate) fn enable(&mut self, classes: Vec<WriterClassId>) {
        for class in &classes {
            self.never.remove(class);
        }
        self.only.get_or_insert_default().extend(classes);
    }

    pub(crate) fn disable(&mut self, classes: Vec<WriterClassId>) {
        self.never.extend(classes);
    }

    pub(crate) fn disable_instances(&mut self, instances: Vec<WriterInstanceId>) {
        self.never_instances.extend(instances);
    }

    /// Classes and running writers held.
    fn len(&self) -> usize {
        self.never.len() + self.never_instances.len() + self.only.as_ref().map_or(0, BTreeSet::len)
    }
}

/// Names one component of one running writer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentReference {
    /// The running writer.
    pub instance_id: WriterInstanceId,
    /// Its kind.
    pub class_id: WriterClassId,
    /// Database or file group.
    pub kind: ComponentKind,
    /// Logical path and name.
    pub name: ComponentName,
}

impl fmt::Display for ComponentReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of writer instance {}", self.name, self.instance_id)
    }
}

/// What the requester says of one component that it added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    /// Words to its writer; empty when there are none.
    pub backup_options: String,
    /// The stamp that its writer gave to the backup that this one builds on; empty when there is none.
    pub previous_backup_stamp: String,
    /// Whether it is in the backup; none until SetBackupSucceeded.
    pub succeeded: Option<bool>,
}

/// One volume of the set, and who copies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The shadow copy to be.
    pub shadow_id: ShadowId,
    /// The volume.
    pub volume: VolumeId,
    /// The provider that took it.
    pub provider: ProviderId,
}

/// How far the set has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// StartSnapshotSet was called and DoSnapshotSet has not ended: the creation lock is held.
    Open,
    /// Made.
    Made,
    /// Given up; nothing of it is left.
    Undone,
}

/// The set of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSet {
    id: SetId,
    members: Vec<Member>,
    pub(crate) progress: Progress,
}

impl SnapshotSet {
    pub(crate) const fn new(id: SetId) -> Self {
        Self { id, members: Vec::new(), progress: Progress::Open }
    }

    pub(crate) fn add(&mut self, member: Member) {
        self.members.push(member);
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> SetId {
        self.id
    }

    /// Its volumes, in the order of AddToSnapshotSet; at most [`limits::VOLUMES_PER_SET`].
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How far it has come.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }
}

/// What a backup session has gathered. Changed by [`step`](crate::step) alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// None until SetContext: the default.
    pub(crate) context: Option<Context>,
    pub(crate) attributes: Attributes,
    pub(crate) backup_state: Option<BackupState>,
    pub(crate) filter: WriterFilter,
    /// None until GatherWriterMetadata has succeeded.
    pub(crate) writers: Option<Vec<WriterMetadata>>,
    pub(crate) components: BTreeMap<ComponentReference, Chosen>,
    pub(crate) set: Option<SnapshotSet>,
    /// True from the start of PrepareForBackup: from then on writers expect BackupShutdown.
    pub(crate) writers_told: bool,
    /// True once a GatherWriterStatus has succeeded.
    pub(crate) status_gathered: bool,
}

impl Draft {
    /// What the set is for; `VSS_CTX_BACKUP` until SetContext.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.unwrap_or_default()
    }

    /// The attribute bits that the requester added to the context.
    #[must_use]
    pub const fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// What SetBackupState said last; none until then.
    #[must_use]
    pub const fn backup_state(&self) -> Option<BackupState> {
        self.backup_state
    }

    /// Which classes of writers take part.
    #[must_use]
    pub const fn filter(&self) -> &WriterFilter {
        &self.filter
    }

    /// The writers that answered to Identify; none until GatherWriterMetadata has succeeded.
    #[must_use]
    pub fn writers(&self) -> Option<&[WriterMetadata]> {
        self.writers.as_deref()
    }

    /// The components that were added, each with what the requester said of it.
    pub fn components(&self) -> impl ExactSizeIterator<Item = (&ComponentReference, &Chosen)> {
        self.components.iter()
    }

    /// The set; none until StartSnapshotSet.
    #[must_use]
    pub const fn set(&self) -> Option<&SnapshotSet> {
        self.set.as_ref()
    }

    /// The volumes of the set; empty without one.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.set.as_ref().map_or(&[], SnapshotSet::members)
    }

    /// True from the accepted StartSnapshotSet until the step that says ReleaseCreationLock.
    #[must_use]
    pub fn holds_creation_lock(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.progress == Progress::Open)
    }

    /// The id of the finished set; none when there is none.
    #[must_use]
    pub fn made_set(&self) -> Option<SetId> {
        self.set.as_ref().filter(|set| set.progress == Progress::Made).map(SnapshotSet::id)
    }

    /// True when PrepareForBackup has begun: writers of this session expect BackupShutdown.
    #[must_use]
    pub const fn writers_told(&self) -> bool {
        self.writers_told
    }

    /// May so many more writer classes and instances be held?
    pub(crate) fn check_filter(&self, more: usize) -> Result<(), VssError> {
        if self.filter.len() + more > limits::WRITERS {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("More than {} writer classes were enabled or disabled in one session", limits::WRITERS),
            ));
        }
        Ok(())
    }

    /// May these words be kept for a component? `old` is what they replace.
    pub(crate) fn check_words(
        &self,
        component: &ComponentReference,
        words: &str,
        old: fn(&Chosen) -> &String,
    ) -> Result<(), VssError> {
        self.check_chosen(component)?;
        let replaced = self.components.get(component).map_or(0, |chosen| old(chosen).len());
        let of_one = |chosen: &Chosen| chosen.backup_options.len() + chosen.previous_backup_stamp.len();
        let others = self.components.values().map(of_one).sum::<usize>() - replaced;
        if words.len() > limits::BACKUP_WORDS || others + words.len() > limits::BACKUP_WORDS_PER_SESSION {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("Options or stamp of component {component} have {} bytes", words.len()),
            )
            .with_hint(format!(
                "At most {} bytes each and {} in one session",
                limits::BACKUP_WORDS,
                limits::BACKUP_WORDS_PER_SESSION
            )));
        }
        Ok(())
    }

    /// May this component be added (spec R 1.8 and 3.4)?
    pub(crate) fn check_component(&self, wanted: &ComponentReference) -> Result<(), VssError> {
        let writer = self
            .writers
            .iter()
            .flatten()
            .find(|writer| writer.instance_id == wanted.instance_id && writer.class_id == wanted.class_id);
        let Some(writer) = writer else {
            return Err(VssError::new(
                VssCode::ObjectNotFound,
                format!(
                    "No writer with instance id {} and class id {} answered to Identify",
                    wanted.instance_id, wanted.class_id
                ),
            )
            .with_hint("Name a writer that GetWriterMetadata lists"));
        };
        let known =
            writer.components.iter().find(|component| component.kind == wanted.kind && component.name == wanted.name);
        if known.is_none() {
            return Err(VssError::new(
                VssCode::ObjectNotFound,
                format!("Writer {} has no component {} of this type", writer.name, wanted.name),
            )
            .with_hint("Name a component that GetWriterMetadata lists"));
        }
        let of_writer = self.components.keys().filter(|chosen| chosen.instance_id == writer.instance_id);
        let explicit: Vec<&ComponentName> = of_writer.map(|chosen| &chosen.name).collect();
        selection::check_explicit(&writer.components, &explicit, &wanted.name)
            .map_err(|error| error.while_doing(format!("Writer {}", writer.name)))
    }

    pub(crate) fn check_chosen(&self, component: &ComponentReference) -> Result<(), VssError> {
        if self.components.contains_key(component) {
            return Ok(());
        }
        Err(VssError::new(VssCode::ObjectNotFound, format!("Component {component} was not added to this backup"))
            .with_hint("Only a component that AddComponent named is reported; its subcomponents go with it"))
    }

    pub(crate) fn check_member(&self, member: &Member) -> Result<(), VssError> {
        if self.members().iter().any(|other| other.volume == member.volume) {
            return Err(VssError::new(
                VssCode::ObjectAlreadyExists,
                format!("Volume {} is in the shadow copy set already", member.volume),
            )
            .with_hint("Name each volume once; other paths on it are in its shadow copy"));
        }
        if self.members().len() >= limits::VOLUMES_PER_SET {
            return Err(VssError::new(
                VssCode::MaximumNumberOfVolumesReached,
                format!(
                    "Volume {} would be number {} of the shadow copy set",
                    member.volume,
                    limits::VOLUMES_PER_SET + 1
                ),
            )
            .with_hint(format!(
                "A set holds at most {} volumes: make two sets, one after the other",
                limits::VOLUMES_PER_SET
            )));
        }
        Ok(())
    }
}

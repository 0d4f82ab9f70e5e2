//! The record of a finished set: how good each part is, and what the catalogue keeps. The rule of levels is
//! [`vss_model::level`]'s.

use super::create_set::{CreateSet, Member};
use crate::catalogue::{KeptCopy, SetEntry};
use crate::fault;
use crate::freeze_window::Window;
use crate::writers::SessionWriter;
use vss_model::involvement;
use vss_model::level::{self, ComponentCut, Cut};
use vss_model::{
    Attributes, Component, ComponentFlags, ComponentRecord, Consistency, Instant, ShadowCopy, ShadowCopySet, VssError,
    WriterRecord, WriterState,
};

impl CreateSet {
    /// What the catalogue keeps of the finished set.
    pub(super) fn entry(&self) -> SetEntry {
        let created_at = Instant::now();
        let mounts: Vec<_> = self.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
        let cuts: Vec<Cut<'_>> = self.plan.members.iter().map(|member| self.cut(member)).collect();
        let component_cuts: Vec<ComponentCut<'_>> = self
            .writers
            .involved()
            .flat_map(|writer| involved_components(writer).map(move |component| (writer, component)))
            .map(|(writer, component)| ComponentCut {
                volumes: involvement::volumes_of(component, &mounts),
                writer_succeeded: has_succeeded(writer, component),
            })
            .collect();
        let levels = level::levels(&cuts, self.window.as_ref().is_some_and(Window::was_held), &component_cuts);
        let mut of_components = levels.components.into_iter();
        let writers = self.writers.involved().map(|writer| writer_record(writer, &mut of_components)).collect();
        let shadows = self
            .plan
            .members
            .iter()
            .zip(levels.volumes)
            .map(|(member, consistency)| self.shadow(member, consistency, created_at))
            .collect();
        let proof = self.proof();
        // Rounded up: a hold was never shorter than it is said to be.
        let hold_ms = proof.as_ref().map_or(0, |proof| proof.hold_us().div_ceil(1000));
        SetEntry {
            copies: self
                .plan
                .members
                .iter()
                .map(|member| KeptCopy { provider: member.provider.properties().name, stored: self.stored(member) })
                .collect(),
            set: ShadowCopySet {
                set_id: self.plan.set_id,
                consistency: levels.set,
                atomic: levels.atomic,
                hold_ms,
                freeze_ms: self.freeze_ms,
                snapshots_count: if fault::is_off("count") {
                    0
                } else {
                    u32::try_from(self.plan.members.len()).unwrap_or(u32::MAX)
                },
                shadows,
                writers,
                context: self.plan.facts.context,
                backup_state: self.plan.facts.backup_state,
                owner: self.plan.requester.uid,
                requester: self.plan.requester.name.clone(),
                created_at,
                proof,
            },
            boot_id: self.environment.boot_id.clone(),
            documents: Vec::new(),
        }
    }

    /// AUTORECOVER where a writer recovers its data in the copy of this volume (spec P 3.3).
    fn recovery(&self, member: &Member) -> Attributes {
        let rollback = self.plan.facts.attributes.contains(Attributes::ROLLBACK_RECOVERY);
        let asked = if rollback { ComponentFlags::APP_ROLLBACK_RECOVERY } else { ComponentFlags::BACKUP_RECOVERY };
        let mounts: Vec<_> = self.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
        let lies_here = |component: &&Component| {
            component.flags.has(asked) && involvement::volumes_of(component, &mounts).contains(&&member.volume.id)
        };
        let is_writable = member.provider.properties().capabilities.writable_phase
            && !self.plan.facts.attributes.contains(Attributes::NO_AUTORECOVERY);
        if is_writable && self.writers.involved().flat_map(involved_components).any(|component| lies_here(&component)) {
            Attributes::AUTORECOVER
        } else {
            Attributes::empty()
        }
    }

    fn cut<'a>(&self, member: &'a Member) -> Cut<'a> {
        Cut {
            volume: &member.volume.id,
            freeze_policy: member.provider.properties().freeze_policy,
            has_nested: !self.committed[&member.shadow_id].nested.is_empty(),
        }
    }

    fn shadow(&self, member: &Member, consistency: Consistency, created_at: Instant) -> ShadowCopy {
        let properties = member.provider.properties();
        let copy = &self.committed[&member.shadow_id];
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let no_recovery = match properties.capabilities.writable_phase {
            true => Attributes::empty(),
            false => Attributes::NO_AUTORECOVERY,
        };
        ShadowCopy {
            id: member.shadow_id,
            set_id: self.plan.set_id,
            volume: member.volume.mount_point.clone(),
            volume_id: member.volume.id.clone(),
            provider: properties.name,
            provider_id: properties.id,
            device: copy.device.clone(),
            path: None,
            consistency,
            cut_at: copy.cut_at,
            nested: copy.nested.clone(),
            created_at,
            attributes: self
                .plan
                .facts
                .context
                .attributes()
                .with(if fault::is_off("attributes") { Attributes::empty() } else { self.plan.facts.attributes })
                .with(self.recovery(member))
                .with(properties.capabilities.kind.attribute())
                .with(no_recovery)
                .with(Attributes::NOT_SURFACED),
            owner: self.plan.requester.uid,
            originating_machine: machine.clone(),
            service_machine: machine,
        }
    }
}

/// Its components that the backup concerns, in its own order.
fn involved_components(writer: &SessionWriter) -> impl Iterator<Item = &Component> {
    writer.metadata.components.iter().filter(|component| writer.components.contains(&component.name))
}

fn has_succeeded(writer: &SessionWriter, component: &Component) -> bool {
    writer.state() == WriterState::WaitingForBackupComplete && !writer.component_failures.contains_key(&component.name)
}

/// The record of one writer; takes the levels of its components from `levels`, in their order.
fn writer_record(writer: &SessionWriter, levels: &mut impl Iterator<Item = Consistency>) -> WriterRecord {
    let record = |(component, consistency): (&Component, Consistency)| ComponentRecord {
        name: component.name.clone(),
        consistency,
        failure: writer.component_failures.get(&component.name).cloned().or_else(|| {
            // Its words stand with the writer, once: there may be 10,000 components.
            let failure = writer.failure().filter(|_| !has_succeeded(writer, component))?;
            Some(VssError::new(failure.code, "its writer failed"))
        }),
    };
    WriterRecord {
        name: writer.metadata.name.clone(),
        class_id: writer.metadata.class_id,
        instance_id: writer.metadata.instance_id,
        state: writer.state(),
        failure: writer.failure().cloned(),
        frozen_ms: writer.frozen_ms,
        components: involved_components(writer).zip(levels).map(record).collect(),
    }
}

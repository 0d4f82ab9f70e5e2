//! The record of a finished set: how good each part is, and what the catalogue keeps (design 3, "Consistency level").

use super::create_set::{CreateSet, Member};
use crate::catalogue::{KeptCopy, SetEntry};
use crate::writers::registry::milliseconds;
use std::collections::BTreeMap;
use vss_model::involvement::{self, ComponentOutcome};
use vss_model::{
    Attributes, ComponentRecord, Consistency, FreezePolicy, Instant, ShadowCopy, ShadowCopySet, VolumeId, VssError,
    WriterRecord, WriterState,
};

impl CreateSet {
    /// What the catalogue keeps of the finished set.
    pub(super) fn entry(&self) -> SetEntry {
        let created_at = Instant::now();
        let cuts: BTreeMap<&VolumeId, Consistency> = self
            .plan
            .members
            .iter()
            .map(|member| {
                let one_instant = self.committed[&member.shadow_id].nested.is_empty();
                (&member.volume.id, Consistency::of_cut(one_instant))
            })
            .collect();
        let atomic = self.is_atomic();
        let writers = self.writer_records(&cuts, atomic);
        let shadows: Vec<ShadowCopy> =
            self.plan.members.iter().map(|member| self.shadow(member, &writers, &cuts, created_at)).collect();
        let levels = shadows
            .iter()
            .map(|shadow| shadow.consistency)
            .chain(writers.iter().flat_map(|writer| writer.components.iter().map(|component| component.consistency)));
        let hold_ms = match (self.times.held, self.times.released) {
            (Some(held), Some(released)) => milliseconds(released.saturating_duration_since(held)),
            _ => 0,
        };
        SetEntry {
            copies: self
                .plan
                .members
                .iter()
                .map(|member| KeptCopy { provider: member.provider.properties().name, stored: self.stored(member) })
                .collect(),
            set: ShadowCopySet {
                set_id: self.plan.set_id,
                consistency: Consistency::lowest(levels),
                atomic,
                hold_ms,
                freeze_ms: self.freeze_ms,
                shadows,
                writers,
                context: self.plan.facts.context,
                backup_state: self.plan.facts.backup_state,
                owner: self.plan.requester.uid,
                requester: self.plan.requester.name.clone(),
                created_at,
            },
            boot_id: self.environment.boot_id.clone(),
        }
    }

    /// True when all members were cut at one instant: inside one hold with at most one member that was not itself held, or
    /// as one btrfs subvolume; never with nested subvolumes (design 3 and 5).
    fn is_atomic(&self) -> bool {
        let not_held = self
            .plan
            .members
            .iter()
            .filter(|member| member.provider.properties().freeze_policy == FreezePolicy::MustNotHold)
            .count();
        not_held <= 1
            && (self.plan.members.len() == 1 || self.times.held.is_some())
            && self.committed.values().all(|copy| copy.nested.is_empty())
    }

    fn writer_records(&self, cuts: &BTreeMap<&VolumeId, Consistency>, atomic: bool) -> Vec<WriterRecord> {
        let mounts: Vec<_> = self.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
        self.writers
            .involved()
            .map(|writer| {
                let components = writer
                    .metadata
                    .components
                    .iter()
                    .filter(|component| writer.components.contains(&component.name))
                    .map(|component| {
                        let mut levels: Vec<Consistency> = involvement::volumes_of(component, &mounts)
                            .into_iter()
                            .filter_map(|volume| cuts.get(volume).copied())
                            .collect();
                        if levels.len() > 1 && !atomic {
                            levels.push(Consistency::Crash);
                        }
                        let failure = writer.component_failures.get(&component.name);
                        let writer_succeeded =
                            writer.state() == WriterState::WaitingForBackupComplete && failure.is_none();
                        ComponentRecord {
                            name: component.name.clone(),
                            consistency: ComponentOutcome { writer_succeeded, cuts: &levels }.consistency(),
                            failure: failure.cloned().or_else(|| {
                                // Its words stand with the writer, once: there may be 10,000 components.
                                let failure = writer.failure().filter(|_| !writer_succeeded)?;
                                Some(VssError::new(failure.code, "its writer failed"))
                            }),
                        }
                    })
                    .collect();
                WriterRecord {
                    name: writer.metadata.name.clone(),
                    class_id: writer.metadata.class_id,
                    instance_id: writer.metadata.instance_id,
                    state: writer.state(),
                    failure: writer.failure().cloned(),
                    frozen_ms: writer.frozen_ms,
                    components,
                }
            })
            .collect()
    }

    /// The record of one copy. Its level is that of the components on it; without any, what the cut alone gives.
    fn shadow(
        &self,
        member: &Member,
        writers: &[WriterRecord],
        cuts: &BTreeMap<&VolumeId, Consistency>,
        created_at: Instant,
    ) -> ShadowCopy {
        let properties = member.provider.properties();
        let copy = &self.committed[&member.shadow_id];
        let mounts: Vec<_> = self.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
        let on_it = self.writers.involved().zip(writers).flat_map(|(writer, record)| {
            record.components.iter().filter(|component| {
                writer.metadata.components.iter().any(|described| {
                    described.name == component.name
                        && involvement::volumes_of(described, &mounts).contains(&&member.volume.id)
                })
            })
        });
        let levels: Vec<Consistency> = on_it.map(|component| component.consistency).collect();
        let consistency =
            if levels.is_empty() { cuts[&member.volume.id] } else { Consistency::lowest(levels.iter().copied()) };
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
                .with(properties.capabilities.kind.attribute())
                .with(Attributes::NOT_SURFACED),
            owner: self.plan.requester.uid,
        }
    }
}

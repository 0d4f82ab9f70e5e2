//! Typed calls about finished shadow copies (spec P 4). They need a session, of whatever kind.

use crate::Requester;
use vss_api::objects::{
    BreakSnapshotSet, DeleteSnapshots, Properties, Queried, Query, SetSnapshotProperty, Snapshot, SnapshotsDeleted,
};
use vss_api::requester::Call;
use vss_model::{ObjectType, SetId, ShadowId, SnapshotProperties, SnapshotProperty, VssError};

impl Requester {
    /// Finished shadow copies of the session's context, or providers.
    ///
    /// # Errors
    /// `E_INVALIDARG` for another type.
    pub fn query(&mut self, returned_type: ObjectType) -> Result<Queried, VssError> {
        self.call(&Call::Query(Query { queried_type: ObjectType::None, returned_type }))
    }

    /// Everything about one shadow copy.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`.
    pub fn snapshot_properties(&mut self, snapshot_id: ShadowId) -> Result<SnapshotProperties, VssError> {
        let reply: Properties = self.call(&Call::GetSnapshotProperties(Snapshot { snapshot_id }))?;
        Ok(reply.properties)
    }

    /// Writes another machine into a shadow copy's record.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`, `E_INVALIDARG` for a property that is not `ServiceMachine`.
    pub fn set_snapshot_property(
        &mut self,
        snapshot_id: ShadowId,
        property: SnapshotProperty,
        value: String,
    ) -> Result<(), VssError> {
        self.order(&Call::SetSnapshotProperty(SetSnapshotProperty { snapshot_id, property, value }))
    }

    /// Deletes a shadow copy, or all of a set, and stops at the first that cannot be deleted.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when there is no such copy or set. What could not be deleted is in the reply.
    pub fn delete_snapshots(
        &mut self,
        object_id: String,
        object_type: ObjectType,
    ) -> Result<SnapshotsDeleted, VssError> {
        self.call(&Call::DeleteSnapshots(DeleteSnapshots { object_id, object_type, force: false }))
    }

    /// Makes the copies of a set volumes of their own.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` where the provider cannot, `VSS_E_OBJECT_NOT_FOUND`.
    pub fn break_snapshot_set(&mut self, set_id: SetId) -> Result<(), VssError> {
        self.order(&Call::BreakSnapshotSet(BreakSnapshotSet { set_id, flags: 0 }))
    }
}

//! Typed calls about the components of a backup: what the requester says of them, and what their writers said.

use crate::Requester;
use vss_api::requester::{
    BackupComponent, Call, ComponentReference, SetBackupOptions, SetPreviousBackupStamp, WriterComponents,
    WriterInstance,
};
use vss_model::{VssError, WriterInstanceId};

impl Requester {
    /// Gives the writer of a component words that only it understands; before PrepareForBackup.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` for a component that was not added, `E_INVALIDARG` for more than 64 KiB.
    pub fn set_backup_options(&mut self, component: ComponentReference, options: String) -> Result<(), VssError> {
        self.order(&Call::SetBackupOptions(SetBackupOptions { component, options }))
    }

    /// Gives the writer of a component the stamp of the backup that this one builds on; before PrepareForBackup.
    ///
    /// # Errors
    /// Those of [`Self::set_backup_options`].
    pub fn set_previous_backup_stamp(&mut self, component: ComponentReference, stamp: String) -> Result<(), VssError> {
        self.order(&Call::SetPreviousBackupStamp(SetPreviousBackupStamp { component, stamp }))
    }

    /// What the backup knows of one writer's components; to be asked again after each operation.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` for a writer that was not identified.
    pub fn writer_components(&mut self, instance_id: WriterInstanceId) -> Result<Vec<BackupComponent>, VssError> {
        let reply: WriterComponents = self.call(&Call::GetWriterComponents(WriterInstance { instance_id }))?;
        Ok(reply.components)
    }
}

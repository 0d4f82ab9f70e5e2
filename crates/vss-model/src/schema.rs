//! What a writer can do beyond full backups: the backup schema (spec R 4.1).

use crate::bits::bits;
use crate::{BackupType, VssCode, VssError};

bits! {
    /// `VSS_BACKUP_SCHEMA` (spec R 4.1); 0: full backups alone. A bit that this release does not know is kept.
    BackupSchema = 0;
    /// `VSS_BS_DIFFERENTIAL`: differential backups.
    DIFFERENTIAL = 0x0001, "differential";
    /// `VSS_BS_INCREMENTAL`: incremental backups.
    INCREMENTAL = 0x0002, "incremental";
    /// `VSS_BS_EXCLUSIVE_INCREMENTAL_DIFFERENTIAL`: both, and never mixed in one chain.
    EXCLUSIVE_INCREMENTAL_DIFFERENTIAL = 0x0004, "exclusive";
    /// `VSS_BS_LOG`: log backups.
    LOG = 0x0008, "log";
    /// `VSS_BS_COPY`: copy backups.
    COPY = 0x0010, "copy";
    /// `VSS_BS_TIMESTAMPED`: the writer keeps backup stamps.
    TIMESTAMPED = 0x0020, "stamps";
    /// `VSS_BS_LAST_MODIFY`: the writer names differenced files.
    LAST_MODIFY = 0x0040, "differenced files";
    /// `VSS_BS_LSN`: reserved by VSS.
    LSN = 0x0080, "LSN";
    /// `VSS_BS_WRITER_SUPPORTS_NEW_TARGET`: a requester may restore to another place.
    WRITER_SUPPORTS_NEW_TARGET = 0x0100, "new target";
    /// `VSS_BS_WRITER_SUPPORTS_RESTORE_WITH_MOVE`: components may move between instances.
    WRITER_SUPPORTS_RESTORE_WITH_MOVE = 0x0200, "restore with move";
    /// `VSS_BS_INDEPENDENT_SYSTEM_STATE`: of the system state, and can be backed up alone.
    INDEPENDENT_SYSTEM_STATE = 0x0400, "independent system state";
    /// `VSS_BS_ROLLFORWARD_RESTORE`: a requester may say how far logs are replayed.
    ROLLFORWARD_RESTORE = 0x1000, "roll forward";
    /// `VSS_BS_RESTORE_RENAME`: a requester may give a restored component another name.
    RESTORE_RENAME = 0x2000, "restore rename";
    /// `VSS_BS_AUTHORITATIVE_RESTORE`: a requester may ask for an authoritative restore.
    AUTHORITATIVE_RESTORE = 0x4000, "authoritative restore";
    /// `VSS_BS_WRITER_SUPPORTS_PARALLEL_RESTORES`: several restores at a time.
    WRITER_SUPPORTS_PARALLEL_RESTORES = 0x8000, "parallel restores";
}

impl BackupSchema {
    /// Either of them.
    const CHANGES: Self = Self::DIFFERENTIAL.with(Self::INCREMENTAL);

    /// True when the writer takes a backup of this type as what it is; otherwise it takes it as a full one (spec R 4.1).
    #[must_use]
    pub const fn supports(self, backup_type: BackupType) -> bool {
        match backup_type {
            BackupType::Full => true,
            BackupType::Incremental => self.has(Self::INCREMENTAL),
            BackupType::Differential => self.has(Self::DIFFERENTIAL),
            BackupType::Log => self.has(Self::LOG),
            BackupType::Copy => self.has(Self::COPY),
            BackupType::Other => false,
        }
    }

    /// What a backup of this type is for the writer: the type, or a full backup.
    #[must_use]
    pub const fn effective(self, backup_type: BackupType) -> BackupType {
        if self.supports(backup_type) { backup_type } else { BackupType::Full }
    }

    /// Checks the bits that need others (spec R 4.1). `has_log_files`: a component of the writer names logs.
    ///
    /// # Errors
    /// `E_INVALIDARG`, naming the bit and what it needs.
    pub fn check(self, has_log_files: bool) -> Result<(), VssError> {
        let invalid = |message: &str| Err(VssError::new(VssCode::InvalidArgument, format!("backup schema: {message}")));
        if self.has(Self::EXCLUSIVE_INCREMENTAL_DIFFERENTIAL) && !self.has(Self::CHANGES) {
            return invalid("exclusive (4) needs differential (1) and incremental (2)");
        }
        if self.has(Self::TIMESTAMPED) && !self.has_any(Self::CHANGES) {
            return invalid("stamps (32) need differential (1) or incremental (2)");
        }
        if self.has(Self::LAST_MODIFY) && !self.has_any(Self::CHANGES) {
            return invalid("differenced files (64) need differential (1) or incremental (2)");
        }
        if self.has(Self::LOG) && !has_log_files {
            return invalid("log (8) needs a database with log_files");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_4_1_bits_that_need_others() {
        let table: [(u32, bool, Option<&str>); 10] = [
            (0, false, None),
            (7, false, None),
            (4, false, Some("exclusive")),
            (5, false, Some("exclusive")),
            (0x20, false, Some("stamps")),
            (0x22, false, None),
            (0x40, false, Some("differenced")),
            (0x41, false, None),
            (8, false, Some("log")),
            (8, true, None),
        ];
        for (bits, has_log_files, wanted) in table {
            match (BackupSchema(bits).check(has_log_files), wanted) {
                (Ok(()), None) => {}
                (Err(error), Some(word)) => assert!(error.message.contains(word), "{bits:#x}: {error}"),
                (done, _) => panic!("{bits:#x}: {done:?}"),
            }
        }
    }

    #[test]
    fn spec_4_1_a_type_that_the_writer_lacks_is_a_full_backup() {
        use BackupType::{Copy, Differential, Full, Incremental, Log, Other};
        let table = [
            (0, Incremental, Full),
            (2, Incremental, Incremental),
            (2, Differential, Full),
            (1, Differential, Differential),
            (8, Log, Log),
            (0, Log, Full),
            (0x10, Copy, Copy),
            (0, Copy, Full),
            (0xFFFF, Other, Full),
            (0, Full, Full),
        ];
        for (bits, asked, told) in table {
            assert_eq!(BackupSchema(bits).effective(asked), told, "{bits:#x} {asked:?}");
        }
        // SqlServerWriter of Windows says 881.
        assert_eq!(BackupSchema(881).names().len(), 6);
    }
}

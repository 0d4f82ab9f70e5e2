//! The limits of the house, each with the section that it comes from; those without one are ours (spec R 11.16).

use std::time::Duration;

/// Volumes in one shadow copy set (spec P 1.1).
pub const VOLUMES_PER_SET: usize = 64;
/// Shadow copies of one volume (spec P 10, row 20).
pub const SHADOW_COPIES_PER_VOLUME: usize = 512;
/// Backup sessions open at once (spec P 1.2).
pub const BACKUP_SESSIONS: usize = 64;
/// Restore sessions open at once (spec P 10, row 20).
pub const RESTORE_SESSIONS: usize = 8;
/// Longest backup options or stamp of one component, in bytes.
pub const BACKUP_WORDS: usize = 64 << 10;
/// Options and stamps of all components that a requester may set in one session, in bytes.
pub const BACKUP_WORDS_PER_SESSION: usize = 2 << 20;
/// Longest backup metadata of one component, in bytes.
pub const BACKUP_METADATA: usize = 1 << 20;
/// Partial files, and differenced ones, of one component.
pub const BACKUP_FILES: usize = 10_000;
/// What all components of one writer may have kept with a backup, in bytes: one message has 4 MiB.
pub const BACKUP_DATA_PER_WRITER: usize = 3 << 20;
/// What the documents of one set may have in all, in bytes. Windows' largest, that of its System Writer, has 2 MiB.
pub const DOCUMENTS_PER_SET: usize = 64 << 20;
/// Nested btrfs subvolumes copied with their parent (design 5).
pub const NESTED_SUBVOLUMES: usize = 4096;
/// Writers registered at once, in all.
pub const WRITERS: usize = 1024;
/// Writers registered at once by one uid that is not root.
pub const WRITERS_PER_UID: usize = 256;
/// Checks that run at once.
pub const CHECKS: usize = 8;
/// Paths in one check: more than a set can have volumes, since several may lie on one.
pub const CHECKED_PATHS: usize = 256;
/// Longest path in a check, in bytes (PATH_MAX, linux/limits.h).
pub const PATH_BYTES: usize = 4096;
/// Questions about changed blocks that are answered at once: each may hold a list of all blocks of a volume.
pub const BLOCK_QUESTIONS: usize = 4;
/// Questions about the documents of sets that are answered at once: documents are looked through one after another, and
/// whoever waits for that has a thread.
pub const DOCUMENT_QUESTIONS: usize = 8;
/// Volumes whose providers are asked for a forecast at once, by all checks together: for a mirror its writes are looked on for
/// a second, with a tracer of its own.
pub const FORECASTS: usize = 8;
/// Components in the metadata of one writer.
pub const COMPONENTS_PER_WRITER: usize = 10_000;
/// File specs in one component, and entries in each other list of files of a writer.
pub const FILES_PER_COMPONENT: usize = 20_000;
/// Dependencies of one component.
pub const DEPENDENCIES_PER_COMPONENT: usize = 256;
/// Longest icon of a component, in base64: a file of 48 KiB.
pub const ICON_CHARACTERS: usize = 64 << 10;
/// Ranges of one partial file or directed target: 16 MiB of them in a ranges file.
pub const RANGES: usize = 1 << 20;

/// Longest time from a writer's Freeze to its Thaw, if it names no shorter one (spec R 2.4).
pub const WRITER_FREEZE: Duration = Duration::from_secs(60);
/// Longest time for a writer's Identify.
pub const WRITER_IDENTIFY: Duration = Duration::from_secs(30);
/// Longest time for a writer's PrepareBackup and for its PrepareSnapshot: the slow work belongs there.
pub const WRITER_PREPARE: Duration = Duration::from_secs(600);
/// Longest wait for one level's answers to Thaw: a silent writer must not keep the next level frozen.
pub const WRITER_THAW: Duration = Duration::from_secs(5);
/// Longest time for a writer's PostSnapshot and for its BackupComplete.
pub const WRITER_FINISH: Duration = Duration::from_secs(600);
/// Longest time that we wait for a writer to acknowledge Abort or BackupShutdown; nobody reads its answer.
pub const WRITER_FAREWELL: Duration = Duration::from_secs(5);
/// Longest time in which a check begins to look at one more path; those that are left are told so.
pub const CHECK: Duration = Duration::from_secs(60);
/// Longest time for the first flush of every member, outside the freeze window (design 3).
pub const FLUSH: Duration = Duration::from_secs(600);
/// Longest time for the second flush, inside the freeze window (design 3).
pub const FLUSH_IN_WINDOW: Duration = Duration::from_secs(5);
/// Longest hold of writes: from the first FIFREEZE to the release (spec R 2.4).
pub const HOLD: Duration = Duration::from_secs(10);
/// Longest hold that the mirror provider begins by itself: time to read what is left (wish of `vss run --max-hold`).
pub const MIRROR_HOLD: Duration = Duration::from_millis(500);
/// Days that a mirror is kept that no copy is made of ([`days`]).
pub const MIRROR_UNUSED_DAYS: u64 = 7;
/// Longest time for one provider phase inside the freeze window (spec P 1.6 wants 1 to 2 s).
pub const PROVIDER_IN_WINDOW: Duration = Duration::from_secs(20);
/// Longest time for one provider phase outside the freeze window. In end_prepare, where blocks may be copied for hours: longest
/// time without any progress.
pub const PROVIDER_OUTSIDE: Duration = Duration::from_secs(600);

/// So many days of 24 hours.
#[must_use]
pub const fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 3600))
}

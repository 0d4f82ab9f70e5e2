//! What is typed to back up into a directory, to check such a backup and to put it back.

use super::BackupArguments;
use clap::Args;
use std::path::PathBuf;
use vss_requester::ComponentChoice;

#[derive(Debug, Args)]
#[command(after_help = BACKUP_HELP)]
#[group(id = "what", required = true, multiple = true)]
pub(crate) struct DirectoryBackupArguments {
    /// A new or empty directory, or the one of an interrupted run
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) to: PathBuf,
    /// A directory to back up with all below it on its volume (more than once: all of them)
    #[arg(long, value_name = "PATH", group = "what", conflicts_with = "component")]
    pub(crate) volume: Vec<PathBuf>,
    /// A component of a writer to back up, or a writer with all that it has (more than once: all of them)
    #[arg(long, value_name = "WRITER[/COMPONENT]", group = "what", conflicts_with = "no_writers")]
    pub(crate) component: Vec<ComponentChoice>,
    /// The backup that an incremental, differential or log backup builds on
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backup: BackupArguments,
}

const BACKUP_HELP: &str = "\
DIR gets the files at their original paths below `data`, a manifest with a
checksum for each, and the documents of the backup. Until all of it is on the disk
DIR is no backup: `vss verify` and `vss restore` refuse it. An interrupted run is
gone on with by the same command; what is there and unchanged is kept. A whole
backup is never written to again: the next one gets a directory of its own.

With --volume an incremental backup has what changed since --base, and a
differential one what changed since a full --base; both find everything else there
when they are restored. With --component the writers say what such a backup needs.

Files that cannot be read are named; the rest is kept, and their components are
reported to their writers as failed.

--json prints an object with these keys: directory, id, set_id, consistency,
totals (files, directories, bytes, kept, unchanged), components (writer,
logical_path, name, succeeded), failures (path, message, components),
more_failures.

Examples:
  vss backup --volume /srv --to /backup/monday
  vss backup --volume /srv --to /backup/tuesday --backup-type incremental \\
      --base /backup/monday
  vss backup --component postgresql --to /backup/databases

Exit status: 0 everything is in the backup, 1 not; 2 wrong usage.";

#[derive(Debug, Args)]
#[command(after_help = "\
Reads everything again and names what is damaged, missing or does not belong
there. What an earlier backup holds is checked there.

--json prints an object with these keys: directory, id, files, bytes, elsewhere,
problems (path, wrong: damaged, missing or extra, message), more_problems.

Example:
  vss verify /backup/monday

Exit status: 0 nothing is wrong, 1 something is; 2 wrong usage.")]
pub(crate) struct VerifyArguments {
    /// The directory of a backup
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RESTORE_HELP)]
pub(crate) struct RestoreArguments {
    /// The directory of a backup; what it builds on is found by itself, or named too
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) from: Vec<PathBuf>,
    /// Put files back, and talk to no writer
    #[arg(long, required = true)]
    pub(crate) files_only: bool,
    /// The directory below which every file gets its original path
    #[arg(long, value_name = "OTHER")]
    pub(crate) to: PathBuf,
    /// Replace files that are there already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const RESTORE_HELP: &str = "\
/srv/shop/data of the backup becomes OTHER/srv/shop/data. A file appears there
whole, with its checksum compared, or not at all. A file that is there already and
right is left alone; any other one is an error, unless --overwrite replaces it. An
interrupted run is gone on with by the same command. As long as not everything is
put back, OTHER has a file `.vss-unfinished-ID`.

Of a backup that builds on others, all are needed: those before it are looked for
where they were when it was made, and beside it; --from names them otherwise.

--json prints an object with these keys: directories, to, totals (files,
directories, bytes, kept), failures (path, message), more_failures, unfinished
(the file that stays until everything is put back, or null).

Examples:
  vss restore --from /backup/monday --files-only --to /mnt/restored
  vss restore --from /old/monday --from /backup/tuesday --files-only --to /mnt/x

Exit status: 0 everything was put back, 1 not; 2 wrong usage.";

//! What is typed to work with copies as blocks: export, import, diff, revert.

use clap::Args;
use std::path::PathBuf;
use vss_model::ShadowId;

#[derive(Debug, Args)]
#[command(after_help = "\
The stream has the blocks that are in use, or with --since those that differ
from the earlier copy; docs/stream.md describes it. Only root can export: the
stream holds every file of the volume.

Examples:
  vss export b5946137-7b9f-4925-af80-51abd60b20d5 -o /backup/srv.vss
  vss export b5946137-7b9f-4925-af80-51abd60b20d5 \\
      --since 0a6f8d1c-5a2f-4a3e-9d6f-0c9a3c1d2e4f |
      ssh backup vss import --to /srv/web.img")]
pub(crate) struct ExportArguments {
    /// The shadow copy
    #[arg(value_name = "ID")]
    pub(crate) shadow: ShadowId,
    /// Only what changed since this earlier copy of the same volume
    #[arg(long, value_name = "ID")]
    pub(crate) since: Option<ShadowId>,
    /// Write to this new file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Beside an image, IMAGE.vss-stream says which copy the image holds; an
incremental stream is applied to nothing but the copy that it was made against.
An import that was broken off is ended by the same import run again. A stream in
a file is read through before anything is written.

Examples:
  vss import /backup/srv.vss --to /srv/web.img
  vss import /backup/srv.vss --to /dev/vdb --record /srv/vdb.held --overwrite
  vss export b5946137-7b9f-4925-af80-51abd60b20d5 | vss import --to /srv/web.img
  vss import /backup/srv.vss --verify-only")]
pub(crate) struct ImportArguments {
    /// The stream [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The image file or the device to apply it to
    #[arg(long, value_name = "IMAGE|DEVICE", required_unless_present = "verify_only")]
    pub(crate) to: Option<PathBuf>,
    /// Where it is remembered what the image or device holds; needed for a device [default: IMAGE.vss-stream]
    #[arg(long, value_name = "FILE", conflicts_with = "verify_only")]
    pub(crate) record: Option<PathBuf>,
    /// Overwrite whatever the image or device holds
    #[arg(long, conflicts_with = "verify_only")]
    pub(crate) overwrite: bool,
    /// Read the stream to its end and check it; write nothing
    #[arg(long, conflicts_with = "to")]
    pub(crate) verify_only: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Compares two shadow copies of one volume, the earlier with the later one, in any
order; with one ID, the next older copy of the volume by the same provider with
this one. What was written to the live volume since is known with the next copy.

--json prints an object with these keys:
  shadow_id, since_shadow_id, volume, volume_id, volume_size, block_size
  known          false when it is not known what changed; then:
  reason         why, else null
  changed_bytes  the sum of the lengths; null when it is not known
  extents        [offset, length], in bytes, ascending

Example:
  vss diff b5946137-7b9f-4925-af80-51abd60b20d5 --blocks --json

Exit status: 0 the answer is printed, 1 it is not known, or failed; 2 wrong usage.")]
pub(crate) struct DiffArguments {
    /// A shadow copy
    #[arg(value_name = "ID")]
    pub(crate) shadow: ShadowId,
    /// Another one of the same volume
    #[arg(value_name = "ID2")]
    pub(crate) other: Option<ShadowId>,
    /// Compare block by block
    #[arg(long, required = true)]
    pub(crate) blocks: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes back every block that differs. The volume must not be mounted, and the
copy must be persistent. What was written since the copy was made is lost; all
shadow copies stay, newer ones too. It cannot be stopped or undone: when it is
broken off, also by a reboot, the service goes on with it at its next start,
unless the volume was used meanwhile, and so does the same command.

Examples:
  umount /srv
  vss revert b5946137-7b9f-4925-af80-51abd60b20d5")]
pub(crate) struct RevertArguments {
    /// The shadow copy that its volume is put back to
    #[arg(value_name = "ID")]
    pub(crate) shadow: ShadowId,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Forget a revert that broke off and cannot be ended; the volume stays as it is, half reverted
    #[arg(long)]
    pub(crate) give_up: bool,
}

//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The socket at which writers register.
const SOCKET: &str = "/run/vss/writer";

/// Holds applications still while shadow copies of their volumes are made.
#[derive(Debug, Parser)]
#[command(name = "vss-writers", version, about, long_about = LONG, after_long_help = EXAMPLES)]
#[command(
    args_conflicts_with_subcommands = false,
    disable_help_subcommand = true,
    subcommand_help_heading = "One writer alone"
)]
pub(crate) struct Arguments {
    /// Socket of the service at which writers register
    #[arg(long, value_name = "PATH", default_value = SOCKET, global = true)]
    pub(crate) socket: PathBuf,

    /// Directory with one *.toml for each script writer
    #[arg(long, value_name = "DIR", default_value = "/etc/vss/writers.d")]
    pub(crate) directory: PathBuf,

    /// Directory of programs that are run with `freeze` and `thaw`; may be given more than once
    #[arg(long, value_name = "DIR", default_value = "/etc/vss/freeze.d")]
    pub(crate) freeze_directory: Vec<PathBuf>,

    /// Where frozen hooks are noted, so that the next start thaws them [default: the socket's directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,

    /// Leave PostgreSQL alone
    #[arg(long)]
    pub(crate) no_postgresql: bool,

    /// Print READY=1 on standard output as soon as every writer is registered or refused, be it for now
    #[arg(long, global = true)]
    pub(crate) notify_ready: bool,

    /// End when standard input ends: for a parent that keeps the other end of a pipe
    #[arg(long, global = true)]
    pub(crate) exit_with_parent: bool,

    /// One writer alone.
    #[command(subcommand)]
    pub(crate) only: Option<Only>,
}

/// A writer that is served alone.
#[derive(Debug, Subcommand)]
pub(crate) enum Only {
    /// The PostgreSQL clusters of the user who runs this
    Postgresql {
        /// Log in as this database user, a superuser [default: the user's own name]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

const LONG: &str =
    "Holds applications still while shadow copies of their volumes are made: PostgreSQL by itself, others by scripts that \
are told each phase as a line, and by freeze and thaw programs such as those of qemu-guest-agent, VMware and Veeam.

Running PostgreSQL clusters are found without any configuration. Root starts one process for each user that owns some; it \
runs as that user and logs in by the unix socket, as `local all postgres peer` in pg_hba.conf allows.

SIGTERM and SIGINT end it: what is frozen is thawed first.";

const EXAMPLES: &str = "Examples:
  vss-writers
      Serve PostgreSQL, the writers of /etc/vss/writers.d and the hooks of /etc/vss/freeze.d
  vss-writers --freeze-directory /etc/qemu/fsfreeze-hook.d \\
      --freeze-directory /etc/vmware-tools/backupScripts.d
      Use the hooks that are there already
  vss-writers postgresql --user backup
      Serve the clusters of the user who types this, logging in as the superuser `backup`
  vss-writers --socket /tmp/t/writer --directory ./writers.d --freeze-directory ./freeze.d
      Try out writers against another instance of the service

Exit status: 0 ended by a signal or with its parent; 1 every writer was refused, or it could not start; 2 wrong usage.";

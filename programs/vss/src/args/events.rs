//! What is typed to hear what the service does.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = EVENTS_HELP)]
pub(crate) struct EventsArguments {
    /// Tell what happens from now on, until the service ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin behind the event with this number; with --follow, 0 begins with all that are remembered
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

const EVENTS_HELP: &str = "\
Root hears everything, others what belongs to their own sessions, copies and
writers. The newest 4096 events are remembered, in memory: as long as the service
runs. A service on demand that does not run is started, and runs as long as it is
followed; so what later commands do is heard too. Who reads slowly misses events,
and is told how many.

--json prints objects with these keys, each only where it belongs:
  seq, at, kind   always: number since the service started, RFC 3339, and
                  service_started service_stopped session_opened session_closed
                  set_begun step writer_event member set_finished set_failed
                  copy_deleted copy_exposed copy_unexposed writer_registered
                  writer_gone provider_trouble progress
  session_id set_id shadow_id uid requester writer provider volume path
  step            of making a set; the writer's event; the provider's phase
  took_us         how long that took, in microseconds
  member          of a volume in the freeze window: level, freeze, commit, thaw
                  (each [from_us, took_us] from the first freeze), answers
  consistency hold_us    of a finished set
  failure         code, number, message, hint
  progress        of copying a volume: volume, shadow_id, work (copying, catching,
                  comparing, reverting), round, bytes_done, bytes_total,
                  copy_rate, dirty_rate (bytes a second), hold_ms, left_ms; of a
                  session only the newest is remembered
  recovery        what the service did at its start
An object {\"kind\": \"lost\", \"lost\": N} stands where N events were missed.

Examples:
  vss events
  vss events --follow --json

Exit status: 0 the service has ended in order, 1 the connection was lost.";

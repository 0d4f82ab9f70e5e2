//! The writer itself: which cluster is asked for what in which event.

use crate::backup_mode::BackupMode;
use crate::cluster::{Cluster, Place, Role};
use crate::connection::{Connection, Login};
use crate::discovery::Sources;
use crate::mending::Mending;
use crate::span::Span;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use vss_api::writer::{ComponentReply, Event, EventReply, Identify, Identity, Register};
use vss_linux::mountinfo::{self, MountEntry};
use vss_model::{
    AppLevel, BackupSchema, Component, ComponentName, Declaration, SessionId, Usage, VssCode, VssError, WriterClassId,
};
use vss_writer::{Answer, Call, Writer, done};

/// The user that owns PostgreSQL's clusters on most systems.
const USUAL_OWNER: &str = "postgres";

/// The clusters of one user as a writer.
///
/// A cluster that fails, fails alone: its components are given up by name, the others go on.
#[derive(Debug)]
pub struct PostgresqlWriter {
    sources: Sources,
    uid: u32,
    owner: String,
    login: Login,
    sessions: BTreeMap<SessionId, Vec<Prepared>>,
}

/// A cluster that is ready for its copy to be cut.
#[derive(Debug)]
struct Prepared {
    cluster: Cluster,
    components: Vec<ComponentName>,
    span: Span,
    /// None: everything is cut at one instant.
    backup_mode: Option<BackupMode>,
}

impl PostgresqlWriter {
    /// A writer for the clusters of the user who runs this process, which logs in as `user` (none: by that user's name).
    ///
    /// # Errors
    /// The system does not know the user; no descriptor is left.
    pub fn new(sources: Sources, user: Option<String>) -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let owner = vss_linux::user::User::by_uid(uid)?.map(|user| user.name.to_string_lossy().into_owned());
        let owner = owner.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("user {uid} has no name")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let login = Login { user: user.unwrap_or_else(|| owner.clone()), runtime: Arc::new(runtime) };
        Ok(Self { sources, uid, owner, login, sessions: BTreeMap::new() })
    }

    /// Gets every cluster ready that the event concerns.
    fn prepare(&self, call: &Call<'_>) -> Result<Outcomes<Prepared>, VssError> {
        let mounts = mountinfo::mounts().map_err(|error| {
            VssError::new(VssCode::WriterErrorRetryable, format!("Cannot read the mounts of this machine: {error}"))
        })?;
        let clusters = self.sources.clusters_of(self.uid);
        let mut wanted = components_by_cluster(call.event());
        let mut outcomes = Vec::new();
        for cluster in clusters {
            if let Some(components) = wanted.remove(&cluster.name) {
                let prepared = self.prepare_one(cluster, components.clone(), &mounts, call);
                outcomes.push((components, prepared));
            }
        }
        // Identify named them, so they were running then.
        outcomes.extend(wanted.into_iter().map(|(name, components)| {
            let message = format!("PostgreSQL cluster {name} is not running any more");
            (components, Err(VssError::new(VssCode::WriterErrorRetryable, message)))
        }));
        Ok(outcomes)
    }

    fn prepare_one(
        &self,
        cluster: Cluster,
        components: Vec<ComponentName>,
        mounts: &[MountEntry],
        call: &Call<'_>,
    ) -> Result<Prepared, VssError> {
        let span = Span::of(&cluster, &call.event().volumes, mounts)?;
        let backup_mode = if span.one_instant {
            // A copy of one instant is what a power failure leaves: the checkpoint makes its recovery short.
            Connection::open(&cluster, &self.login, call)?.execute("write a checkpoint", "CHECKPOINT", call)?;
            None
        } else {
            let set = call.event().set_id.map(|id| id.to_string()).unwrap_or_default();
            Some(BackupMode::start(&cluster, &self.login, &format!("vss {set}"), call)?)
        };
        Ok(Prepared { cluster, components, span, backup_mode })
    }
}

impl Prepared {
    /// Ends backup mode and mends the copy.
    fn finish(self, call: &Call<'_>) -> Result<(), VssError> {
        let Self { cluster, span, backup_mode, .. } = self;
        let Some(backup_mode) = backup_mode else {
            if call.directory(&span.data().volume).is_none() {
                // A copy that cannot be mended needs no mending: it is of one instant.
                return Ok(());
            }
            return Mending::open(&cluster.name, &span, call)?.remove_lock();
        };
        let mending = Mending::open(&cluster.name, &span, call).map_err(|error| {
            error.with_hint(
                "The copy was cut at several instants and needs backup_label in it: put all files of the cluster on one \
                 volume, or use a provider whose copies can be written to",
            )
        })?;
        // Before the end, so that the log reaches as far as it says.
        let control = if backup_mode.on_standby { Some(mending.live_control_file()?) } else { None };
        let stopped = backup_mode.stop(call)?;
        mending.remove_lock()?;
        if let Some(control) = control {
            mending.write_control_file(&control)?;
        }
        mending.write_backup(&stopped)
    }
}

/// What came of each cluster, with its components that the event concerns.
type Outcomes<T> = Vec<(Vec<ComponentName>, Result<T, VssError>)>;

/// The answer, and what succeeded. When nothing did, the writer has failed as a whole and says so in its own words.
fn judge<T>(outcomes: Outcomes<T>) -> (Answer, Vec<T>) {
    let mut first = None;
    let (mut reply, mut succeeded) = (EventReply::default(), Vec::new());
    for (components, outcome) in outcomes {
        match outcome {
            Ok(result) => succeeded.push(result),
            Err(error) => {
                let hint = if error.hint.is_empty() { String::new() } else { format!(". {}", error.hint) };
                reply.components.extend(components.into_iter().map(|name| ComponentReply {
                    code: Some(error.code),
                    message: format!("{}{hint}", error.message),
                    ..ComponentReply::of(name)
                }));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if succeeded.is_empty() => (Err(error), succeeded),
        _ => (Ok(reply), succeeded),
    }
}

impl Writer for PostgresqlWriter {
    fn registration(&self) -> Register {
        let name = if self.owner == USUAL_OWNER {
            "postgresql".to_owned()
        } else {
            // Bounded, since a name has 128 bytes at most.
            format!("postgresql-{}", self.owner.chars().take(24).collect::<String>())
        };
        Register {
            // One for each owner: a class belongs to one user.
            class_id: WriterClassId::of_name("vss-writer-postgresql", &self.owner),
            name,
            instance_name: String::new(),
            usage: Usage::UserData,
            level: AppLevel::BackEnd,
            freeze_timeout_ms: None,
        }
    }

    fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        let mut components = Vec::new();
        for cluster in self.sources.clusters_of(self.uid) {
            // It may end just now; if it still runs, its own failure follows when it is asked to get ready.
            let data = || vec![Place { role: Role::Data, path: cluster.data.clone() }];
            for place in cluster.places().unwrap_or_else(|_| data()) {
                components.push(component(&cluster, place)?);
            }
        }
        // Nothing of a cluster depends on who backed it up when, so a copy is one. What has changed since an earlier backup only
        // a reader of the files can tell safely: servers write behind the writer's back, and whole clusters are replaced.
        let declaration = Declaration { backup_schema: BackupSchema::COPY, ..Declaration::default() };
        Ok(Identity { declaration, components, ..Identity::default() })
    }

    fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer {
        self.sessions.remove(&call.event().session_id);
        let (answer, prepared) = judge(self.prepare(call)?);
        self.sessions.insert(call.event().session_id, prepared);
        answer
    }

    fn freeze(&mut self, _: &Call<'_>) -> Answer {
        // Either the cut is one instant, or backup mode lets writes go on.
        done()
    }

    fn thaw(&mut self, _: &Call<'_>) -> Answer {
        done()
    }

    fn post_snapshot(&mut self, call: &Call<'_>) -> Answer {
        let prepared = self.sessions.remove(&call.event().session_id).unwrap_or_default();
        let finished = prepared.into_iter().map(|prepared| (prepared.components.clone(), prepared.finish(call)));
        judge(finished.collect()).0
    }

    fn abort(&mut self, call: &Call<'_>) -> Answer {
        self.sessions.remove(&call.event().session_id);
        done()
    }

    fn backup_shutdown(&mut self, call: &Call<'_>) -> Answer {
        self.sessions.remove(&call.event().session_id);
        done()
    }
}

/// The component of a directory: the data directory stands for its cluster, and the others go with it.
///
/// # Errors
/// A path that the service would refuse.
fn component(cluster: &Cluster, place: Place) -> Result<Component, VssError> {
    let is_cluster = place.role == Role::Data;
    let (logical_path, name) = match place.role {
        Role::Data => (String::new(), cluster.name.clone()),
        role => (cluster.name.clone(), role.to_string()),
    };
    let claim = Component::database(name).logical_path(logical_path).files_below(place.path);
    if is_cluster { claim } else { claim.not_selectable() }.build()
}

/// The components of an event by the name of their cluster.
fn components_by_cluster(event: &Event) -> BTreeMap<String, Vec<ComponentName>> {
    let mut clusters: BTreeMap<String, Vec<ComponentName>> = BTreeMap::new();
    for component in &event.components {
        let name = &component.name;
        let cluster = if name.logical_path.is_empty() { &name.name } else { &name.logical_path };
        clusters.entry(cluster.clone()).or_default().push(name.clone());
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Vec<ComponentName> {
        vec![ComponentName { logical_path: String::new(), name: name.into() }]
    }

    fn failure(text: &str) -> VssError {
        VssError::new(VssCode::WriterErrorRetryable, text).with_hint("Wait")
    }

    #[test]
    fn a_cluster_fails_alone_and_the_last_one_in_its_own_words() {
        let (answer, rest) = judge(vec![(name("a"), Ok(1)), (name("b"), Err(failure("b is full")))]);
        let reply = answer.unwrap();
        assert_eq!(rest, [1]);
        assert_eq!((reply.components[0].name.name.as_str(), reply.components.len()), ("b", 1));
        assert_eq!(reply.components[0].message, "b is full. Wait");
        assert!(reply.failure().is_none(), "a reply of the whole writer would fail the others too");

        let (answer, rest) = judge::<()>(vec![(name("b"), Err(failure("b is full")))]);
        assert_eq!((answer.unwrap_err().message.as_str(), rest.len()), ("b is full", 0));
        assert_eq!(judge::<()>(Vec::new()).0.unwrap(), EventReply::default());
    }
}

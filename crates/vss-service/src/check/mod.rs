//! `Check`: what a set of some paths would be, if it were made now (design 8).
//!
//! Everything is asked by the functions of creation, up to where creation would begin to make something: no session is
//! opened, no lock taken, no file written, and a writer hears Identify alone. What was found is judged in [`judgement`].

pub mod judgement;

use crate::config::Config;
use crate::creation_lock;
use crate::environment::Environment;
use crate::providers::{by_contract, targets};
use crate::writers::{self, RegisteredWriter};
use crate::{blocking, jobs, volumes};
use judgement::{Found, FoundVolume, FoundWriter};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use vss_api::management::{Check, CheckedPath, MissingVolume, SetForecast};
use vss_api::requester::VolumeQuestion;
use vss_model::{
    Attributes, Context, CreationOptions, FreezePolicy, SessionId, SetId, Volume, VolumeId, VssCode, VssError, limits,
    named_writers,
};
use vss_session::{Event, Member, State};

/// One check: what was asked, and what only the coordinator knows.
pub struct Survey {
    /// What every part of the service shares.
    pub environment: Arc<Environment>,
    /// What was asked.
    pub question: Check,
    /// The writers to ask, each with its limit from Freeze to Thaw.
    pub writers: Vec<(Arc<RegisteredWriter>, Duration)>,
    /// What stands in the way, as far as the coordinator knows.
    pub obstacles: Vec<VssError>,
    /// The machine-wide lock file.
    pub creation_lock: PathBuf,
    /// Where an instance of its own has its settings.
    pub state_directory: PathBuf,
}

/// Is this a question that can be answered?
///
/// # Errors
/// `E_INVALIDARG`.
pub fn check_question(question: &Check) -> Result<(), VssError> {
    let wrong = |message: String| Err(VssError::new(VssCode::InvalidArgument, message));
    let count = question.paths.len();
    if !(1..=limits::CHECKED_PATHS).contains(&count) {
        return wrong(format!("A check takes 1 to {} paths, not {count}", limits::CHECKED_PATHS));
    }
    if let Some(path) = question.paths.iter().find(|path| path.as_os_str().len() > limits::PATH_BYTES) {
        return wrong(format!("A path has at most {} bytes, not {}", limits::PATH_BYTES, path.as_os_str().len()));
    }
    if question.writers.len() > limits::WRITERS {
        return wrong(format!("{} writers are named; there can be {}", question.writers.len(), limits::WRITERS));
    }
    if question.no_writers && !question.writers.is_empty() {
        return wrong("A check takes writers or no_writers, not both".to_owned());
    }
    if question.context == Context::All {
        return wrong("In the context all no set is made".to_owned());
    }
    question.options.check()
}

/// The writers that would be asked, of those that are registered, and what a requester would be told of a name that nobody
/// has.
#[must_use]
pub fn choose_writers(
    question: &Check,
    registered: &[Arc<RegisteredWriter>],
) -> (Vec<Arc<RegisteredWriter>>, Option<VssError>) {
    if question.no_writers {
        return (Vec::new(), None);
    }
    if question.writers.is_empty() {
        return (registered.to_vec(), None);
    }
    let by_name = registered.iter().map(|writer| (writer.register.name.as_str(), writer.register.class_id));
    let (classes, unknown) = named_writers::classes_of(&question.writers, by_name);
    let chosen = registered.iter().filter(|writer| classes.contains(&writer.register.class_id)).cloned().collect();
    (chosen, unknown)
}

impl Survey {
    /// Asks, and judges what was found.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read. What is wrong with a path, a volume or a writer is part of the
    /// answer.
    pub async fn run(self) -> Result<SetForecast, VssError> {
        let Self { environment, question, writers, obstacles, creation_lock, state_directory } = self;
        let mut found = Found { obstacles, ..Found::default() };
        if !question.no_writers {
            found.obstacles.extend(environment.inbox_writers.check().err());
        }
        let asked = writers::identify(SessionId::random(), writers);
        let (located, asked) = tokio::join!(locate(&environment, &question), asked);
        (found.paths, found.volumes) = located?;
        found.writers = asked
            .into_iter()
            .map(|asked| FoundWriter {
                name: asked.writer.register.name.clone(),
                instance_name: asked.writer.register.instance_name.clone(),
                class_id: asked.writer.register.class_id,
                instance_id: asked.writer.instance_id,
                metadata: asked.metadata,
            })
            .collect();
        found.obstacles.extend(silent(&question.writers, &found.writers));
        blocking::run("Examining the volumes", limits::PROVIDER_IN_WINDOW, move || {
            found.mounts = volumes::mount_table()?;
            found.local = local_volumes(&environment)?;
            found.obstacles.extend(question.options.storage.as_deref().and_then(|at| volumes::check_storage(at).err()));
            found.obstacles.extend(hold_obstacle(&environment, &found.volumes));
            found.warnings.extend(creation_lock::held(&creation_lock));
            found.warnings.extend(Config::load(&state_directory).err().map(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                VssError::new(VssCode::InvalidArgument, format!("The settings cannot be used any more: {error}{cause}"))
                    .with_hint("The running service has the earlier ones; mend the file before its next start")
            }));
            Ok(judgement::judge(&found))
        })
        .await
    }
}

/// Finds the volume of each path, one after another, as they would be added, and asks the provider of each volume: of several
/// at a time ([`limits::FORECASTS`]), because that may take a moment of measuring.
async fn locate(
    environment: &Arc<Environment>,
    question: &Check,
) -> Result<(Vec<CheckedPath>, Vec<FoundVolume>), VssError> {
    let mut set = NobodysSet::begin(question.context)?;
    let began = tokio::time::Instant::now();
    let mut paths: Vec<CheckedPath> = Vec::new();
    let (mut known, mut asked): (Vec<VolumeId>, JoinSet<(usize, FoundVolume)>) = (Vec::new(), JoinSet::new());
    for path in &question.paths {
        if began.elapsed() > limits::CHECK {
            paths.push(CheckedPath { path: path.clone(), volume_id: None, failure: Some(not_looked_at()) });
            continue;
        }
        let wanted = VolumeQuestion { volume: path.clone(), provider: question.provider.clone() };
        let admitted = jobs::find_volume(Arc::clone(environment), wanted, question.context, Attributes::empty())
            .await
            .and_then(|candidate| {
                let is_known = known.contains(&candidate.volume.id);
                if !is_known {
                    set.add(&candidate)?;
                }
                Ok((candidate, is_known))
            });
        let (volume_id, failure) = match admitted {
            Ok((candidate, is_known)) => {
                let id = candidate.volume.id.clone();
                if !is_known {
                    let (place, environment) = (known.len(), Arc::clone(environment));
                    let options = question.options.clone();
                    known.push(id.clone());
                    asked.spawn(async move { (place, examine(&environment, candidate, options).await) });
                }
                (Some(id), None)
            }
            Err(failure) => (None, Some(failure)),
        };
        paths.push(CheckedPath { path: path.clone(), volume_id, failure });
    }
    let mut found = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (place, volume) = answer.map_err(|error| {
            VssError::new(VssCode::Unexpected, format!("The examination of a volume broke off: {error}"))
        })?;
        found.insert(place, volume);
    }
    Ok((paths, found.into_values().collect()))
}

fn not_looked_at() -> VssError {
    let message = format!("It was not looked at: others took more than {:?}", limits::CHECK);
    VssError::new(VssCode::Unexpected, message).with_hint("Ask for it alone")
}

async fn examine(environment: &Environment, candidate: jobs::Candidate, options: CreationOptions) -> FoundVolume {
    let jobs::Candidate { volume, provider, .. } = candidate;
    let properties = provider.properties();
    let (name, asked) = (properties.name.clone(), volume.clone());
    let work = move || provider.forecast(&asked, &options).map_err(|error| by_contract(&name, error));
    let what = format!("Provider {} in forecast", properties.name);
    // Given back with a thread that is left to itself: dead storage must not keep the checks of others for ever.
    let turn = environment.forecasts.acquire().await;
    let forecast = blocking::run(&what, limits::PROVIDER_IN_WINDOW, work).await;
    drop(turn);
    let shadows = environment.catalogue.copies_of(&volume.id) as u64;
    FoundVolume { volume, provider: properties.name, freeze_policy: properties.freeze_policy, shadows, forecast }
}

/// A session machine that nobody else sees: whether a volume may join a set is its word in creation, too.
struct NobodysSet(State);

impl NobodysSet {
    fn begin(context: Context) -> Result<Self, VssError> {
        let mut state = State::default();
        state.apply(Event::InitializeForBackup)?;
        state.apply(Event::SetContext(context, Attributes::empty()))?;
        state.apply(Event::StartSnapshotSet(SetId::random()))?;
        Ok(Self(state))
    }

    fn add(&mut self, candidate: &jobs::Candidate) -> Result<(), VssError> {
        let event = Event::AddToSnapshotSet(Member {
            shadow_id: candidate.shadow_id,
            volume: candidate.volume.id.clone(),
            provider: candidate.provider.properties().id,
        });
        self.0.apply(event).map(drop)
    }
}

/// What a requester would be told when a writer that it named did not answer. One that is not registered is told of already.
fn silent(names: &[String], writers: &[FoundWriter]) -> Option<VssError> {
    let is_asked = |name: &&String| writers.iter().any(|writer| writer.name == **name);
    let answered = writers.iter().filter(|writer| writer.metadata.is_ok()).map(|writer| writer.name.as_str());
    named_writers::silent(names.iter().filter(is_asked), answered)
}

/// Why the volumes cannot be held together, by the function that creation asks.
fn hold_obstacle(environment: &Environment, volumes: &[FoundVolume]) -> Option<VssError> {
    let (held, others): (Vec<&FoundVolume>, Vec<&FoundVolume>) =
        volumes.iter().partition(|one| one.freeze_policy == FreezePolicy::NeedsHold);
    if held.is_empty() {
        return None;
    }
    let of = |found: Vec<&FoundVolume>| found.into_iter().map(|one| one.volume.clone()).collect::<Vec<_>>();
    let judge = || {
        let provider_of = |one: &FoundVolume| environment.providers.named(&one.provider).cloned();
        let members = volumes.iter().map(|one| Ok((provider_of(one)?, one.volume.clone())));
        let targets = targets(&members.collect::<Result<Vec<_>, VssError>>()?)?;
        environment.holds.judge(&of(held), &of(others), &targets)
    };
    judge().err()
}

/// Every local volume of the machine, as one that might be missing.
fn local_volumes(environment: &Environment) -> Result<Vec<MissingVolume>, VssError> {
    let named = |volume: Volume| {
        let (provider, reason) = match environment.providers.first_for(&volume) {
            Ok(provider) => (Some(provider.properties().name), String::new()),
            Err(reason) => (None, reason),
        };
        MissingVolume { volume: volume.mount_point, volume_id: volume.id, provider, reason }
    };
    Ok(volumes::list()?.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writers::WriterPort;
    use crate::writers::port::PortFuture;
    use serde_json::{Value, json};
    use std::os::fd::OwnedFd;
    use vss_api::writer::{Event, EventKind, EventReply, Identify, Identity};
    use vss_model::{ShadowId, WriterClassId, WriterInstanceId};
    use vss_provider::Provider;
    use vss_provider::fake::{FakeOptions, FakeProvider};

    fn question(question: Value) -> Check {
        serde_json::from_value(question).unwrap()
    }

    /// Nobody calls it here.
    struct NoPort;

    impl WriterPort for NoPort {
        fn identify(&self, _question: Identify) -> PortFuture<Identity> {
            Box::pin(std::future::pending())
        }

        fn event(&self, _kind: EventKind, _event: Event, _directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
            Box::pin(std::future::pending())
        }

        fn close(&self) {}
    }

    #[test]
    fn a_question_is_bounded_before_anything_is_asked() {
        let paths = |count: usize| vec!["/srv"; count];
        let accepted = |asked| check_question(&question(asked)).is_ok();
        assert!(accepted(json!({"paths": paths(1)})) && accepted(json!({"paths": paths(limits::CHECKED_PATHS)})));
        assert!(accepted(json!({"paths": ["/".repeat(limits::PATH_BYTES)]})));
        for wrong in [
            json!({"paths": []}),
            json!({"paths": paths(limits::CHECKED_PATHS + 1)}),
            json!({"paths": ["/".repeat(limits::PATH_BYTES + 1)]}),
            json!({"paths": ["/"], "no_writers": true, "writers": ["db"]}),
            json!({"paths": ["/"], "writers": vec!["db"; limits::WRITERS + 1]}),
            json!({"paths": ["/"], "context": "all"}),
            json!({"paths": ["/"], "options": {"max_rate": 50}}),
            json!({"paths": ["/"], "options": {"storage": "images"}}),
        ] {
            let error = check_question(&question(wrong)).unwrap_err();
            assert_eq!(error.code, VssCode::InvalidArgument);
            assert!(error.message.len() < 200, "{error}");
        }
    }

    #[test]
    fn names_choose_classes_as_a_session_does() {
        let writer = |name: &str, class: u128| {
            let register = json!({"class_id": WriterClassId::from_u128(class), "name": name});
            Arc::new(RegisteredWriter {
                instance_id: WriterInstanceId::random(),
                register: serde_json::from_value(register).unwrap(),
                uid: 1,
                pid: 1,
                port: Arc::new(NoPort),
            })
        };
        let registered = [writer("pg", 1), writer("pg 2", 1), writer("redis", 2), writer("hook", 3)];
        let chosen = |asked: Value| {
            let (chosen, unknown) = choose_writers(&question(asked), &registered);
            let names: Vec<String> = chosen.iter().map(|writer| writer.register.name.clone()).collect();
            (names, unknown.map(|error| error.message))
        };
        assert_eq!(chosen(json!({"paths": []})).0.len(), 4);
        assert!(chosen(json!({"paths": [], "no_writers": true})).0.is_empty());
        assert_eq!(chosen(json!({"paths": [], "writers": ["pg"]})).0, ["pg", "pg 2"]);
        let (names, unknown) = chosen(json!({"paths": [], "writers": ["redis", "oracle"]}));
        assert_eq!(names, ["redis"]);
        assert!(unknown.unwrap().contains("\"oracle\""));
    }

    #[test]
    fn the_set_that_nobody_sees_is_as_full_as_a_real_one() {
        let provider: Arc<dyn Provider> = Arc::new(FakeProvider::new(FakeOptions::default()));
        let volume = crate::volumes::resolve(std::path::Path::new("/proc")).unwrap().volume;
        let candidate = |number: usize| jobs::Candidate {
            shadow_id: ShadowId::random(),
            inner: PathBuf::new(),
            volume: Volume { id: VolumeId::file_system("x", &number.to_string()), ..volume.clone() },
            provider: Arc::clone(&provider),
        };
        assert_eq!(NobodysSet::begin(Context::All).err().map(|error| error.code), Some(VssCode::UnsupportedContext));
        let mut set = NobodysSet::begin(Context::ClientAccessible).unwrap();
        for number in 0..limits::VOLUMES_PER_SET {
            set.add(&candidate(number)).unwrap();
        }
        let full = set.add(&candidate(limits::VOLUMES_PER_SET)).unwrap_err();
        assert_eq!(full.code, VssCode::MaximumNumberOfVolumesReached);
    }

    #[test]
    fn only_a_named_writer_that_is_silent_stands_in_the_way() {
        let writer = |name: &str, answers: bool| {
            let metadata = json!({"class_id": WriterClassId::random(), "instance_id": WriterInstanceId::random(),
                "name": name});
            let metadata = serde_json::from_value(metadata).unwrap();
            FoundWriter {
                name: name.to_owned(),
                instance_name: String::new(),
                class_id: WriterClassId::random(),
                instance_id: WriterInstanceId::random(),
                metadata: if answers { Ok(metadata) } else { Err(VssError::new(VssCode::WriterNotResponding, "late")) },
            }
        };
        let writers = [writer("pg", true), writer("pg", false), writer("redis", false)];
        let silent = |names: &[&str]| silent(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), &writers);
        assert!(silent(&[]).is_none() && silent(&["pg", "oracle"]).is_none());
        assert!(silent(&["pg", "redis"]).unwrap().message.contains("redis"));
    }
}

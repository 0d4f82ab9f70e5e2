//! Shadow storage over a provider that keeps something: chosen, removed, tended now and every hour.

use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vss_api::management::RemoveStorage;
use vss_model::*;
use vss_provider::fake::{FakeCopying, FakeOptions, FakeProvider};
use vss_provider::progress::Unwatched;
use vss_provider::{MountedTree, PrepareRequest, Provider};
use vss_service::catalogue::Catalogue;
use vss_service::environment::{Environment, HoldMaker, Staging};
use vss_service::exposure::Exposures;
use vss_service::freeze_window::Hold;
use vss_service::inbox_writers::InboxWriters;
use vss_service::providers::{Providers, Target};
use vss_service::storage;

/// Nobody is held here.
struct NoHolds;

impl HoldMaker for NoHolds {
    fn judge(&self, _: &[Volume], _: &[Volume], _: &[Target]) -> Result<(), VssError> {
        Ok(())
    }

    fn prepare(&self, _: SetId, _: &[Volume], _: &[Volume], _: &[Target]) -> Result<Box<dyn Hold>, VssError> {
        Err(VssError::new(VssCode::Unexpected, "nobody asks"))
    }
}

/// Nobody is shown a copy here.
struct NoStaging;

impl Staging for NoStaging {
    fn stage(&self, _: ShadowId, _: Vec<MountedTree>) -> Result<std::os::fd::OwnedFd, VssError> {
        Err(VssError::new(VssCode::Unexpected, "nobody asks"))
    }

    fn unstage(&self, _: ShadowId) -> Result<(), VssError> {
        Ok(())
    }
}

/// A service's parts over a fake provider that has copied the volumes at these places, and keeps storage for so long.
fn environment(directory: &TempDir, places: &[&str], keep: Duration) -> Arc<Environment> {
    let place = directory.path().join("images");
    let copying = FakeCopying { bytes: 1 << 30, time: Duration::ZERO, place, keep };
    let provider = FakeProvider::new(FakeOptions { copying: Some(copying), ..FakeOptions::default() });
    let set_id = SetId::random();
    for place in places {
        let volume = Volume {
            id: VolumeId::file_system("ext4", place),
            mount_point: place.into(),
            ..vss_service::volumes::resolve("/proc".as_ref()).unwrap().volume
        };
        let options = CreationOptions::default();
        let shadow_id = ShadowId::random();
        provider
            .begin_prepare(&PrepareRequest { set_id, shadow_id, volume, context: Context::Backup, options })
            .unwrap();
    }
    provider.end_prepare(set_id, &Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    provider.commit(set_id).unwrap();
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    provider.post_final_commit(set_id).unwrap();
    Arc::new(Environment {
        catalogue: Catalogue::open(directory.path()).unwrap(),
        // One that keeps nothing is passed over.
        providers: Providers::new(vec![Arc::new(FakeProvider::new(FakeOptions::default())), Arc::new(provider)]),
        exposures: Arc::new(Exposures::new(directory.path()).unwrap()),
        holds: Arc::new(NoHolds),
        staging: Arc::new(NoStaging),
        changes: tokio::sync::Mutex::new(()),
        forecasts: tokio::sync::Semaphore::new(limits::FORECASTS),
        events: Arc::default(),
        inbox_writers: InboxWriters::default(),
        boot_id: "this boot".to_owned(),
    })
}

fn kept(environment: &Environment) -> Vec<String> {
    let entries = storage::list(environment).unwrap();
    entries.iter().map(|entry| entry.storage.volume.display().to_string()).collect()
}

#[test]
fn exactly_what_is_chosen_is_removed() {
    let directory = TempDir::new().unwrap();
    let environment = environment(&directory, &["/gone/a", "/gone/b", "/gone/c"], Duration::MAX);
    let code = |wanted: RemoveStorage| storage::remove(&environment, &wanted).unwrap_err().code;
    let nothing = RemoveStorage::default;
    assert_eq!(code(nothing()), VssCode::InvalidArgument);
    assert_eq!(
        code(RemoveStorage { all: true, volume: Some("/gone/a".into()), ..nothing() }),
        VssCode::InvalidArgument
    );
    assert_eq!(code(RemoveStorage { volume: Some("gone/a".into()), ..nothing() }), VssCode::InvalidArgument);
    assert_eq!(code(RemoveStorage { volume: Some("/gone".into()), ..nothing() }), VssCode::ObjectNotFound);
    let unknown = VolumeId::file_system("ext4", "x");
    assert_eq!(code(RemoveStorage { volume_id: Some(unknown), ..nothing() }), VssCode::ObjectNotFound);
    assert_eq!(kept(&environment), ["/gone/a", "/gone/b", "/gone/c"]);

    // Where it was mounted; by its lasting name; all that are left.
    let removed = |wanted: RemoveStorage| storage::remove(&environment, &wanted).unwrap().len();
    assert_eq!(removed(RemoveStorage { volume: Some("/gone/a".into()), ..nothing() }), 1);
    let id = VolumeId::file_system("ext4", "/gone/c");
    assert_eq!(removed(RemoveStorage { volume_id: Some(id), ..nothing() }), 1);
    assert_eq!(kept(&environment), ["/gone/b"]);
    assert_eq!(removed(RemoveStorage { all: true, ..nothing() }), 1);
    assert_eq!(removed(RemoveStorage { all: true, ..nothing() }), 0, "nothing to remove is no error");
}

#[tokio::test]
async fn what_is_old_goes_at_the_start_and_the_end_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let environment = environment(&directory, &["/gone/a"], Duration::ZERO);
    let stop = CancellationToken::new();
    let tending = tokio::spawn(storage::tend(Arc::clone(&environment), stop.clone()));
    let gone = async {
        while !kept(&environment).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is not tended");
    assert!(!tending.is_finished(), "the next round is in an hour");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), tending).await.expect("it does not end").unwrap();
}

#[tokio::test]
async fn what_is_young_stays() {
    let directory = TempDir::new().unwrap();
    let environment = environment(&directory, &["/gone/a"], Duration::from_secs(3600));
    let stop = CancellationToken::new();
    let tending = tokio::spawn(storage::tend(Arc::clone(&environment), stop.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    tending.await.unwrap();
    assert_eq!(kept(&environment), ["/gone/a"]);
}

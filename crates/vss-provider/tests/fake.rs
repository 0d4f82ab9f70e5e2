//! The fake keeps the contract too: what it fails on purpose is then the only thing that fails.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use vss_model::{Context, FreezePolicy, SetId, ShadowId, Volume, VolumeId, VssCode};
use vss_provider::{
    PrepareRequest, Provider,
    conformance::{Subject, assert_conforms},
    fake::{FakeCopying, FakeOptions, FakeProvider, Phase},
};

/// Two directories of the machine's own file system: the fake does not care.
struct FakeSubject {
    place: PathBuf,
    writable_phase: bool,
    /// How long it makes believe to copy a volume; none: not at all.
    copies_for: Option<Duration>,
}

impl FakeSubject {
    fn new(writable_phase: bool, copies_for: Option<Duration>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("vss-fake-{}-{number}", std::process::id()));
        for directory in ["store", "one", "two"] {
            std::fs::create_dir_all(place.join(directory)).unwrap();
        }
        Self { place, writable_phase, copies_for }
    }

    fn options(&self) -> FakeOptions {
        FakeOptions {
            store: Some(self.place.join("store")),
            writable_phase: self.writable_phase,
            copying: self.copies_for.map(|time| FakeCopying {
                bytes: 1 << 30,
                time,
                place: self.place.join("images"),
                keep: Duration::MAX,
            }),
            ..FakeOptions::default()
        }
    }
}

impl Drop for FakeSubject {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

impl Subject for FakeSubject {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(FakeProvider::new(self.options()))
    }

    fn volumes(&self) -> Vec<Volume> {
        ["one", "two"].map(|name| volume(self.place.join(name))).into()
    }

    fn leftovers(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(self.place.join("store"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn keeps_content(&self) -> bool {
        false
    }
}

fn volume(mount_point: PathBuf) -> Volume {
    Volume {
        id: VolumeId::file_system("ext4", &mount_point.to_string_lossy()),
        mount_point,
        fs_type: "ext4".to_owned(),
        source: "/dev/none".to_owned(),
        uuid: "00000000-0000-0000-0000-000000000000".to_owned(),
        subvolume: None,
        root: "/".into(),
        device_number: 0,
        mount_id: 0,
    }
}

fn request(set_id: SetId) -> PrepareRequest {
    PrepareRequest {
        set_id,
        shadow_id: ShadowId::random(),
        volume: volume("/".into()),
        context: Context::Backup,
        options: vss_model::CreationOptions::default(),
    }
}

#[test]
fn the_fake_conforms() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: the_fake_conforms: needs root for open_tree");
        return;
    }
    assert_conforms(&FakeSubject::new(true, None));
    assert_conforms(&FakeSubject::new(false, None));
    // Long enough for abort to come while it copies.
    assert_conforms(&FakeSubject::new(true, Some(Duration::from_millis(40))));
}

#[test]
fn it_fails_where_it_is_told_to_and_records_the_calls() {
    let subject = FakeSubject::new(true, None);
    let provider = FakeProvider::new(FakeOptions {
        fail: Some((Phase::Commit, VssCode::ProviderVeto)),
        hang: Some((Phase::PreCommit, Duration::from_millis(50))),
        freeze_policy: FreezePolicy::MustNotHold,
        ..subject.options()
    });
    let set_id = SetId::random();
    provider.begin_prepare(&request(set_id)).unwrap();
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    assert_eq!(subject.leftovers().unwrap().len(), 1);
    let started = Instant::now();
    provider.pre_commit(set_id).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(50));
    let error = provider.commit(set_id).unwrap_err();
    assert_eq!(error.code, VssCode::ProviderVeto);
    provider.abort(set_id).unwrap();
    assert!(subject.leftovers().unwrap().is_empty());
    let phases = [Phase::BeginPrepare, Phase::EndPrepare, Phase::PreCommit, Phase::Commit, Phase::Abort];
    assert_eq!(provider.calls(), phases.map(|phase| (phase, set_id)));
}

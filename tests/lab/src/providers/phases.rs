//! The phases of a set, called as the service calls them, with a hold around the cut.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vss_linux::{freeze, fs_uuid, mount, mountinfo};
use vss_model::{Context, CreationOptions, SetId, ShadowId, Volume, VolumeId};
use vss_provider::progress::Unwatched;
use vss_provider::{CommittedCopy, MountedTree, PrepareRequest, Provider, StoredCopy};

/// Whatever a test does in a hold, nothing is frozen for longer.
const HOLD: Duration = Duration::from_secs(10);

/// The volume that is mounted at `mount_point`, of a file system that is one volume.
///
/// # Panics
/// Nothing is mounted there, or its device cannot be read.
#[must_use]
#[track_caller]
pub fn volume(mount_point: &Path) -> Volume {
    let mounts = mountinfo::mounts().expect("the mount table");
    let entry = mounts.iter().rev().find(|entry| entry.mount_point == mount_point).expect("a mount");
    let uuid = fs_uuid::of_device(Path::new(&entry.source), &entry.fs_type).expect("a device that can be read");
    let uuid = uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
    Volume {
        id: VolumeId::file_system(&entry.fs_type, &uuid),
        mount_point: mount_point.to_owned(),
        fs_type: entry.fs_type.clone(),
        source: entry.source.clone(),
        uuid,
        subvolume: None,
        root: "/".into(),
        device_number: entry.device_number(),
        mount_id: entry.mount_id,
    }
}

/// A request for a copy of this volume, in a set of its own.
#[must_use]
pub fn request(volume: &Volume) -> PrepareRequest {
    PrepareRequest {
        set_id: SetId::random(),
        shadow_id: ShadowId::random(),
        volume: volume.clone(),
        context: Context::AppRollback,
        options: CreationOptions::default(),
    }
}

/// BeginPrepare of a new set over `volumes`.
///
/// # Panics
/// The provider refuses.
#[track_caller]
pub fn begin(provider: &dyn Provider, volumes: &[Volume]) -> (SetId, Vec<StoredCopy>) {
    begin_with(provider, volumes, &CreationOptions::default())
}

/// As [`begin`], made as wished.
///
/// # Panics
/// The provider refuses.
#[track_caller]
pub fn begin_with(provider: &dyn Provider, volumes: &[Volume], options: &CreationOptions) -> (SetId, Vec<StoredCopy>) {
    let set_id = SetId::random();
    let prepare = |volume: &Volume| {
        let request = PrepareRequest { set_id, options: options.clone(), ..request(volume) };
        provider.begin_prepare(&request).unwrap_or_else(|error| panic!("begin_prepare: {error}"))
    };
    (set_id, volumes.iter().map(prepare).collect())
}

/// Calls `act` while the volumes are flushed and frozen, at most 10 s.
///
/// # Panics
/// A volume cannot be flushed, frozen or thawed.
#[track_caller]
pub fn held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> T {
    try_held(volumes, act).expect("volumes that can be held")
}

/// As [`held`], of volumes that may refuse to be flushed or frozen.
///
/// # Errors
/// The first refusal.
///
/// # Panics
/// A volume cannot be opened or thawed.
#[track_caller]
pub fn try_held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> io::Result<T> {
    let open = || {
        let opened = volumes.iter().map(|volume| File::open(&volume.mount_point));
        opened.collect::<io::Result<Vec<_>>>().expect("mount points that can be opened")
    };
    let (directories, late) = (open(), open());
    let (over, is_over) = mpsc::channel::<()>();
    let timer = thread::spawn(move || {
        if is_over.recv_timeout(HOLD) == Err(mpsc::RecvTimeoutError::Timeout) {
            for directory in &late {
                let _ = freeze::thaw(directory);
            }
        }
    });
    let frozen = directories.iter().try_for_each(|directory| {
        freeze::sync(directory)?;
        freeze::freeze(directory).map_err(|error| io::Error::from(error.errno()))
    });
    let result = frozen.map(|()| act());
    for directory in &directories {
        freeze::thaw(directory).expect("a volume that can be thawed");
    }
    drop(over);
    timer.join().expect("a timer does not panic");
    result
}

/// The phases up to Commit, in the hold.
///
/// # Panics
/// A phase fails.
#[track_caller]
pub fn cut(provider: &dyn Provider, set_id: SetId, volumes: &[Volume]) {
    provider.end_prepare(set_id, &Unwatched).expect("end_prepare");
    provider.pre_commit(set_id).expect("pre_commit");
    held(volumes, || provider.commit(set_id)).expect("commit");
}

/// The phases after Commit.
///
/// # Panics
/// A phase fails.
#[track_caller]
pub fn finish(provider: &dyn Provider, set_id: SetId) -> Vec<CommittedCopy> {
    let committed = provider.post_commit(set_id).expect("post_commit");
    provider.pre_final_commit(set_id).expect("pre_final_commit");
    provider.post_final_commit(set_id).expect("post_final_commit");
    committed
}

/// A finished set over `volumes`.
///
/// # Panics
/// A phase fails.
#[track_caller]
pub fn create(provider: &dyn Provider, volumes: &[Volume]) -> Vec<StoredCopy> {
    create_with(provider, volumes, &CreationOptions::default())
}

/// As [`create`], made as wished.
///
/// # Panics
/// A phase fails.
#[track_caller]
pub fn create_with(provider: &dyn Provider, volumes: &[Volume], options: &CreationOptions) -> Vec<StoredCopy> {
    let (set_id, copies) = begin_with(provider, volumes, options);
    cut(provider, set_id, volumes);
    finish(provider, set_id);
    copies
}

/// Mounts the trees of a copy at `place`, runs `look` there and unmounts them.
///
/// # Panics
/// They cannot be mounted.
#[track_caller]
pub fn shown<T>(trees: &[MountedTree], place: &Path, look: impl FnOnce(&Path) -> T) -> T {
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            // With everything that is mounted below.
            let _ = mount::unmount_detached(self.0);
        }
    }
    fs::create_dir_all(place).expect("a place to mount at");
    let (root, below) = trees.split_first().expect("a copy has a tree");
    mount::attach_at(&root.mount, place).expect("a tree that can be mounted");
    let mounted = Mounted(place);
    for tree in below {
        mount::attach_at(&tree.mount, &place.join(&tree.path)).expect("a tree that can be mounted");
    }
    look(mounted.0)
}

//! Which volume holds a path, on real file systems mounted in every way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use vss_model::{VssCode, involvement};
use vss_service::volumes::{Located, list, mount_table, resolve};
use vss_tests::loopfs::{Kind, LoopFs};

/// A mount of the test's own, undone when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Self {
        fs::create_dir_all(to).unwrap();
        mount_bind(from, to).unwrap();
        Self(to.to_owned())
    }

    fn new(source: &Path, to: &Path, kind: &str, options: &std::ffi::CStr) -> Self {
        fs::create_dir_all(to).unwrap();
        mount(source, to, kind, MountFlags::empty(), Some(options)).unwrap();
        Self(to.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn inner(located: &Located) -> &str {
    located.inner.to_str().unwrap()
}

fn uuid_by_blkid(device: &Path) -> String {
    let output = Command::new("blkid").args(["-p", "-s", "UUID", "-o", "value"]).arg(device).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_superblock_is_one_volume_wherever_it_is_mounted() {
    if let Some(missing) = LoopFs::missing(&[Kind::Ext4, Kind::Xfs]) {
        println!("SKIPPED: a_superblock_is_one_volume_wherever_it_is_mounted: {missing}");
        return;
    }
    let beside = tempfile::tempdir().unwrap();
    for (kind, size_mib) in [(Kind::Ext4, 16), (Kind::Xfs, 320)] {
        let loop_fs = LoopFs::new(kind, size_mib).unwrap();
        fs::create_dir_all(loop_fs.path().join("dir/sub")).unwrap();
        fs::write(loop_fs.path().join("dir/sub/file"), "x").unwrap();

        let located = resolve(&loop_fs.path().join("dir/sub/file")).unwrap();
        assert_eq!(located.volume.uuid, uuid_by_blkid(loop_fs.device()));
        assert_eq!(located.volume.id.as_str(), format!("{}:{}", kind.name(), located.volume.uuid));
        assert_eq!(located.volume.mount_point, loop_fs.path());
        assert_eq!(located.volume.source, loop_fs.device().to_str().unwrap());
        assert_eq!((inner(&located), located.volume.root.to_str()), ("dir/sub/file", Some("/")));
        assert_eq!(inner(&resolve(loop_fs.path()).unwrap()), "");

        let link = beside.path().join(format!("link-{}", kind.name()));
        symlink(loop_fs.path().join("dir"), &link).unwrap();
        let by_link = resolve(&link.join("sub")).unwrap();
        assert_eq!((inner(&by_link), &by_link.path), ("dir/sub", &loop_fs.path().join("dir/sub")));

        let bind = Mounted::bind(&loop_fs.path().join("dir"), &beside.path().join(format!("bind-{}", kind.name())));
        let by_bind = resolve(&bind.0.join("sub/file")).unwrap();
        assert_eq!(by_bind.volume.id, located.volume.id);
        assert_eq!((inner(&by_bind), by_bind.volume.root.to_str()), ("dir/sub/file", Some("/dir")));
        assert_eq!(by_bind.volume.mount_point, bind.0);

        let listed: Vec<_> = list().unwrap().into_iter().filter(|volume| volume.id == located.volume.id).collect();
        assert_eq!(listed, [located.volume], "once, at the mount that shows most");
    }
}

#[test]
fn a_subvolume_is_a_volume_with_what_is_nested_in_it() {
    if let Some(missing) = LoopFs::missing(&[Kind::Btrfs]) {
        println!("SKIPPED: a_subvolume_is_a_volume_with_what_is_nested_in_it: {missing}");
        return;
    }
    let loop_fs = LoopFs::new(Kind::Btrfs, 128).unwrap();
    for subvolume in ["vol", "vol/nested one"] {
        let made =
            Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(loop_fs.path().join(subvolume)).output();
        assert!(made.unwrap().status.success());
    }
    fs::create_dir(loop_fs.path().join("vol/dir")).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let vol = Mounted::new(loop_fs.device(), &beside.path().join("vol"), "btrfs", c"subvol=vol");

    let top = resolve(&loop_fs.path().join("vol/nested one")).unwrap();
    assert_eq!((top.volume.subvolume, inner(&top)), (Some(5), "vol/nested one"), "the mount shows the top level");
    let sub = resolve(&vol.0.join("nested one")).unwrap();
    let id = sub.volume.subvolume.unwrap();
    assert_eq!(inner(&sub), "nested one");
    assert_eq!(sub.volume.id.as_str(), format!("btrfs:{}:{id}", uuid_by_blkid(loop_fs.device())));
    assert_ne!(sub.volume.id, top.volume.id);

    let bind = Mounted::bind(&vol.0.join("dir"), &beside.path().join("bind"));
    let by_bind = resolve(&bind.0).unwrap();
    assert_eq!(by_bind.volume.id, sub.volume.id);
    assert_eq!((inner(&by_bind), by_bind.volume.root.to_str()), ("dir", Some("/dir")));

    let listed = list().unwrap();
    for volume in [&top.volume, &sub.volume] {
        let count = listed.iter().filter(|listed| listed.id == volume.id).count();
        assert_eq!(count, 1, "{} is listed once", volume.id);
    }
}

#[test]
fn what_is_mounted_over_a_volume_is_not_in_it() {
    if let Some(missing) = LoopFs::missing(&[Kind::Ext4]) {
        println!("SKIPPED: what_is_mounted_over_a_volume_is_not_in_it: {missing}");
        return;
    }
    let loop_fs = LoopFs::new(Kind::Ext4, 16).unwrap();
    let volume = resolve(loop_fs.path()).unwrap().volume;
    let over = Mounted::new(Path::new("none"), &loop_fs.path().join("tmp"), "tmpfs", c"size=1m");
    let located = resolve(&over.0).unwrap();
    assert_eq!((located.volume.fs_type.as_str(), located.volume.uuid.as_str(), inner(&located)), ("tmpfs", "", ""));

    let table = mount_table().unwrap();
    let table: Vec<_> = table.iter().map(|(point, id)| (point.as_path(), id)).collect();
    assert_eq!(involvement::volume_of(&over.0.join("file"), &table), Some(&located.volume.id));
    assert_eq!(involvement::volume_of(&loop_fs.path().join("file"), &table), Some(&volume.id));

    // A mount that hides the volume whole: the volume can be reached no more.
    let hiding = Mounted::new(Path::new("none"), loop_fs.path(), "tmpfs", c"size=1m");
    assert_eq!(resolve(loop_fs.path()).unwrap().volume.fs_type, "tmpfs");
    assert!(list().unwrap().iter().all(|listed| listed.id != volume.id));
    drop(hiding);
    assert_eq!(resolve(&loop_fs.path().join("gone")).unwrap_err().code, VssCode::ObjectNotFound);
}

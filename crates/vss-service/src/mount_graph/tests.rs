//! Judgements over made-up machines: a mount table, what sysfs would say of its devices, and swap space.

use super::*;
use vss_linux::mountinfo;
use vss_model::{VolumeId, VssCode};

/// A machine with a disk (8:0) whose partition 8:1 is `/`.
struct Machine {
    table: String,
    facts: Facts,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { table: String::new(), facts: Facts::default() };
        machine
            .device((8, 0), &[], None)
            .device((8, 1), &[(8, 0)], None)
            .mount("1 0 8:1 / / rw - ext4 /dev/sda1 rw")
            .mount("2 1 0:20 / /run rw - tmpfs tmpfs rw")
            .mount("3 1 0:21 / /dev rw - devtmpfs devtmpfs rw")
    }

    fn device(mut self, number: DeviceNumber, below: &[DeviceNumber], file: Option<&str>) -> Self {
        let device = Device { below: below.to_vec(), backing_file: file.map(PathBuf::from) };
        self.facts.devices.insert(number, device);
        self
    }

    /// A loop device `7:minor` on `file`, and its file system, mounted on `/` at `place`.
    fn on_loop(self, minor: u32, file: &str, place: &str, fs_type: &str) -> Self {
        let line = format!("1{minor} 1 7:{minor} / {place} rw - {fs_type} /dev/loop{minor} rw");
        self.device((7, minor), &[], Some(file)).mount(&line)
    }

    fn mount(mut self, line: &str) -> Self {
        self.table.push_str(line);
        self.table.push('\n');
        self
    }

    fn swap(mut self, path: &str, device: Option<DeviceNumber>) -> Self {
        self.facts.swaps.push(Swap { path: path.into(), device });
        self
    }

    fn devices_of(mut self, superblock: DeviceNumber, devices: &[DeviceNumber]) -> Self {
        self.facts.devices_of.insert(superblock, devices.iter().copied().collect());
        self
    }

    fn graph(&self) -> MountGraph {
        let entries = mountinfo::parse(self.table.as_bytes()).unwrap();
        MountGraph::of(Facts { mounts: Mounts::new(entries), ..self.facts.clone() })
    }

    /// The volume that is mounted at `place`.
    fn volume(&self, place: &str) -> Volume {
        let graph = self.graph();
        let entry = graph.0.mounts.holder(Path::new(place)).unwrap();
        assert_eq!(entry.mount_point, Path::new(place));
        Volume {
            id: VolumeId::file_system(&entry.fs_type, place),
            mount_point: place.into(),
            fs_type: entry.fs_type.clone(),
            source: entry.source.clone(),
            uuid: place.to_owned(),
            subvolume: None,
            root: "/".into(),
            device_number: entry.device_number(),
            mount_id: entry.mount_id,
        }
    }

    fn judge(&self, held: &[&str], others: &[&str], places: &[Place<'_>]) -> Result<Vec<u8>, VssError> {
        let volumes = |names: &[&str]| names.iter().map(|name| self.volume(name)).collect::<Vec<_>>();
        self.graph().levels(&volumes(held), &volumes(others), places)
    }

    fn levels(&self, held: &[&str]) -> Vec<u8> {
        self.judge(held, &[], &[]).unwrap()
    }

    /// The refusal's words, which have all of these.
    fn refuses(&self, held: &[&str], others: &[&str], places: &[Place<'_>], words: &[&str]) {
        let error = self.judge(held, others, places).unwrap_err();
        assert_eq!(error.code, VssCode::NestedVolumeLimit);
        assert!(words.iter().all(|word| error.message.contains(word)), "{error}");
        assert!(!error.hint.is_empty(), "{error}");
    }
}

fn runtime(path: &str) -> Place<'_> {
    Place { path: Path::new(path), what: "The runtime directory", hint: "use /run" }
}

#[test]
fn volumes_on_disks_are_all_innermost_and_the_root_is_one_of_them() {
    let machine = Machine::new().device((8, 16), &[], None).mount("4 1 8:16 / /srv rw - xfs /dev/sdb rw");
    assert_eq!(machine.judge(&["/", "/srv"], &[], &[runtime("/run/vss")]).unwrap(), [0, 0]);
}

#[test]
fn a_host_is_above_all_that_lies_on_it_whatever_their_order() {
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "xfs")
        .on_loop(2, "/outer/dir/image", "/middle", "ext4")
        .on_loop(3, "/middle/image", "/inner", "ext4")
        .on_loop(4, "/outer/other", "/aside", "ext4");
    assert_eq!(machine.levels(&["/outer", "/aside", "/inner", "/middle"]), [2, 0, 0, 1]);
    assert_eq!(machine.levels(&["/inner", "/middle", "/outer", "/aside"]), [0, 1, 2, 0]);
    assert_eq!(machine.levels(&["/", "/inner"]), [1, 0]);
}

#[test]
fn a_volume_between_two_members_counts_though_it_is_none() {
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .on_loop(2, "/outer/image", "/unlisted", "xfs")
        .on_loop(3, "/unlisted/image", "/inner", "ext4");
    assert_eq!(machine.levels(&["/inner", "/outer"]), [0, 1]);
}

#[test]
fn arrays_mapped_devices_and_partitions_are_followed_to_the_files_below() {
    // LVM on RAID 1 of a partition of one loop device and of another loop device as a whole.
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .device((7, 2), &[], Some("/outer/a"))
        .device((259, 1), &[(7, 2)], None)
        .device((7, 3), &[], Some("/images/b"))
        .device((9, 0), &[(259, 1), (7, 3)], None)
        .device((252, 0), &[(9, 0)], None)
        .mount("4 1 252:0 / /inner rw - xfs /dev/mapper/vg-lv rw");
    assert_eq!(machine.levels(&["/outer", "/inner", "/"]), [1, 0, 2]);
}

#[test]
fn a_file_system_of_several_devices_lies_on_all_of_them() {
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .device((7, 2), &[], Some("/images/a"))
        .device((7, 3), &[], Some("/outer/b"))
        .mount("4 1 0:44 /sub /pool rw - btrfs /dev/loop2 rw,subvolid=256,subvol=/sub")
        .devices_of((0, 44), &[(7, 2), (7, 3)])
        .on_loop(5, "/pool/image", "/inner", "ext4");
    machine.refuses(&["/outer"], &["/pool"], &[], &["/pool (btrfs)", "/outer/b"]);
    assert_eq!(machine.levels(&["/inner", "/outer"]), [0, 1], "btrfs on a loop device on ext4 lies between them");
    // An XFS with its log elsewhere.
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .on_loop(2, "/images/data", "/data", "xfs")
        .device((7, 3), &[], Some("/outer/log"))
        .devices_of((7, 2), &[(7, 3)]);
    assert_eq!(machine.levels(&["/data", "/outer"]), [0, 1]);
}

#[test]
fn bind_mounts_and_second_mounts_are_the_same_superblock() {
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .mount("30 1 7:1 /dir /bound rw - ext4 /dev/loop1 rw")
        .mount("31 1 7:1 / /again rw - ext4 /dev/loop1 rw")
        // The file was named by the path of a bind mount.
        .on_loop(2, "/bound/image", "/inner", "xfs");
    assert_eq!(machine.levels(&["/inner", "/outer"]), [0, 1]);
    assert_eq!(machine.levels(&["/inner", "/again"]), [0, 1]);
    machine.refuses(&["/outer", "/again"], &[], &[], &["/outer", "/again", "one file system"]);
    machine.refuses(&["/again"], &[], &[runtime("/bound/run")], &["/bound/run", "/again"]);
}

#[test]
fn what_must_not_be_held_may_not_lie_on_what_is() {
    let machine = Machine::new()
        .on_loop(1, "/images/outer", "/outer", "ext4")
        .on_loop(2, "/outer/image", "/unlisted", "xfs")
        .on_loop(3, "/unlisted/image", "/inner", "btrfs");
    machine.refuses(&["/outer"], &["/inner"], &[], &["/inner (btrfs)", "/outer", "/outer/image"]);
    // The other way round nothing waits: the held one is the inner one.
    let machine =
        Machine::new().on_loop(1, "/images/outer", "/outer", "btrfs").on_loop(2, "/outer/image", "/inner", "ext4");
    assert_eq!(machine.judge(&["/inner"], &["/outer"], &[runtime("/run/vss")]).unwrap(), [0]);
}

#[test]
fn a_runtime_directory_on_what_is_held_is_refused_however_it_lies_there() {
    let machine = Machine::new()
        .on_loop(1, "/images/held", "/held", "ext4")
        .on_loop(2, "/held/image", "/above", "xfs")
        .mount("40 1 0:50 / /merged rw - overlay overlay rw,lowerdir=/usr,upperdir=/above/upper,workdir=/above/work")
        .mount("41 1 0:51 / /reading rw - overlay overlay ro,lowerdir=/held/a:/held/b");
    machine.refuses(&["/held"], &[], &[runtime("/held/run")], &["The runtime directory /held/run lies on /held"]);
    machine.refuses(&["/held"], &[], &[runtime("/above/run")], &["/above/run", "/held", "(/held/image)"]);
    machine.refuses(&["/held"], &[], &[runtime("/merged/run")], &["/merged/run", "/held"]);
    // What an overlay only reads, a hold does not stop.
    assert_eq!(machine.judge(&["/held"], &[], &[runtime("/reading/run")]).unwrap(), [0]);
    // A container without a /run of its own.
    machine.refuses(&["/"], &[], &[runtime("/var/vss")], &["/var/vss lies on /,"]);
    machine.judge(&["/"], &[], &[runtime("/run/vss")]).unwrap();
}

#[test]
fn what_is_written_in_a_hold_does_not_lie_where_somebody_else_has_to_answer() {
    let machine = Machine::new()
        .on_loop(1, "/images/held", "/held", "ext4")
        .mount("40 1 0:50 / /home rw - nfs4 server:/home rw")
        .mount("41 1 0:51 / /merged rw - fuse.mergerfs a:b rw");
    machine.refuses(&["/held"], &[], &[runtime("/home/run")], &["/home (nfs4)"]);
    machine.refuses(&["/held"], &[], &[runtime("/merged/run")], &["/merged (fuse.mergerfs)"]);
    // Nothing is held, so nothing is written in a hold.
    machine.judge(&[], &["/held"], &[runtime("/home/run")]).unwrap();
}

#[test]
fn the_image_of_a_held_volume_may_lie_anywhere() {
    let machine = Machine::new()
        .mount("40 1 0:50 / /fuse rw - fuse.slow slow rw")
        .on_loop(1, "/fuse/image", "/held", "ext4")
        .on_loop(2, "/gone/with/its/mount (deleted)", "/other", "xfs");
    assert_eq!(machine.judge(&["/held", "/other"], &[], &[runtime("/run/vss")]).unwrap(), [0, 0]);
}

#[test]
fn a_swap_file_of_a_held_volume_is_allowed_and_swap_in_a_file_on_it_is_not() {
    let machine = || {
        Machine::new().on_loop(1, "/images/held", "/held", "ext4").on_loop(2, "/held/image", "/above", "xfs").device(
            (7, 3),
            &[],
            Some("/held/swap.img"),
        )
    };
    machine().swap("/held/swapfile", None).judge(&["/held"], &[], &[]).unwrap();
    machine().swap("/swapfile", None).judge(&["/", "/held"], &[], &[]).unwrap();
    machine().swap("/dev/sda2", Some((8, 2))).judge(&["/", "/held"], &[], &[]).unwrap();
    machine().swap("/above/swapfile", None).refuses(&["/held"], &[], &[], &["/above/swapfile", "/held/image"]);
    machine().swap("/dev/loop3", Some((7, 3))).refuses(&["/held"], &[], &[], &["/dev/loop3", "/held/swap.img"]);
    machine().swap("/dev/loop3", Some((7, 3))).judge(&["/above"], &[], &[]).unwrap();
}

#[test]
fn a_ring_ends() {
    let machine = Machine::new().on_loop(1, "/b/image", "/a", "ext4").on_loop(2, "/a/image", "/b", "ext4");
    assert_eq!(machine.levels(&["/a", "/b"]).len(), 2);
}

/// Two names that a search by the longest prefix alone would take for the hidden mount.
#[test]
fn an_image_below_a_covered_directory_lies_on_what_covers_it() {
    let machine = Machine::new()
        .device((8, 16), &[], None)
        .mount("50 1 8:16 / /srv/vm rw - ext4 /dev/sdb rw")
        .device((8, 32), &[], None)
        .mount("51 1 8:32 / /srv rw - xfs /dev/sdc rw")
        .on_loop(1, "/srv/vm/image", "/inner", "ext4");
    assert_eq!(machine.levels(&["/srv", "/inner"]), [1, 0]);
}

#[test]
fn an_automount_point_and_a_dead_server_are_words_only() {
    let machine = Machine::new()
        .mount("40 1 0:50 / /net rw - autofs auto rw,indirect")
        .mount("41 1 0:51 / /nfs rw,hard - nfs4 dead:/ rw")
        .on_loop(1, "/nfs/image", "/held", "ext4");
    assert_eq!(machine.judge(&["/held", "/"], &[], &[runtime("/run/vss")]).unwrap(), [0, 0]);
}

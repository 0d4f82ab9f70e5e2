//! The contract's suite on real btrfs.

mod common;

use common::{Btrfs, volume};
use std::io;
use vss_lab::needs;
use vss_model::Volume;
use vss_provider::{
    Provider,
    conformance::{Subject, assert_conforms},
};

/// Two subvolumes of one file system and one of another.
struct BtrfsSubject {
    file_systems: [Btrfs; 2],
    volumes: Vec<Volume>,
}

impl Subject for BtrfsSubject {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(common::provider())
    }

    fn volumes(&self) -> Vec<Volume> {
        self.volumes.clone()
    }

    fn leftovers(&self) -> io::Result<Vec<String>> {
        Ok(self.file_systems.iter().flat_map(Btrfs::store).collect())
    }
}

#[test]
fn btrfs_conforms() {
    needs!("btrfs_conforms", "btrfs");
    let mut file_systems = [Btrfs::new(160), Btrfs::new(160)];
    let mut volumes = Vec::new();
    for (at, name) in [(0, "one"), (1, "two"), (0, "three")] {
        file_systems[at].subvolume(name);
        file_systems[at].subvolume(&format!("{name}/nested"));
        let point = file_systems[at].mount(name, &format!("subvol={name}"));
        volumes.push(volume(&point));
    }
    assert_conforms(&BtrfsSubject { file_systems, volumes });
}

#[test]
fn the_top_level_conforms() {
    needs!("the_top_level_conforms", "btrfs");
    let file_systems = [Btrfs::new(160), Btrfs::new(160)];
    let volumes = file_systems.iter().map(|file_system| volume(&file_system.top())).collect();
    assert_conforms(&BtrfsSubject { file_systems, volumes });
}

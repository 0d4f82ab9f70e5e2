//! Subvolumes within the volume: found, cut, put at their places, and never mistaken for something else.

mod common;

use common::{Btrfs, begin, create, cut, end_prepare, finish, provider, volume};
use std::{fs, path::Path};
use vss_lab::{needs, providers::shown};
use vss_model::{Context, VssCode};
use vss_provider::{Deletion, Provider};

fn nested(committed: &vss_provider::CommittedCopy) -> Vec<&Path> {
    committed.nested.iter().map(|nested| nested.path.as_path()).collect()
}

#[test]
fn two_levels_with_blanks_in_their_names_appear_at_their_places() {
    needs!("two_levels_with_blanks_in_their_names_appear_at_their_places", "btrfs");
    let mut fs = Btrfs::new(160);
    fs.subvolume("vol");
    fs::create_dir_all(fs.top().join("vol/some dir")).unwrap();
    fs.subvolume("vol/some dir/first level");
    fs.subvolume("vol/some dir/first level/second");
    let inner = "some dir/first level/second/data";
    fs::write(fs.top().join("vol").join(inner), "old").unwrap();
    fs::write(fs.top().join("vol/deleted"), "old").unwrap();
    let volume = volume(&fs.mount("vol", "subvol=vol"));

    let provider = provider();
    let (copies, committed) = create(&provider, &[volume]);
    assert_eq!(nested(&committed[0]), ["some dir/first level", "some dir/first level/second"].map(Path::new));
    let cuts = [committed[0].cut_at, committed[0].nested[0].cut_at, committed[0].nested[1].cut_at];
    assert!(cuts.is_sorted(), "the parent is cut first: {cuts:?}");
    assert_eq!(fs.store().len(), 4, "{:?}", fs.store());

    fs::write(fs.top().join("vol").join(inner), "new").unwrap();
    fs::remove_file(fs.top().join("vol/deleted")).unwrap();
    shown(&provider.mount(&copies[0], false).unwrap(), &fs.beside("shown"), |root| {
        assert_eq!(fs::read_to_string(root.join(inner)).unwrap(), "old");
        assert_eq!(fs::read_to_string(root.join("deleted")).unwrap(), "old");
        assert!(fs::write(root.join(inner), "x").is_err() && fs::write(root.join("deleted"), "x").is_err());
    });
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    fs.assert_nothing_left();
}

#[test]
fn the_copies_are_in_no_copy_of_the_top_level() {
    needs!("the_copies_are_in_no_copy_of_the_top_level", "btrfs");
    let fs = Btrfs::new(160);
    fs.subvolume("a");
    fs::write(fs.top().join("a/file"), "old").unwrap();
    let provider = provider();
    let volume = volume(&fs.top());
    let (first, _) = create(&provider, std::slice::from_ref(&volume));
    let (second, committed) = create(&provider, &[volume]);
    assert_eq!(nested(&committed[0]), [Path::new("a")]);
    shown(&provider.mount(&second[0], false).unwrap(), &fs.beside("shown"), |root| {
        let names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(fs::read_to_string(root.join("a/file")).unwrap(), "old");
    });
    provider.delete(&first[0]).unwrap();
    provider.delete(&second[0]).unwrap();
    fs.assert_nothing_left();
}

#[test]
fn the_list_is_as_new_as_the_window_allows() {
    needs!("the_list_is_as_new_as_the_window_allows", "btrfs");
    let mut fs = Btrfs::new(160);
    for path in ["vol", "vol/stays", "vol/goes", "vol/goes late"] {
        fs.subvolume(path);
    }
    let volume = volume(&fs.mount("vol", "subvol=vol"));
    let provider = provider();
    let (set_id, mut copies) = begin(&provider, &[volume], Context::Backup);
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    fs.delete_subvolume("vol/goes");
    fs.subvolume("vol/comes");
    provider.pre_commit(set_id).unwrap();
    fs.delete_subvolume("vol/goes late");
    fs.subvolume("vol/comes late");
    provider.commit(set_id).unwrap();
    let committed = finish(&provider, set_id, &mut copies);
    let mut found = nested(&committed[0]);
    found.sort();
    assert_eq!(found, ["comes", "stays"].map(Path::new));
    let trees = provider.mount(&copies[0], false).unwrap();
    assert_eq!(trees.len(), 3);
    shown(&trees, &fs.beside("shown"), |root| assert!(root.join("comes").is_dir()));
    drop(trees);
    provider.delete(&copies[0]).unwrap();
    fs.assert_nothing_left();
}

#[test]
fn one_that_moves_while_it_is_cut_is_a_veto_and_no_loss() {
    needs!("one_that_moves_while_it_is_cut_is_a_veto_and_no_loss", "btrfs");
    let mut fs = Btrfs::new(160);
    fs.subvolume("vol");
    fs.subvolume("vol/here");
    let volume = volume(&fs.mount("vol", "subvol=vol"));
    let provider = provider();
    let (set_id, _) = begin(&provider, &[volume], Context::Backup);
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    fs::rename(fs.top().join("vol/here"), fs.top().join("vol/there")).unwrap();
    provider.commit(set_id).unwrap();
    provider.post_commit(set_id).unwrap();
    let error = provider.pre_final_commit(set_id).unwrap_err();
    assert_eq!(error.code, VssCode::ProviderVeto);
    assert!(error.message.contains("here"), "{error}");
    provider.abort(set_id).unwrap();
    fs.assert_nothing_left();
}

#[test]
fn what_a_writer_nested_in_the_copy_goes_with_it() {
    needs!("what_a_writer_nested_in_the_copy_goes_with_it", "btrfs");
    let fs = Btrfs::new(160);
    let provider = provider();
    let (set_id, copies) = begin(&provider, &[volume(&fs.top())], Context::Backup);
    cut(&provider, set_id);
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    let copy = format!(".vss/{}.0", copies[0].shadow_id);
    fs.subvolume(&format!("{copy}/stranger"));
    fs.subvolume(&format!("{copy}/stranger/inner"));
    provider.post_final_commit(set_id).unwrap();
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    fs.assert_nothing_left();
}

#[test]
fn a_swap_file_in_use_spoils_its_own_subvolume_only() {
    needs!("a_swap_file_in_use_spoils_its_own_subvolume_only", "btrfs");
    let mut fs = Btrfs::new(160);
    fs.subvolume("vol");
    fs.subvolume("vol/swap");
    let volume = volume(&fs.mount("vol", "subvol=vol"));
    let swap = fs.top().join("vol/swap/file");
    let made = std::process::Command::new("btrfs").args(["filesystem", "mkswapfile", "-s", "4m"]).arg(&swap).output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: a_swap_file_in_use_spoils_its_own_subvolume_only: needs btrfs filesystem mkswapfile");
        return;
    }
    let Some(_swap) = common::Swap::on(&swap) else {
        println!("SKIPPED: a_swap_file_in_use_spoils_its_own_subvolume_only: swapon is not possible here");
        return;
    };
    let provider = provider();
    let (copies, committed) = create(&provider, &[volume]);
    assert!(committed[0].nested.is_empty());
    provider.delete(&copies[0]).unwrap();

    let (set_id, _) = begin(&provider, &[common::volume(&fs.mount("swap", "subvol=vol/swap"))], Context::Backup);
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    let error = provider.commit(set_id).unwrap_err();
    assert!(error.code == VssCode::ProviderVeto && error.message.contains("swap file"), "{error}");
    provider.abort(set_id).unwrap();
    fs.assert_nothing_left();
}

#[test]
fn many_are_listed_cut_and_deleted_at_once() {
    needs!("many_are_listed_cut_and_deleted_at_once", "btrfs");
    const MANY: usize = 300;
    let mut fs = Btrfs::new(256);
    fs.subvolume("vol");
    (0..MANY).for_each(|number| fs.subvolume(&format!("vol/n{number}")));
    let volume = volume(&fs.mount("vol", "subvol=vol"));
    let provider = provider();
    let (set_id, mut copies) = begin(&provider, &[volume], Context::Backup);
    let times = [end_prepare, Provider::pre_commit, Provider::commit].map(|phase| {
        let started = std::time::Instant::now();
        phase(&provider, set_id).unwrap();
        started.elapsed()
    });
    println!("{MANY} nested: end_prepare, pre_commit, commit took {times:?}");
    let committed = finish(&provider, set_id, &mut copies);
    assert_eq!(committed[0].nested.len(), MANY);
    let trees = provider.mount(&copies[0], false).unwrap();
    assert_eq!(trees.len(), MANY + 1);
    drop(trees);
    provider.delete(&copies[0]).unwrap();
    fs.assert_nothing_left();
}

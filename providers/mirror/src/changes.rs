//! What is kept of each copy beside its image: which chunks are in use in it, which were written since the copy before, and
//! which were mended in it. One file, `<shadow-id>.changes`.
//!
//! The file is a line of JSON ([`About`]), then three sets as pairs of numbers (chunks since the end of the run before, chunks
//! of the run) in LEB128, then the CRC-32C of all of it.
//!
//! What was written from one copy to a later one is the union of what belongs to the copies after the first, so the file of a
//! copy stays when the copy is deleted, as long as an older copy is there.

use crate::record;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::{fs::File, io::Read, ops::Range};
use uuid::Uuid;
use vss_linux::mount;
use vss_model::{ShadowId, VssCode, VssError};
use vss_provider::{blocks::Extent, failure::failed, image_copy, store::Store};
use vss_trace::Bitmap;

/// Largest file that is read: a set of 2^31 chunks with every second one in it takes 2 GiB, and nobody reads that.
const LARGEST: u64 = 512 << 20;

/// The end of the names of these files.
const SUFFIX: &str = ".changes";

/// What the sets are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Of this file; 1.
    pub(crate) format: u32,
    /// The mirror that the copy was made from.
    pub(crate) lineage: Uuid,
    /// Which of its cuts the copy is.
    pub(crate) generation: u64,
    /// Bytes of the volume.
    pub(crate) volume_bytes: u64,
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// Why what was written since the cut before is not known (half a sentence); none when it is.
    pub(crate) unknown: Option<String>,
    /// Why what was mended in the copy is not known; none when it is.
    pub(crate) mended_unknown: Option<String>,
}

/// The file of one copy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changes {
    pub(crate) about: About,
    /// In use at the cut, or mended.
    pub(crate) used: Bitmap,
    /// Written since the cut before.
    pub(crate) written: Bitmap,
    /// Written while the copy could be mended.
    pub(crate) mended: Bitmap,
}

fn name(shadow_id: ShadowId) -> String {
    format!("{shadow_id}{SUFFIX}")
}

impl Changes {
    /// Writes it down; `lasting`: down to the disk.
    pub(crate) fn save(&self, store: &Store, shadow_id: ShadowId, lasting: bool) -> Result<(), VssError> {
        let cannot = |error: std::io::Error| failed(format!("{} cannot be written", name(shadow_id)), &error);
        let mut bytes = serde_json::to_vec(&self.about).map_err(|error| cannot(error.into()))?;
        bytes.push(b'\n');
        for set in [&self.used, &self.written, &self.mended] {
            put_set(&mut bytes, set);
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(sum.to_le_bytes());
        record::replace(store, &name(shadow_id), &bytes, lasting).map_err(cannot)
    }

    /// Reads it; none when it is not there or not whole.
    pub(crate) fn load(store: &Store, shadow_id: ShadowId) -> Result<Option<Self>, VssError> {
        let Some(bytes) = read(store, shadow_id)? else { return Ok(None) };
        Ok(parse(&bytes))
    }
}

fn read(store: &Store, shadow_id: ShadowId) -> Result<Option<Vec<u8>>, VssError> {
    let name = name(shadow_id);
    let file = match mount::open_beneath(store, name.as_ref(), OFlags::RDONLY | OFlags::NOFOLLOW) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("{name} cannot be opened"), &error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(LARGEST).read_to_end(&mut bytes);
    read.map_err(|error| failed(format!("{name} cannot be read"), &error))?;
    Ok(Some(bytes))
}

fn parse(bytes: &[u8]) -> Option<Changes> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(sum.try_into().ok()?) {
        return None;
    }
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let about: About = serde_json::from_slice(&content[..end]).ok()?;
    if about.format != 1 || about.chunk == 0 {
        return None;
    }
    let chunks = about.volume_bytes.div_ceil(about.chunk);
    let mut rest = &content[end + 1..];
    let mut set = || take_set(&mut rest, chunks);
    let (used, written, mended) = (set()?, set()?, set()?);
    rest.is_empty().then_some(Changes { about, used, written, mended })
}

fn put_set(bytes: &mut Vec<u8>, set: &Bitmap) {
    let mut end = 0;
    for run in set.runs() {
        put_number(bytes, run.start - end);
        put_number(bytes, run.end - run.start);
        end = run.end;
    }
    // A run is never empty.
    put_number(bytes, 0);
    put_number(bytes, 0);
}

fn take_set(bytes: &mut &[u8], chunks: u64) -> Option<Bitmap> {
    let mut set = Bitmap::new(chunks);
    let mut at = 0_u64;
    loop {
        let (gap, length) = (take_number(bytes)?, take_number(bytes)?);
        if length == 0 {
            return Some(set);
        }
        let start = at.checked_add(gap)?;
        at = start.checked_add(length).filter(|end| *end <= chunks)?;
        set.set(start..at);
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Runs of bytes of the volume that these chunks are.
pub(crate) fn extents(set: &Bitmap, about: &About) -> Vec<Extent> {
    let bytes = |run: Range<u64>| {
        let (offset, end) = (run.start * about.chunk, (run.end * about.chunk).min(about.volume_bytes));
        Extent { offset, length: end - offset }
    };
    set.runs().map(bytes).collect()
}

/// Every such file of a store, with what it is about; damaged ones are left out.
pub(crate) fn all(store: &Store) -> Result<Vec<(ShadowId, About)>, VssError> {
    let mut all = Vec::new();
    for (file, _) in store.entries()? {
        let Some(shadow_id) = file.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok()) else { continue };
        let Some(bytes) = read(store, shadow_id)? else { continue };
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Ok(about) = serde_json::from_slice(line) {
            all.push((shadow_id, about));
        }
    }
    Ok(all)
}

/// Removes the file of a copy; false when there was none.
pub(crate) fn remove(store: &Store, shadow_id: ShadowId) -> Result<bool, VssError> {
    record::remove(store, &format!("{}.new", name(shadow_id)))?;
    record::remove(store, &name(shadow_id))
}

/// Removes the files of deleted copies that no older copy needs any more.
pub(crate) fn prune(store: &Store) -> Result<(), VssError> {
    let all = all(store)?;
    let mut there = Vec::new();
    for (shadow_id, about) in &all {
        if image_copy::open(store, *shadow_id)?.is_some() {
            there.push((*shadow_id, about.lineage, about.generation));
        }
    }
    for (shadow_id, about) in &all {
        let is_needed = there.iter().any(|(other, lineage, generation)| {
            other == shadow_id || (*lineage == about.lineage && *generation < about.generation)
        });
        if !is_needed {
            remove(store, *shadow_id)?;
        }
    }
    Ok(())
}

/// What was written from the copy `since` (or its older self) up to `copy`, or why nobody knows.
pub(crate) fn between(store: &Store, copy: ShadowId, since: ShadowId) -> Result<Result<Vec<Extent>, String>, VssError> {
    let load = |shadow_id| Changes::load(store, shadow_id);
    let lost = |shadow_id: ShadowId| Ok(Err(format!("what is kept of shadow copy {shadow_id} is damaged or gone")));
    let Some(later) = load(copy)? else { return lost(copy) };
    let Some(earlier) = load(since)? else { return lost(since) };
    let (about, base) = (later.about.clone(), &earlier.about);
    if about.lineage != base.lineage {
        return Ok(Err("the two copies were made from different mirrors".to_owned()));
    }
    if about.generation < base.generation {
        return Err(VssError::new(
            VssCode::InvalidArgument,
            format!("Shadow copy {copy} was made before shadow copy {since}"),
        )
        .with_hint("Name the later one first"));
    }
    if (about.volume_bytes, about.chunk) != (base.volume_bytes, base.chunk) {
        return Ok(Err("the volume's size was changed between the two copies".to_owned()));
    }
    for one in [&about, base] {
        if let Some(why) = &one.mended_unknown {
            return Ok(Err(why.clone()));
        }
    }
    let mut changed = Bitmap::new(later.used.chunks());
    if about.generation > base.generation {
        changed.union(&earlier.mended);
        changed.union(&later.mended);
    }
    let mut generations: Vec<(u64, ShadowId)> = all(store)?
        .into_iter()
        .filter(|(_, one)| one.lineage == about.lineage)
        .filter(|(_, one)| one.generation > base.generation && one.generation <= about.generation)
        .map(|(shadow_id, one)| (one.generation, shadow_id))
        .collect();
    generations.sort_unstable();
    let wanted = base.generation + 1..=about.generation;
    if !generations.iter().map(|(generation, _)| *generation).eq(wanted) {
        return Ok(Err("what is kept of a copy between the two is gone".to_owned()));
    }
    for (_, shadow_id) in generations {
        let Some(between) = load(shadow_id)? else { return lost(shadow_id) };
        if let Some(why) = between.about.unknown {
            return Ok(Err(why));
        }
        changed.union(&between.written);
    }
    // What is free in the later copy is of no interest.
    changed.intersect(&later.used);
    Ok(Ok(extents(&changed, &about)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(chunks: u64, runs: &[(u64, u64)]) -> Bitmap {
        let mut set = Bitmap::new(chunks);
        runs.iter().for_each(|(start, end)| set.set(*start..*end));
        set
    }

    fn changes(lineage: Uuid, generation: u64, written: &[(u64, u64)], mended: &[(u64, u64)]) -> Changes {
        Changes {
            about: About {
                format: 1,
                lineage,
                generation,
                volume_bytes: 1_000_000 * 4096 - 512,
                chunk: 4096,
                unknown: None,
                mended_unknown: None,
            },
            used: set(1_000_000, &[(0, 500_000), (999_999, 1_000_000)]),
            written: set(1_000_000, written),
            mended: set(1_000_000, mended),
        }
    }

    /// A store in a directory of the test's own, with an empty image for each of these copies.
    fn store(place: &std::path::Path, copies: &[ShadowId]) -> Store {
        let store = Store::open_or_make(File::open(place).unwrap()).unwrap();
        for copy in copies {
            std::fs::write(place.join(".vss").join(image_copy::file_name(*copy)), "").unwrap();
        }
        store
    }

    fn extent(chunks: Range<u64>) -> Extent {
        Extent { offset: chunks.start * 4096, length: (chunks.end - chunks.start) * 4096 }
    }

    #[test]
    fn what_was_saved_is_loaded_and_damage_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let copy = ShadowId::random();
        let store = store(place.path(), &[copy]);
        let saved = changes(Uuid::new_v4(), 3, &[(0, 1), (127, 130), (400_000, 999_999)], &[(5, 6)]);
        saved.save(&store, copy, true).unwrap();
        assert_eq!(Changes::load(&store, copy).unwrap(), Some(saved));
        let file = place.path().join(format!(".vss/{copy}.changes"));
        let bytes = std::fs::read(&file).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(Changes::load(&store, copy).unwrap(), None, "byte {at}");
        }
        assert!(parse(&[]).is_none() && parse(b"12345").is_none());
    }

    #[test]
    fn several_copies_are_added_up_also_over_a_deleted_one() {
        let place = tempfile::tempdir().unwrap();
        let copies = [(); 3].map(|()| ShadowId::random());
        let [first, second, third] = copies;
        let store = store(place.path(), &copies);
        let lineage = Uuid::new_v4();
        changes(lineage, 1, &[(0, 9)], &[(1, 2)]).save(&store, first, true).unwrap();
        changes(lineage, 2, &[(10, 12), (600_000, 600_001)], &[(20, 21)]).save(&store, second, true).unwrap();
        changes(lineage, 3, &[(12, 14), (999_999, 1_000_000)], &[(30, 31)]).save(&store, third, true).unwrap();
        // Neither what was mended in the one between nor what is free.
        let last = Extent { offset: 999_999 * 4096, length: 4096 - 512 };
        let wanted = vec![extent(1..2), extent(10..14), extent(30..31), last];
        assert_eq!(between(&store, third, first).unwrap(), Ok(wanted.clone()));
        assert_eq!(between(&store, second, second).unwrap(), Ok(Vec::new()));
        assert_eq!(between(&store, first, third).unwrap_err().code, VssCode::InvalidArgument);
        std::fs::remove_file(place.path().join(".vss").join(image_copy::file_name(second))).unwrap();
        prune(&store).unwrap();
        assert_eq!(between(&store, third, first).unwrap(), Ok(wanted));
        std::fs::remove_file(place.path().join(".vss").join(image_copy::file_name(first))).unwrap();
        prune(&store).unwrap();
        assert_eq!(all(&store).unwrap().len(), 1, "nobody needs the first two any more");
    }

    #[test]
    fn what_is_not_known_says_why() {
        let place = tempfile::tempdir().unwrap();
        let copies = [(); 3].map(|()| ShadowId::random());
        let [first, second, other] = copies;
        let store = store(place.path(), &copies);
        let lineage = Uuid::new_v4();
        changes(lineage, 1, &[], &[]).save(&store, first, true).unwrap();
        changes(Uuid::new_v4(), 2, &[], &[]).save(&store, other, true).unwrap();
        let mut compared = changes(lineage, 2, &[], &[]);
        compared.about.unknown = Some("of a reboot".to_owned());
        compared.save(&store, second, true).unwrap();
        assert_eq!(between(&store, second, first).unwrap(), Err("of a reboot".to_owned()));
        assert!(between(&store, other, first).unwrap().unwrap_err().contains("different mirrors"));
        compared.about.generation = 3;
        compared.about.unknown = None;
        compared.save(&store, second, true).unwrap();
        assert!(between(&store, second, first).unwrap().unwrap_err().contains("between the two"));
    }
}

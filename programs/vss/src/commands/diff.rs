//! `vss diff`: which blocks changed from one shadow copy to another.

use super::Failure;
use crate::args::DiffArguments;
use crate::output::{self, line};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::Path;
use vss_model::Bytes;
use vss_model::{Extent, ShadowCopy, ShadowId, VolumeId, VssCode, VssError, extent};
use vss_requester::{Blocks, Instance, Management};

/// Columns of the map.
const COLUMNS: u64 = 64;
/// A person reads so many lines; a program gets all.
const LINES: usize = 20;

/// `vss diff --blocks --json`. Keys are added, never renamed.
#[derive(Debug, Serialize)]
struct DiffDocument<'a> {
    shadow_id: ShadowId,
    since_shadow_id: ShadowId,
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    volume: &'a Path,
    volume_id: &'a VolumeId,
    volume_size: u64,
    block_size: u64,
    known: bool,
    reason: Option<&'a str>,
    changed_bytes: Option<u64>,
    extents: &'a [Extent],
}

pub(super) fn diff(instance: &Instance, arguments: &DiffArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    let shadows = management.shadows()?;
    let (earlier, later) = pair(&shadows, arguments.shadow, arguments.other)?;
    let blocks = management.changed_blocks(later.id, Some(earlier.id))?;
    if arguments.json {
        output::json(&DiffDocument {
            shadow_id: later.id,
            since_shadow_id: earlier.id,
            volume: &later.volume,
            volume_id: &later.volume_id,
            volume_size: blocks.volume_size,
            block_size: blocks.block_size,
            known: blocks.unknown.is_none(),
            reason: blocks.unknown.as_deref(),
            changed_bytes: blocks.unknown.is_none().then(|| extent::total(&blocks.extents)),
            extents: &blocks.extents,
        })?;
    } else {
        print(earlier, later, &blocks)?;
    }
    if blocks.unknown.is_none() { Ok(()) } else { Err(Failure::No) }
}

/// The two copies, the earlier one first.
fn pair(
    shadows: &[ShadowCopy],
    one: ShadowId,
    other: Option<ShadowId>,
) -> Result<(&ShadowCopy, &ShadowCopy), VssError> {
    let find = |id: ShadowId| {
        shadows.iter().find(|shadow| shadow.id == id).ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy {id}"))
                .with_hint("`vss list shadows` shows those that are")
        })
    };
    let one = find(one)?;
    let other = match other {
        Some(other) => find(other)?,
        None => {
            let older = shadows.iter().filter(|shadow| {
                shadow.volume_id == one.volume_id && shadow.provider == one.provider && shadow.cut_at < one.cut_at
            });
            older.max_by_key(|shadow| shadow.cut_at).ok_or_else(|| {
                let volume = one.volume.display();
                let message =
                    format!("{volume} has no older shadow copy by {} to compare {} with", one.provider, one.id);
                VssError::new(VssCode::ObjectNotFound, message)
                    .with_hint("Name the other one: vss diff ID ID2 --blocks")
            })?
        }
    };
    Ok(if other.cut_at <= one.cut_at { (other, one) } else { (one, other) })
}

fn print(earlier: &ShadowCopy, later: &ShadowCopy, blocks: &Blocks) -> io::Result<()> {
    line(&format!("{}, {}", later.volume.display(), Bytes(blocks.volume_size)))?;
    line(&format!("  from {}, cut {}", earlier.id, earlier.cut_at.local()))?;
    line(&format!("  to   {}, cut {}", later.id, later.cut_at.local()))?;
    if let Some(why) = &blocks.unknown {
        return line(&format!("It is not known what changed: {why}"));
    }
    let changed = extent::total(&blocks.extents);
    let parts = match blocks.extents.len() {
        1 => "1 place".to_owned(),
        count => format!("{count} places"),
    };
    line(&format!("Changed: {} ({}) in {parts}", Bytes(changed), share(changed, blocks.volume_size)))?;
    let is_person = io::stdout().is_terminal();
    if is_person {
        for text in map(blocks) {
            line(&text)?;
        }
    }
    let shown = if is_person { blocks.extents.len().min(LINES) } else { blocks.extents.len() };
    let row = |extent: &Extent| vec![extent.offset.to_string(), extent.length.to_string()];
    if shown > 0 {
        output::table(&["OFFSET", "LENGTH"], &blocks.extents[..shown].iter().map(row).collect::<Vec<_>>())?;
    }
    match blocks.extents.len() - shown {
        0 => Ok(()),
        more => line(&format!("... and {more} more; --json has all")),
    }
}

/// In percent; what is not nothing is not shown as nothing.
fn share(part: u64, whole: u64) -> String {
    let thousandths = u64::try_from(u128::from(part) * 1000 / u128::from(whole.max(1))).unwrap_or(u64::MAX);
    if thousandths == 0 && part > 0 {
        return "under 0.1 %".to_owned();
    }
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// The volume from its beginning to its end, and what the characters mean.
fn map(blocks: &Blocks) -> [String; 2] {
    let block = blocks.block_size.max(1);
    // At most 64 columns, of whole blocks.
    let column = blocks.volume_size.div_ceil(COLUMNS).div_ceil(block).max(1).saturating_mul(block);
    let character = |number: u64| {
        let place = Extent { offset: number * column, length: column.min(blocks.volume_size - number * column) };
        let changed = extent::total(&extent::intersection(&blocks.extents, &[place]));
        match (u128::from(changed) * 100).div_ceil(u128::from(place.length)) {
            0 => '.',
            1..=10 => ':',
            11..=50 => '+',
            _ => '#',
        }
    };
    let columns: String = (0..blocks.volume_size.div_ceil(column)).map(character).collect();
    [
        format!("[{columns}]"),
        format!(" a character is {}: . the same, : up to 10 % changed, + up to 50 %, # more", Bytes(column)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shadow(number: u32, volume: &str, provider: &str) -> ShadowCopy {
        serde_json::from_value(json!({
            "id": ShadowId::from_u128(number.into()), "set_id": vss_model::SetId::from_u128(1), "volume": "/v",
            "volume_id": volume, "provider": provider, "provider_id": vss_model::ProviderId::from_u128(1),
            "device": null, "path": null, "consistency": "crash", "nested": [], "attributes": 0, "owner": 0,
            "cut_at": format!("2026-11-24T09:{number:02}:00Z"), "created_at": "2026-11-24T10:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn the_earlier_copy_is_first_whoever_is_named_first() {
        let shadows =
            [shadow(3, "a", "m"), shadow(1, "a", "m"), shadow(2, "b", "m"), shadow(4, "a", "x"), shadow(5, "a", "m")];
        let id = |number: u32| ShadowId::from_u128(number.into());
        let pair = |one, other: Option<u32>| {
            super::pair(&shadows, id(one), other.map(id))
                .map(|(one, other)| (one.id, other.id))
                .map_err(|error| error.code)
        };
        assert_eq!(pair(3, Some(1)), Ok((id(1), id(3))));
        assert_eq!(pair(1, Some(3)), Ok((id(1), id(3))));
        assert_eq!(pair(5, None), Ok((id(3), id(5))), "the next older one of the same volume and provider");
        assert_eq!(pair(1, None), Err(VssCode::ObjectNotFound));
        assert_eq!(pair(9, None), Err(VssCode::ObjectNotFound));
    }

    #[test]
    fn the_map_shows_where_and_how_much() {
        let blocks = |volume_size, extents: &[(u64, u64)]| Blocks {
            volume_size,
            block_size: 1,
            unknown: None,
            extents: extents.iter().map(|(offset, length)| Extent { offset: *offset, length: *length }).collect(),
        };
        let [picture, legend] = map(&blocks(6400, &[(100, 1), (200, 11), (300, 51), (450, 100)]));
        assert_eq!(picture, format!("[.:+#++{}]", ".".repeat(58)));
        assert!(legend.contains("is 100 B"), "{legend}");
        // The last column is a short one, and one byte of it is all of it.
        let [picture, _] = map(&blocks(130, &[(129, 1)]));
        assert_eq!(picture, format!("[{}#]", ".".repeat(43)));
        let [picture, _] = map(&blocks(3, &[]));
        assert_eq!(picture, "[...]");
        assert_eq!(
            (share(1, 1 << 40), share(0, 5), share(5, 5)),
            ("under 0.1 %".into(), "0.0 %".into(), "100.0 %".into())
        );
    }
}

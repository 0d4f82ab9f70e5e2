//! What an image or a device holds, as the last import wrote it down beside it, and what may be applied to it.

use super::place::put_in_place;
use crate::exit::system_error;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vss_model::{Instant, ShadowId, VssCode, VssError};
use vss_stream::Header;

/// The format that is written and read.
const FORMAT_VERSION: u32 = 1;
/// A record has a few hundred bytes.
const LONGEST: u64 = 16 << 10;
/// Ends the name of an image's record.
const SUFFIX: &str = ".vss-stream";

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    format_version: u32,
    /// `holds`, or `applying`: neither this copy nor what was there before.
    state: State,
    volume_id: String,
    fs_type: String,
    volume_size: u64,
    shadow_id: ShadowId,
    /// The base of the stream that was applied last.
    since_shadow_id: Option<ShadowId>,
    cut_at: Instant,
    /// The file's last modification when the import had ended, in seconds and nanoseconds; none of a device.
    modified: Option<(i64, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Holds,
    Applying,
}

/// What is to be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// All of it is written.
    Whole,
    /// It is applied, every block that the base had in use being looked at before.
    OnBase,
    /// It is applied once more, after it was broken off.
    Again,
    /// The target has the copy already: nothing is written.
    AlreadyThere,
}

impl Held {
    /// The record's file for an image.
    pub(crate) fn place(image: &Path) -> PathBuf {
        let mut name = OsString::from(image);
        name.push(SUFFIX);
        name.into()
    }

    /// The record that says that this stream is being applied.
    pub(crate) fn applying(header: &Header) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            state: State::Applying,
            volume_id: header.volume_id.clone(),
            fs_type: header.fs_type.clone(),
            volume_size: header.volume_size,
            shadow_id: header.shadow_id,
            since_shadow_id: header.since,
            cut_at: header.cut_at,
            modified: None,
        }
    }

    /// The same when it is applied.
    pub(crate) fn complete(self, modified: Option<(i64, i64)>) -> Self {
        Self { state: State::Holds, modified, ..self }
    }

    /// Reads a record; none where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(crate) fn read(place: &Path) -> Result<Option<Self>, VssError> {
        let mut text = Vec::new();
        match File::open(place).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system_error(format_args!("{} cannot be read", place.display()), &error)),
        }
        let unreadable = |why: String| {
            VssError::new(VssCode::InvalidArgument, format!("{} is no record of an import: {why}", place.display()))
                .with_hint("Remove it, and import a full stream with --overwrite")
        };
        if text.len() as u64 > LONGEST {
            return Err(unreadable(format!("it has more than {LONGEST} bytes")));
        }
        let held: Self = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if held.format_version != FORMAT_VERSION {
            return Err(unreadable(format!("format {}, and this release reads {FORMAT_VERSION}", held.format_version)));
        }
        Ok(Some(held))
    }

    /// Brings the record to disk: the old one or this one is there, whole, whatever happens.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, place: &Path) -> Result<(), VssError> {
        let mut beside = OsString::from(place);
        beside.push(".new");
        let write = || {
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            put_in_place(&file, Path::new(&beside), place)
        };
        write().map_err(|error| system_error(format_args!("{} cannot be written", place.display()), &error))
    }

    /// The copy that it is about.
    pub(crate) fn shadow_id(&self) -> ShadowId {
        self.shadow_id
    }
}

/// What is to be done with a stream of this header, for a target with this record that holds something (`is_empty`: it does
/// not) and, if a file, was last modified then.
///
/// # Errors
/// `E_INVALIDARG`: it is not what the stream builds on, or would be overwritten unasked.
pub(crate) fn decide(
    header: &Header,
    held: Option<&Held>,
    is_empty: bool,
    modified: Option<(i64, i64)>,
    overwrite: bool,
) -> Result<Decision, VssError> {
    let refused = |what: String, hint: &str| Err(VssError::new(VssCode::InvalidArgument, what).with_hint(hint));
    let Some(since) = header.since else {
        return match held {
            None if is_empty || overwrite => Ok(Decision::Whole),
            None => refused(
                "It holds something, and no record says that an import has put it there".to_owned(),
                "Name another file, or --overwrite what is there",
            ),
            Some(held) if held.volume_id == header.volume_id || overwrite => Ok(Decision::Whole),
            Some(held) => refused(
                format!("It holds a copy of {}, and the stream is of {}", held.volume_id, header.volume_id),
                "Name another file, or --overwrite what is there",
            ),
        };
    };
    let full = "Export the copy without --since, and import that";
    let Some(held) = held else {
        return refused(
            format!("The stream builds on shadow copy {since}, and no record says what is there"),
            "Import a full stream of that copy first; an image takes its record with it: IMAGE.vss-stream",
        );
    };
    if (&held.volume_id, held.volume_size) != (&header.volume_id, header.volume_size) {
        return refused(
            format!(
                "It holds a copy of {} with {} bytes, and the stream is of {} with {} bytes",
                held.volume_id, held.volume_size, header.volume_id, header.volume_size
            ),
            "Name the image of the same volume",
        );
    }
    let is_same_stream = held.shadow_id == header.shadow_id && held.since_shadow_id == header.since;
    match held.state {
        State::Applying if is_same_stream => return Ok(Decision::Again),
        State::Applying => {
            return refused(
                format!("An import of shadow copy {} was broken off: what is there is no copy", held.shadow_id),
                "Run that import again, or import a full stream",
            );
        }
        State::Holds => {}
    }
    if held.shadow_id != header.shadow_id && held.shadow_id != since {
        return refused(format!("It holds shadow copy {}, and the stream builds on {since}", held.shadow_id), full);
    }
    if held.modified != modified {
        return refused(format!("It was written to since shadow copy {} was imported", held.shadow_id), full);
    }
    Ok(if held.shadow_id == header.shadow_id { Decision::AlreadyThere } else { Decision::OnBase })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn id(number: u128) -> ShadowId {
        ShadowId::from_u128(number)
    }

    fn header(shadow: u128, since: Option<u128>) -> Header {
        Header {
            set_id: vss_model::SetId::from_u128(1),
            shadow_id: id(shadow),
            since: since.map(id),
            volume_size: 8192,
            block: 4096,
            volume_id: "ext4:u".to_owned(),
            fs_type: "ext4".to_owned(),
            cut_at: Instant::now(),
        }
    }

    const THEN: Option<(i64, i64)> = Some((7, 9));

    fn holds(shadow: u128) -> Held {
        Held::applying(&header(shadow, Some(90))).complete(THEN)
    }

    #[test]
    fn an_incremental_stream_meets_its_base_or_nothing() {
        let wanted = header(2, Some(1));
        let decided =
            |held: Option<&Held>, modified| decide(&wanted, held, false, modified, true).map_err(|error| error.code);
        let no = Err(VssCode::InvalidArgument);
        assert_eq!(decided(Some(&holds(1)), THEN), Ok(Decision::OnBase));
        assert_eq!(decided(Some(&holds(2)), THEN), Ok(Decision::AlreadyThere));
        assert_eq!(decided(None, THEN), no, "nothing is known");
        assert_eq!(decided(Some(&holds(3)), THEN), no, "another copy");
        assert_eq!(decided(Some(&holds(1)), Some((7, 10))), no, "written to");
        assert_eq!(decided(Some(&holds(2)), Some((7, 10))), no, "written to, after it had the copy");
        assert_eq!(decided(Some(&Held { volume_size: 4096, ..holds(1) }), THEN), no, "another size");
        assert_eq!(decided(Some(&Held { volume_id: "ext4:v".to_owned(), ..holds(1) }), THEN), no, "another volume");
        assert_eq!(decided(Some(&Held::applying(&wanted)), None), Ok(Decision::Again));
        assert_eq!(decided(Some(&Held::applying(&header(2, Some(7)))), None), no, "half of another stream");
        assert_eq!(decided(Some(&Held::applying(&header(1, None))), None), no, "half of the base");
    }

    #[test]
    fn a_full_stream_overwrites_what_an_import_put_there() {
        let decided = |held: Option<&Held>, is_empty, overwrite| {
            decide(&header(2, None), held, is_empty, None, overwrite).map_err(|error| error.code)
        };
        let no = Err(VssCode::InvalidArgument);
        assert_eq!(decided(None, true, false), Ok(Decision::Whole));
        assert_eq!(decided(None, false, false), no, "somebody's data");
        assert_eq!(decided(None, false, true), Ok(Decision::Whole));
        assert_eq!(decided(Some(&holds(1)), false, false), Ok(Decision::Whole));
        assert_eq!(decided(Some(&Held::applying(&header(5, Some(4)))), false, false), Ok(Decision::Whole));
        let other = Held { volume_id: "ext4:v".to_owned(), ..holds(1) };
        assert_eq!(decided(Some(&other), false, false), no, "another volume's");
        assert_eq!(decided(Some(&other), false, true), Ok(Decision::Whole));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = Held::place(&directory.path().join("image"));
        assert!(place.to_str().unwrap().ends_with("/image.vss-stream"));
        assert_eq!(Held::read(&place).unwrap(), None);
        holds(1).write(&place).unwrap();
        assert_eq!(
            Held::read(&place).unwrap(),
            Some(holds(1)).map(|held| Held { cut_at: Held::read(&place).unwrap().unwrap().cut_at, ..held })
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        for wrong in ["", "{}", "x", &" ".repeat(20_000)] {
            fs::write(&place, wrong).unwrap();
            assert_eq!(Held::read(&place).unwrap_err().code, VssCode::InvalidArgument);
        }
        let mut later = serde_json::to_value(holds(1)).unwrap();
        later["format_version"] = 2.into();
        fs::write(&place, later.to_string()).unwrap();
        assert!(Held::read(&place).unwrap_err().message.contains("format 2"));
    }
}

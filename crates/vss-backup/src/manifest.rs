//! The manifest: one JSON object a line, an [`Entry`] each, in the order of [`crate::order`]. While a backup is made the same
//! lines are its journal.

use crate::entry::Entry;
use crate::order::compare;
use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vss_model::limits;

/// A longer line is no entry: the names of a path and 4 MiB of attributes in base64 fit, and as many ranges as a file may have,
/// each with two numbers of 20 digits.
const LINE: u64 = (16 << 20) + 64 * limits::RANGES as u64;
/// So long may a finished entry be in memory alone.
const FLUSH: Duration = Duration::from_millis(200);

/// Reads entries in their order.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    lines: R,
    ahead: Option<Entry>,
    last: Option<PathBuf>,
}

impl Reader<BufReader<File>> {
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(BufReader::with_capacity(1 << 16, File::open(path)?)))
    }
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(lines: R) -> Self {
        Self { lines, ahead: None, last: None }
    }

    /// The next entry; none at the end.
    ///
    /// # Errors
    /// `InvalidData` for a line that is no entry or stands out of order, and for a last line that is not whole.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.ahead.take() {
            return Ok(Some(entry));
        }
        let mut line = Vec::new();
        (&mut self.lines).take(LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is not whole"));
        }
        let entry: Entry = serde_json::from_slice(&line).map_err(|error| {
            let after = self.last.as_ref().map_or("the beginning".to_owned(), |last| last.display().to_string());
            io::Error::new(io::ErrorKind::InvalidData, format!("no entry, after {after}: {error}"))
        })?;
        if self.last.as_ref().is_some_and(|last| compare(last, &entry.path) != Ordering::Less) {
            let message = format!("{} is out of order", entry.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.last = Some(entry.path.clone());
        Ok(Some(entry))
    }

    /// The path of the next entry.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) fn peek(&mut self) -> io::Result<Option<&Entry>> {
        if self.ahead.is_none() {
            self.ahead = self.next()?;
        }
        Ok(self.ahead.as_ref())
    }

    /// The entry of `path`, after those of all paths before it; paths are asked for in order.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) fn at(&mut self, path: &Path) -> io::Result<Option<Entry>> {
        while let Some(next) = self.peek()? {
            match compare(&next.path, path) {
                Ordering::Less => self.ahead = None,
                Ordering::Equal => return Ok(self.ahead.take()),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Writes entries.
#[derive(Debug)]
pub(crate) struct Writer {
    out: BufWriter<File>,
    flushed: Instant,
}

impl Writer {
    /// A new, empty file.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: BufWriter::with_capacity(1 << 16, File::create(path)?), flushed: Instant::now() })
    }

    /// Adds an entry, which comes after all before it.
    ///
    /// # Errors
    /// Those of write(2).
    pub(crate) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, entry)?;
        self.out.write_all(b"\n")?;
        if self.flushed.elapsed() > FLUSH {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands everything to the kernel: it outlives this process.
    ///
    /// # Errors
    /// Those of write(2).
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        self.out.flush()
    }
}

/// Joins two journals: the newer one says what is true up to where it ends, the older one what comes after. A line that is
/// not whole ends either.
///
/// # Errors
/// Those of reading and writing.
pub(crate) fn join(older: Option<&Path>, newer: Option<&Path>, joined: &Path) -> io::Result<()> {
    let mut out = Writer::create(joined)?;
    let mut last: Option<PathBuf> = None;
    for path in [newer, older].into_iter().flatten() {
        let mut reader = Reader::open(path)?;
        while let Some(entry) = reader.next().or_else(not_whole)? {
            if last.as_ref().is_none_or(|last| compare(last, &entry.path) == Ordering::Less) {
                out.write(&entry)?;
                last = Some(entry.path);
            }
        }
    }
    out.flush()?;
    // It takes the place of both: what they say must not be lost with the power.
    out.out.get_ref().sync_all()
}

/// Takes what a killed program left as the end.
fn not_whole(error: io::Error) -> io::Result<Option<Entry>> {
    if error.kind() == io::ErrorKind::InvalidData { Ok(None) } else { Err(error) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::entry::{Attributes, Kind, Parts, Range, Time, Version};
    use std::collections::BTreeMap;

    /// A directory at this path.
    pub(crate) fn entry(path: &str) -> Entry {
        let attributes = Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: Time(1, 2),
            accessed: Time(3, 4),
            xattrs: BTreeMap::from([("user.\u{fc}".into(), vec![0, 255])]),
            flags: 0,
        };
        Entry::new(path.into(), Kind::Directory, attributes, vec![1], Version::default())
    }

    fn text(paths: &[&str]) -> String {
        let lines = paths.iter().map(|path| serde_json::to_string(&entry(path)).unwrap() + "\n");
        lines.collect()
    }

    fn paths(text: &str) -> Vec<String> {
        let mut reader = Reader::new(text.as_bytes());
        let mut paths = Vec::new();
        while let Ok(Some(entry)) = reader.next() {
            paths.push(entry.path.display().to_string());
        }
        paths
    }

    #[test]
    fn as_many_ranges_as_a_file_may_have_are_read_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("manifest");
        let far = |at: usize| Range { offset: u64::MAX - at as u64, length: u64::MAX };
        let ranges = (0..limits::RANGES).map(far).collect();
        let parts = Some(Parts { ranges, metadata: "x".repeat(1 << 20) });
        let many = Entry { parts, ..entry("/a") };
        let mut writer = Writer::create(&path).unwrap();
        writer.write(&many).unwrap();
        writer.flush().unwrap();
        assert!(Reader::open(&path).unwrap().next().unwrap() == Some(many));
    }

    #[test]
    fn what_is_asked_for_in_order_is_found() {
        let text = text(&["/a", "/b/x", "/b", "/c"]);
        let mut reader = Reader::new(text.as_bytes());
        assert_eq!(reader.at(Path::new("/a")).unwrap(), Some(entry("/a")));
        assert_eq!(reader.at(Path::new("/aa")).unwrap(), None);
        assert_eq!(reader.at(Path::new("/b")).unwrap().unwrap().path, Path::new("/b"));
        assert_eq!(reader.at(Path::new("/d")).unwrap(), None);
    }

    #[test]
    fn disorder_and_a_torn_line_are_seen() {
        for bad in [text(&["/b", "/a"]), text(&["/a", "/a"]), "{}\n".to_owned(), text(&["/a"]).trim_end().to_owned()] {
            let mut reader = Reader::new(bad.as_bytes());
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("taken: {bad}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn the_newer_journal_is_true_as_far_as_it_goes() {
        let place = tempfile::tempdir().unwrap();
        let (older, newer, joined) = (place.path().join("1"), place.path().join("2"), place.path().join("3"));
        std::fs::write(&older, text(&["/a", "/c", "/d", "/e"]) + "{\"torn").unwrap();
        std::fs::write(&newer, text(&["/a", "/b", "/c"]) + "{\"pa").unwrap();
        join(Some(&older), Some(&newer), &joined).unwrap();
        assert_eq!(paths(&std::fs::read_to_string(&joined).unwrap()), ["/a", "/b", "/c", "/d", "/e"]);
        std::fs::write(&newer, text(&["/d"])).unwrap();
        join(Some(&older), Some(&newer), &joined).unwrap();
        assert_eq!(paths(&std::fs::read_to_string(&joined).unwrap()), ["/d", "/e"]);
        join(None, None, &joined).unwrap();
        assert_eq!(std::fs::read(&joined).unwrap(), b"");
    }
}

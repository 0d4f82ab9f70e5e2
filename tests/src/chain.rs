//! A program whose files on several volumes belong together: it writes the same number to one directory after another, each
//! with fsync, and then the next number. A copy of one instant has in each directory what it has in the one before, or one
//! less, and goes down at most once in all; anything else was never on the disks.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// A file has this many numbers, all the same: a block.
const NUMBERS: usize = 512;

/// How a number replaces the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In place.
    Overwrite,
    /// By another file of the same name, as programs do that must not lose the old one.
    Rename,
}

/// The writing program: one thread.
#[derive(Debug)]
pub struct Chain {
    name: String,
    /// As indexes of the directories.
    order: Vec<usize>,
    stop: Arc<AtomicBool>,
    round: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What a copy of a [`Chain`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Chain {
    /// Starts to write a file `name` in these directories, of which `order` says which comes when, after one round.
    ///
    /// # Errors
    /// The first round cannot be written.
    pub fn start(name: &str, directories: &[&Path], order: &[usize], way: Way) -> io::Result<Self> {
        let directories: Vec<PathBuf> = order.iter().map(|index| directories[*index].to_path_buf()).collect();
        let (stop, round) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let write = {
            let name = name.to_owned();
            move |number| directories.iter().try_for_each(|directory| write(directory, &name, number, way))
        };
        write(1)?;
        let (stopped, written) = (Arc::clone(&stop), Arc::clone(&round));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                write(written.load(Ordering::Relaxed) + 1)?;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { name: name.to_owned(), order: order.to_vec(), stop, round, thread: Some(thread) })
    }

    /// How many rounds are written.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Judges copies of the directories, in the order in which they were given to [`Chain::start`], and returns the round of
    /// the copy.
    ///
    /// # Errors
    /// They are of no one instant.
    pub fn judge(&self, copies: &[impl AsRef<Path>]) -> Result<u64, Broken> {
        let numbers = self.order.iter().map(|index| read(copies[*index].as_ref(), &self.name));
        let numbers = numbers.collect::<Result<Vec<u64>, Broken>>()?;
        let is_falling = numbers.windows(2).all(|two| two[0] >= two[1]);
        match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) if is_falling && first - last <= 1 => Ok(*first),
            _ => Err(Broken(format!("{}, volumes {:?}: {numbers:?}", self.name, self.order))),
        }
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// A write failed.
    pub fn stop(mut self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))?;
        }
        Ok(self.rounds())
    }
}

impl Drop for Chain {
    /// Does not wait: the thread ends with its round.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(directory: &Path, name: &str, number: u64, way: Way) -> io::Result<()> {
    let path = directory.join(name);
    let block = [number; NUMBERS].map(u64::to_le_bytes).concat();
    let written = match way {
        Way::Overwrite => path.clone(),
        Way::Rename => directory.join(format!("{name}.new")),
    };
    let file = OpenOptions::new().create(true).truncate(way == Way::Rename).write(true).open(&written)?;
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    if way == Way::Rename {
        fs::rename(written, path)?;
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn read(directory: &Path, name: &str) -> Result<u64, Broken> {
    let path = directory.join(name);
    let block = fs::read(&path).map_err(|error| Broken(format!("{}: {error}", path.display())))?;
    let (numbers, rest) = block.as_chunks::<8>();
    let first = numbers.first().map(|bytes| u64::from_le_bytes(*bytes));
    match first {
        Some(first)
            if numbers.len() == NUMBERS
                && rest.is_empty()
                && numbers.iter().all(|bytes| u64::from_le_bytes(*bytes) == first) =>
        {
            Ok(first)
        }
        _ => Err(Broken(format!("{} is torn: {} bytes", path.display(), block.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn only_what_was_once_on_the_disks_is_whole() -> anyhow::Result<()> {
        let directories = [(); 3].map(|()| TempDir::new());
        let [one, two, three] = directories;
        let (one, two, three) = (one?, two?, three?);
        let places = [one.path(), two.path(), three.path()];
        let chain = Chain::start("chain", &places, &[2, 0, 1], Way::Rename)?;
        while chain.rounds() < 3 {
            thread::yield_now();
        }
        let (name, order) = (chain.name.clone(), chain.order.clone());
        let last = chain.stop()?;
        let judge = Chain {
            name,
            order,
            stop: Arc::new(AtomicBool::new(true)),
            round: Arc::new(AtomicU64::new(last)),
            thread: None,
        };
        assert_eq!(judge.judge(&places), Ok(last));
        // The volume that is written first, then the second, then the third.
        for (numbers, is_whole) in
            [([9, 9, 9], true), ([9, 9, 8], true), ([9, 8, 8], true), ([8, 9, 8], false), ([9, 8, 7], false)]
        {
            for (index, number) in judge.order.iter().zip(numbers) {
                write(places[*index], "chain", number, Way::Overwrite)?;
            }
            assert_eq!(judge.judge(&places).is_ok(), is_whole, "{numbers:?}");
        }
        fs::write(one.path().join("chain"), [9u64.to_le_bytes(); NUMBERS - 1].concat())?;
        assert!(judge.judge(&places).is_err());
        Ok(())
    }
}

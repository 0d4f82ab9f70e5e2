//! `vss import`: applies a stream to an image file or a device. Needs no service.

use super::Failure;
use crate::args::ImportArguments;
use crate::exit::{system_error, unreadable_file};
use crate::meter::Meter;
use crate::output;
use crate::transfer::{Decision, Held, Target, apply, decide, in_words, unreadable, verify};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vss_model::{VssCode, VssError};
use vss_stream::{Header, Reader, Summary};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

pub(super) fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let mut input = Input::open(arguments.file.as_deref())?;
    let Some(to) = &arguments.to else {
        let reader = Reader::new(input.reader()?).map_err(|error| unreadable(&error))?;
        let header = reader.header().clone();
        let summary = verify(reader, &mut Meter::new("checking", input.size()))?;
        output::line(&format!("The stream is whole: {}: {}", subject(&header), in_words(&summary)))?;
        return Ok(());
    };
    let is_device = Target::is_device(to)?;
    let record = place_of_record(arguments, to, is_device)?;
    if input.is_file() {
        let reader = Reader::new(input.reader()?).map_err(|error| unreadable(&error))?;
        verify(reader, &mut Meter::new("checking", input.size()))?;
        input.rewind()?;
    }
    let reader = Reader::new(input.reader()?).map_err(|error| unreadable(&error))?;
    let header = reader.header().clone();
    let (decision, summary) = receive(reader, &header, to, is_device, &record, arguments.overwrite)?;
    let done = match decision {
        Decision::AlreadyThere => "held already; nothing was written",
        Decision::Whole | Decision::OnBase | Decision::Again => "imported",
    };
    output::line(&format!("{}: {done}: {}: {}", to.display(), subject(&header), in_words(&summary)))?;
    Ok(())
}

fn receive(
    reader: Reader<Box<dyn Read>>,
    header: &Header,
    to: &Path,
    is_device: bool,
    record: &Path,
    overwrite: bool,
) -> Result<(Decision, Summary), VssError> {
    let of_it = |error: VssError| error.while_doing(format!("{} is left as it is", to.display()));
    // Before a file is made: what cannot be applied leaves nothing behind.
    let held = Held::read(record)?;
    if header.since.is_some() && (held.is_none() || !to.exists()) {
        decide(header, None, true, None, overwrite).map_err(of_it)?;
    }
    let mut target = Target::open(to, is_device)?;
    // Again, since nobody else changes it any more.
    let held = Held::read(record)?;
    let failed = |error: io::Error| system_error(format_args!("{} cannot be looked at", to.display()), &error);
    let modified = target.modified().map_err(failed)?;
    let decision = decide(header, held.as_ref(), target.is_empty(), modified, overwrite).map_err(of_it)?;
    let mut meter = Meter::new("applying", None);
    if decision == Decision::AlreadyThere {
        return Ok((decision, verify(reader, &mut meter)?));
    }
    let is_whole = decision == Decision::Whole;
    if is_device || !is_whole {
        target.fit(header.volume_size, is_whole).map_err(of_it)?;
    }
    let applying = Held::applying(header);
    applying.write(record)?;
    if is_whole {
        target.fit(header.volume_size, true)?;
    }
    let applied = apply(reader, &target, decision == Decision::OnBase, is_whole && !is_device, &mut meter);
    let summary = applied.map_err(|error| {
        let left = format!("{} is half way to shadow copy {}", to.display(), applying.shadow_id());
        error.while_doing(left)
    })?;
    let modified = target.modified().map_err(failed)?;
    applying.complete(modified).write(record)?;
    Ok((decision, summary))
}

fn place_of_record(arguments: &ImportArguments, to: &Path, is_device: bool) -> Result<PathBuf, VssError> {
    match &arguments.record {
        Some(record) => Ok(record.clone()),
        None if !is_device => Ok(Held::place(to)),
        None => Err(VssError::new(
            VssCode::InvalidArgument,
            format!("{} is a device: nothing beside it can say what it holds", to.display()),
        )
        .with_hint("Name a file for that, the same with every import to this device: --record FILE")),
    }
}

fn subject(header: &Header) -> String {
    let since = header.since.map(|since| format!(" since {since}")).unwrap_or_default();
    let Header { shadow_id, volume_id, cut_at, .. } = header;
    format!("shadow copy {shadow_id}{since} of {volume_id}, cut {cut_at}")
}

/// Where the stream comes from.
struct Input(File);

impl Input {
    fn open(file: Option<&Path>) -> Result<Self, VssError> {
        use std::os::fd::AsFd;
        match file {
            Some(path) if path.is_dir() => Err(unreadable_file(path, &io::ErrorKind::IsADirectory.into())),
            Some(path) => File::open(path).map(Self).map_err(|error| unreadable_file(path, &error)),
            None if io::stdin().is_terminal() => {
                Err(VssError::new(VssCode::InvalidArgument, "No stream comes from a terminal")
                    .with_hint("Name its file, or let `vss export` write into a pipe"))
            }
            None => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                stdin.map(|fd| Self(fd.into())).map_err(|error| system_error("Standard input cannot be read", &error))
            }
        }
    }

    /// True when it can be read twice.
    fn is_file(&self) -> bool {
        self.0.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    fn size(&self) -> Option<u64> {
        self.0.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    fn rewind(&mut self) -> Result<(), VssError> {
        self.0
            .seek(SeekFrom::Start(0))
            .map(drop)
            .map_err(|error| system_error("The stream cannot be read again", &error))
    }

    fn reader(&self) -> Result<Box<dyn Read>, VssError> {
        let file = self.0.try_clone().map_err(|error| system_error("The stream cannot be read", &error))?;
        Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
    }
}

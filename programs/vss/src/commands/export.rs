//! `vss export`: a shadow copy, or what changed since an earlier one, as a stream.

use super::Failure;
use crate::args::ExportArguments;
use crate::exit::{FAILED, system_error};
use crate::meter::Meter;
use crate::output::say;
use crate::signals::Signals;
use crate::transfer::{Image, Plan, in_words, put_in_place, send};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vss_api::blocks::ImageOpened;
use vss_model::Bytes;
use vss_model::{Extent, ShadowId, VssCode, VssError};
use vss_requester::requester::interrupted;
use vss_requester::{Instance, Management, unexpected_answer};
use vss_stream::{Header, Summary};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

pub(super) fn export(instance: &Instance, arguments: &ExportArguments) -> Result<(), Failure> {
    let destination = Destination::choose(arguments.output.as_deref())?;
    let mut management = Management::connect(instance)?;
    let (opened, image) = open(&mut management, arguments.shadow)?;
    let header = header(arguments, &opened)?;
    let used = in_use(&mut management, arguments.shadow)?;
    let (plan, base) = match arguments.since {
        None => (Plan::full(used), None),
        Some(since) => {
            let changed = management.changed_blocks(arguments.shadow, Some(since))?;
            let (base_opened, base) = open(&mut management, since)?;
            if base_opened.volume_size != opened.volume_size {
                return Err(resized(base_opened.volume_size, opened.volume_size).into());
            }
            let in_base = in_use(&mut management, since)?;
            if let Some(why) = &changed.unknown {
                say(&format!("vss: comparing everything that is in use: {why}"));
            }
            let known = changed.unknown.is_none().then_some(changed.extents.as_slice());
            (Plan::since(&used, in_base, known), Some(base))
        }
    };
    let mut meter = Meter::new("sending", Some(plan.bytes()));
    let write = |out: &mut dyn Write| {
        let out = io::BufWriter::with_capacity(BUFFER, out);
        send(out, header, &image, base.as_ref(), &plan, &mut meter)
    };
    let summary = destination.fill(write)?;
    drop(meter);
    say(&told(arguments, &summary, plan.bytes()));
    Ok(())
}

fn told(arguments: &ExportArguments, summary: &Summary, read: u64) -> String {
    let since = arguments.since.map(|since| format!(" since {since}")).unwrap_or_default();
    format!("vss: exported {}{since}: read {}, sent {}", arguments.shadow, Bytes(read), in_words(summary))
}

fn open(management: &mut Management, shadow_id: ShadowId) -> Result<(ImageOpened, Image), VssError> {
    let (opened, file) = management.open_image(shadow_id)?;
    let image = Image { file, offset: opened.offset };
    Ok((opened, image))
}

fn header(arguments: &ExportArguments, opened: &ImageOpened) -> Result<Header, VssError> {
    let block = u32::try_from(opened.block_size)
        .map_err(|_| unexpected_answer(format!("The image has blocks of {} bytes", opened.block_size)))?;
    Ok(Header {
        set_id: opened.set_id,
        shadow_id: arguments.shadow,
        since: arguments.since,
        volume_size: opened.volume_size,
        block,
        volume_id: opened.volume_id.to_string(),
        fs_type: opened.fs_type.clone(),
        cut_at: opened.cut_at,
    })
}

/// What is in use in a copy.
fn in_use(management: &mut Management, shadow_id: ShadowId) -> Result<Vec<Extent>, VssError> {
    let blocks = management.changed_blocks(shadow_id, None)?;
    match blocks.unknown {
        None => Ok(blocks.extents),
        Some(why) => Err(VssError::new(
            VssCode::NotSupported,
            format!("It is not known which blocks of shadow copy {shadow_id} are in use: {why}"),
        )
        .with_hint("Make another copy, and export that one without --since")),
    }
}

fn resized(then: u64, now: u64) -> VssError {
    VssError::new(VssCode::NotSupported, format!("The volume had {then} bytes and has {now}"))
        .with_hint("Export the copy without --since")
}

/// Where the stream goes.
enum Destination {
    Stdout,
    /// A file that appears under this name when it is whole; a wish to stop leaves nothing of it.
    File(PathBuf, Signals),
}

impl Destination {
    /// Before anything is read.
    fn choose(output: Option<&Path>) -> Result<Self, VssError> {
        match output {
            None if io::stdout().is_terminal() => {
                let message = "The stream is no text for a terminal";
                Err(VssError::new(VssCode::InvalidArgument, message)
                    .with_hint("Redirect it, or write it to a file: -o FILE"))
            }
            None => Ok(Self::Stdout),
            Some(path) if fs::symlink_metadata(path).is_ok() => {
                Err(VssError::new(VssCode::ObjectAlreadyExists, format!("{} is there already", path.display()))
                    .with_hint("Name a new file"))
            }
            Some(path) => Ok(Self::File(path.to_owned(), Signals::catch(FAILED)?)),
        }
    }

    /// Lets `write` write all of it.
    fn fill(self, write: impl FnOnce(&mut dyn Write) -> Result<Summary, VssError>) -> Result<Summary, VssError> {
        let (path, signals) = match self {
            // Not locked by lines, as `io::stdout` is.
            Self::Stdout => return write(&mut own_stdout()?),
            Self::File(path, signals) => (path, signals),
        };
        let mut part = OsString::from(&path);
        part.push(".part");
        let failed = |error: io::Error| system_error(format_args!("{} cannot be written", path.display()), &error);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file =
            file.map_err(|error| failed(error).with_hint("Name a file in a directory that can be written to"))?;
        let filled = write(&mut Stoppable { file: &file, signals: &signals }).and_then(|summary| {
            put_in_place(&file, Path::new(&part), &path).map_err(failed)?;
            Ok(summary)
        });
        if filled.is_err() {
            // What is left of it is no use to anybody.
            let _ = fs::remove_file(&part);
        }
        if filled.is_err() && signals.wishes() > 0 { Err(interrupted()) } else { filled }
    }
}

/// A file that takes no more once the user wishes to stop.
struct Stoppable<'a> {
    file: &'a File,
    signals: &'a Signals,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.signals.wishes() > 0 {
            return Err(io::Error::other("interrupted"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn own_stdout() -> Result<File, VssError> {
    use std::os::fd::AsFd;
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    stdout.map(File::from).map_err(|error| system_error("Standard output cannot be used", &error))
}

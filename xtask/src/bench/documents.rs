//! `cargo xtask bench documents`: how long the largest Writer Metadata Document takes to read and to write.
//!
//! It is the System Writer's, which Windows made and VSS_TESTDATA has; without that, one of our own with as many file sets.
//! Beside it, in the same rounds: quick-xml alone, which keeps nothing and is the floor, and the parser that Python brings
//! (expat in C, and a tree of its elements).

use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Issue: reading and writing it together, at p50.
const WANTED: Duration = Duration::from_millis(50);
/// File sets in the largest document that Windows is known to have made.
const FILES: usize = 18_925;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds; each has every way
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// Nanoseconds by the clock, and of the processor.
type Took = [u64; 2];

/// One round.
#[derive(Debug, Deserialize)]
struct Round {
    parse: Took,
    write: Took,
    make: Took,
    tokenize: Took,
    bytes: usize,
    files: usize,
}

/// True when the median is what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::PYTHON], interrupt)?;
    let directory = tempfile::TempDir::with_prefix_in("vss-bench-", house::scratch())?;
    let document = document(directory.path())?;
    let rounds = measured(&document, arguments.rounds, interrupt)?;
    let python = python(&document, arguments.rounds, interrupt)?;
    let Some(first) = rounds.first() else { anyhow::bail!("nothing was measured") };
    println!("{} bytes, {} file sets, {} rounds\n", first.bytes, first.files, rounds.len());
    let of = |what: fn(&Round) -> Took| rounds.iter().map(what).collect::<Vec<Took>>();
    let both = of(|round| [round.parse[0] + round.write[0], round.parse[1] + round.write[1]]);
    let rows = [
        ("read: tree and model", of(|round| round.parse)),
        ("write as it was read", of(|round| round.write)),
        ("read and write", both.clone()),
        ("make a new one of the model", of(|round| round.make)),
        ("quick-xml alone, read", of(|round| round.tokenize)),
        ("Python's ElementTree, read", python.iter().map(|times| times[0]).collect()),
        ("Python's ElementTree, write", python.iter().map(|times| times[1]).collect()),
    ];
    println!("{:<30}{:>10}{:>10}{:>10}{:>14}", "ms", "median", "least", "most", "processor");
    for (name, series) in &rows {
        let Summary { p50, least, most, .. } = summary(series, 0);
        println!("{name:<30}{p50:>10.2}{least:>10.2}{most:>10.2}{:>14.2}", summary(series, 1).p50);
    }
    let (median, processor) = (summary(&both, 0).p50, summary(&both, 1).p50);
    let good = median < WANTED.as_secs_f64() * 1000.0;
    println!(
        "\nWanted: read and write in less than {} ms: {median:.2} ms ({processor:.2} ms of the processor), {}",
        WANTED.as_millis(),
        if good { "yes" } else { "NO" }
    );
    if arguments.json {
        let series: serde_json::Map<_, _> = rows
            .iter()
            .map(|(name, series)| ((*name).to_owned(), json!([summary(series, 0), summary(series, 1)])))
            .collect();
        println!("{}", json!({"bytes": first.bytes, "files": first.files, "rounds": rounds.len(), "ms": series}));
    }
    Ok(good)
}

/// Of the times by the clock (0) or of the processor (1).
fn summary(series: &[Took], which: usize) -> Summary {
    Summary::of(&series.iter().map(|took| Duration::from_nanos(took[which])).collect::<Vec<_>>())
}

/// The document to measure.
fn document(directory: &Path) -> Result<PathBuf> {
    if let Some(data) = std::env::var_os("VSS_TESTDATA") {
        let path = PathBuf::from(data).join("windows/documents/WM3.xml");
        ensure!(path.is_file(), "{} is not there", path.display());
        println!("The System Writer's document of Windows Server 2012 R2:");
        return Ok(path);
    }
    println!("VSS_TESTDATA is not set; a document of our own with as many file sets:");
    let files: String = (0..FILES)
        .map(|number| {
            format!(
                "<FILE_LIST path=\"/usr/lib/system/component-{number:05}/resources\" filespec=\"library-{number:05}.so\" \
                 filespecBackupType=\"3855\"/>"
            )
        })
        .collect();
    let path = directory.join("document.xml");
    std::fs::write(
        &path,
        format!(
            "<WRITER_METADATA xmlns=\"x-schema:#VssWriterMetadataInfo\" version=\"1.2\"><IDENTIFICATION \
             writerId=\"e8132975-6f93-4464-a53e-1050253ae220\" instanceId=\"ce678d65-95d0-4bea-a43d-2a288bc94500\" \
             friendlyName=\"System Writer\" usage=\"BOOTABLE_SYSTEM_STATE\" dataSource=\"OTHER\"/><BACKUP_LOCATIONS>\
             <FILE_GROUP componentName=\"System Files\" selectable=\"yes\">{files}</FILE_GROUP></BACKUP_LOCATIONS>\
             </WRITER_METADATA>"
        ),
    )?;
    Ok(path)
}

fn measured(document: &Path, rounds: u32, interrupt: &Interrupt) -> Result<Vec<Round>> {
    let mut command = house::cargo();
    command.args(["bench", "--quiet", "--package", "vss-documents", "--bench", "documents", "--"]);
    command.arg(document).arg(rounds.to_string());
    let text = interrupt.output(&mut command)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Reading and writing by Python.
fn python(document: &Path, rounds: u32, interrupt: &Interrupt) -> Result<Vec<[Took; 2]>> {
    const PROGRAM: &str = "
import json, sys, time
import xml.etree.ElementTree as tree
data = open(sys.argv[1], 'rb').read()
def timed(work):
    clock, processor = time.perf_counter_ns(), time.thread_time_ns()
    done = work()
    return done, [time.perf_counter_ns() - clock, time.thread_time_ns() - processor]
for _ in range(int(sys.argv[2])):
    root, read = timed(lambda: tree.fromstring(data))
    _, write = timed(lambda: tree.tostring(root))
    print(json.dumps([read, write]))
";
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM]).arg(document).arg(rounds.to_string());
    let text = interrupt.output(&mut command)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

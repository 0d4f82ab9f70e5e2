//! The measured part of `cargo xtask bench documents`: reads and writes one document again and again, and prints how long
//! each took in nanoseconds by the clock and by the processor, a line of JSON a round. Arguments: the file, the number of rounds.

use quick_xml::Reader;
use quick_xml::events::Event;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::{Duration, Instant};
use vss_documents::WriterMetadataDocument;

fn main() {
    // Cargo adds --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [file, rounds] = arguments.as_slice() else {
        // `cargo test` and `cargo bench` run it without any.
        println!("SKIPPED: documents: run it by cargo xtask bench documents");
        return;
    };
    let bytes = std::fs::read(file).unwrap();
    for _ in 0..rounds.parse::<u32>().unwrap() {
        let (document, parse) = timed(|| WriterMetadataDocument::parse(&bytes).unwrap());
        let (written, write) = timed(|| document.document().to_bytes());
        assert!(written == bytes, "it is not written as it was");
        let (_, make) = timed(|| WriterMetadataDocument::new(document.content()).unwrap().document().to_bytes());
        let (tokens, tokenize) = timed(|| tokens(&bytes));
        let files: usize = document.content().components.iter().map(|one| one.all_files().count()).sum();
        println!(
            "{{\"parse\": {parse:?}, \"write\": {write:?}, \"make\": {make:?}, \"tokenize\": {tokenize:?}, \"tokens\": {tokens}, \
             \"bytes\": {}, \"files\": {files}}}",
            bytes.len()
        );
    }
}

/// What it gives, and by the clock and by the processor how long it took: on a busy machine others run meanwhile.
fn timed<T>(work: impl FnOnce() -> T) -> (T, [u128; 2]) {
    let processor = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
    };
    let (started, ran) = (Instant::now(), processor());
    let done = black_box(work());
    (done, [started.elapsed().as_nanos(), (processor() - ran).as_nanos()])
}

/// quick-xml alone: every event and every attribute, and nothing kept.
fn tokens(bytes: &[u8]) -> u64 {
    let mut reader = Reader::from_str(std::str::from_utf8(bytes).unwrap());
    let mut tokens = 0;
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return tokens,
            Event::Start(tag) | Event::Empty(tag) => {
                tokens += 1;
                for attribute in tag.attributes() {
                    black_box(attribute.unwrap());
                    tokens += 1;
                }
            }
            other => {
                black_box(other);
                tokens += 1;
            }
        }
    }
}

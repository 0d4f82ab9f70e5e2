//! A document that is made to cost memory: alone in its process, because memory is counted.

use vss_documents::{Document, limits};

/// Most memory that this process ever had: `VmHWM`, proc_pid_status(5).
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// As many attributes and elements as there may be, in UTF-16 so that the bytes are held twice.
#[test]
fn the_most_that_a_document_can_cost_is_bounded() {
    let per_element = limits::ATTRIBUTES / (limits::NODES - 1);
    let attributes: String = (0..per_element).map(|number| format!(" {}=''", ["a", "b", "c"][number])).collect();
    let text = format!("<r>{}</r>", format!("<e{attributes}/>").repeat(limits::NODES - 1));
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    drop(text);
    assert!(bytes.len() <= limits::DOCUMENT_BYTES, "{}", bytes.len());
    let before = peak_bytes();
    let document = Document::parse(&bytes).unwrap();
    let grown = peak_bytes().saturating_sub(before);
    println!("{} bytes with {} elements: {grown} bytes more", bytes.len(), limits::NODES);
    assert!(document.to_bytes() == bytes);
    assert!(grown < 256 << 20, "{grown}");
}

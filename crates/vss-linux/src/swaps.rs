//! The swap space in use, read from `/proc/swaps` (proc(5)).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::mountinfo::unescape;

/// One swap area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapArea {
    /// The file or the device's node.
    pub path: PathBuf,
    /// True for a file, false for a block device.
    pub is_file: bool,
    /// Bytes in use.
    pub used: u64,
}

/// All swap areas that are in use.
///
/// # Errors
/// The kernel has no swapping, or `/proc` is not mounted.
pub fn swaps() -> io::Result<Vec<SwapArea>> {
    Ok(parse(&fs::read("/proc/swaps")?))
}

/// Reads the text of the list: a line of headings, then `PATH TYPE SIZE USED PRIORITY`, sizes in KiB. Lines of another form
/// are left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<SwapArea> {
    text.split(|byte| *byte == b'\n').skip(1).filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<SwapArea> {
    let mut fields = line.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
    let path = std::ffi::OsString::from_vec(unescape(fields.next()?));
    let kind = fields.next()?;
    let used: u64 = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some(SwapArea { path: path.into(), is_file: kind == b"file", used: used.saturating_mul(1024) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_devices_are_told_apart() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/dm-1                               partition\t8388604\t\t12\t\t-2\n\
            /var/swap\\040file                       file\t\t65532\t\t0\t\t-3\n";
        let areas = parse(text);
        assert_eq!(areas[0], SwapArea { path: "/dev/dm-1".into(), is_file: false, used: 12 << 10 });
        assert_eq!(areas[1], SwapArea { path: "/var/swap file".into(), is_file: true, used: 0 });
        assert_eq!(areas.len(), 2);
        assert!(parse(b"").is_empty() && parse(b"Filename Type\nx\n").is_empty());
    }
}

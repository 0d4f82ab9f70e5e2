//! The order in which paths stand in a manifest: the names of a directory by their bytes, what is in a directory before the
//! directory itself. Everything that compares manifests or walks a tree keeps it, so no list has to be held in memory.

use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Compares two absolute paths without `.`, `..` and doubled slashes.
#[must_use]
pub fn compare(one: &Path, other: &Path) -> Ordering {
    let (one, other) = (below_root(one), below_root(other));
    if one == other {
        return Ordering::Equal;
    }
    // Everything is in the root.
    if one.is_empty() || other.is_empty() {
        return one.is_empty().cmp(&other.is_empty());
    }
    let at = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    match (one.get(at), other.get(at)) {
        // One is in the directory that the other is.
        (None, Some(b'/')) => Ordering::Greater,
        (Some(b'/'), None) => Ordering::Less,
        // A name that ends here is less than one that goes on.
        (None | Some(b'/'), _) => Ordering::Less,
        (_, None | Some(b'/')) => Ordering::Greater,
        (one, other) => one.cmp(&other),
    }
}

fn below_root(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_directory_comes_before_it_and_names_go_by_their_bytes() {
        let sorted = ["/a/b", "/a/c/x", "/a/c", "/a/c!", "/a", "/a!", "/a!b", "/ab", "/b/z", "/b", "/\u{fc}", "/"];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(compare(Path::new(one), Path::new(other)), at.cmp(&other_at), "{one} {other}");
            }
        }
    }
}

//! What people read on stdout and stderr: lines and tables. A reader that went away is no reason to panic.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Back to the beginning of the line, and nothing on it any more (ECMA-48: CR, EL).
const CLEAR: &str = "\r\x1b[K";
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// True while the last line of the terminal is one that will be written anew.
static LIVE_LINE: Mutex<bool> = Mutex::new(false);

fn live_line() -> MutexGuard<'static, bool> {
    LIVE_LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to stderr. Where even that fails there is nobody to tell.
pub(crate) fn say(line: &str) {
    let mut live = live_line();
    let clear = if std::mem::take(&mut *live) { CLEAR } else { "" };
    let _ = writeln!(io::stderr().lock(), "{clear}{line}");
}

/// Writes a line to the terminal that stderr is, in place of the live line before: the first of these that fits, else the
/// beginning of the last.
pub(crate) fn say_live(lines: &[String]) {
    let mut live = live_line();
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { COLUMNS } else { columns };
    let mut stderr = io::stderr().lock();
    // The last column is left free: some terminals go to the next line with it.
    let line = fitting(lines, columns.saturating_sub(1));
    let _ = write!(stderr, "{CLEAR}{line}").and_then(|()| stderr.flush());
    *live = true;
}

/// Takes the live line away.
pub(crate) fn end_live() {
    if std::mem::take(&mut *live_line()) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{CLEAR}").and_then(|()| stderr.flush());
    }
}

fn fitting(lines: &[String], columns: usize) -> &str {
    let fits = lines.iter().find(|line| line.chars().count() <= columns);
    let line = fits.or(lines.last()).map(String::as_str).unwrap_or_default();
    line.char_indices().nth(columns).map_or(line, |(end, _)| &line[..end])
}

/// Writes a warning to stderr, for everybody to see.
pub(crate) fn warn(what: &str) {
    say(&format!("vss: warning: {}", printable(what)));
}

/// The text as one line, with control characters replaced: names come from other users, and a terminal obeys escape
/// sequences.
pub(crate) fn printable(text: &str) -> String {
    let plain = |character: char| match character {
        '\n' | '\t' => ' ',
        character if character.is_control() => '\u{fffd}',
        character => character,
    };
    text.chars().map(plain).collect()
}

/// So many of them: `1 file`, `2 files`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Writes a table to stdout: aligned for a terminal, else one line a row with its cells separated by tabs.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let stdout = io::stdout();
    let aligned = stdout.is_terminal();
    write_table(&mut stdout.lock(), aligned, header, rows)
}

fn write_table(out: &mut impl Write, aligned: bool, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    if aligned {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(header);
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        return writeln!(out, "{}", table.trim_fmt());
    }
    writeln!(out, "{}", header.join("\t"))?;
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| printable(cell)).collect();
        writeln!(out, "{}", cells.join("\t"))?;
    }
    Ok(())
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", printable(text))
}

/// Writes these bytes to stdout, as they are.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes one JSON document to stdout.
pub(crate) fn json(document: &impl serde::Serialize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, document)?;
    writeln!(stdout)
}

/// Writes one JSON document on a line of its own to stdout, at once.
pub(crate) fn json_line(document: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![vec!["a".to_owned(), "long cell".to_owned()], vec!["\u{1b}[31mred".to_owned(), String::new()]]
    }

    #[test]
    fn the_first_live_line_that_fits_is_taken_and_the_last_is_cut_between_characters() {
        let lines = ["\u{e4}\u{e4}\u{e4}\u{e4}".to_owned(), "\u{e4}b\u{e4}".to_owned()];
        let shown = [9, 4, 3, 2, 0].map(|columns| fitting(&lines, columns));
        assert_eq!(shown, ["\u{e4}\u{e4}\u{e4}\u{e4}", "\u{e4}\u{e4}\u{e4}\u{e4}", "\u{e4}b\u{e4}", "\u{e4}b", ""]);
        assert_eq!(fitting(&[], 5), "");
    }

    #[test]
    fn a_program_reads_tabs() {
        let mut out = Vec::new();
        write_table(&mut out, false, &["ONE", "TWO"], &rows()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ONE\tTWO\na\tlong cell\n\u{fffd}[31mred\t\n");
    }

    #[test]
    fn a_person_reads_columns_and_no_escape_sequence() {
        let mut out = Vec::new();
        write_table(&mut out, true, &["ONE", "TWO"], &rows()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let columns: Vec<Option<usize>> =
            text.lines().take(2).map(|line| line.find("TWO").or(line.find("long"))).collect();
        assert_eq!(columns[0], columns[1]);
    }
}

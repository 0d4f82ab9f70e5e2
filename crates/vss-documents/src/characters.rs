//! Which characters may stand where, and how the others are written (XML 1.0, 2.2 to 2.4 and 4.1).

use std::borrow::Cow;

/// True for a character that may stand in a document.
pub(crate) const fn is_character(one: char) -> bool {
    !matches!(one, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// Where the first character stands that may not be in a document.
pub(crate) fn forbidden(text: &str) -> Option<usize> {
    let control = text.bytes().position(|byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r'));
    // Documents are plain as a rule, which is seen at once.
    let noncharacter = if text.is_ascii() { None } else { text.find(['\u{fffe}', '\u{ffff}']) };
    match (control, noncharacter) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// True for white space of XML.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// True for text that is white space.
pub(crate) fn is_blank(text: &str) -> bool {
    text.bytes().all(is_space)
}

const fn begins_name(one: char) -> bool {
    matches!(one,
        ':' | '_' | 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

const fn is_in_name(one: char) -> bool {
    begins_name(one)
        || matches!(one, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// True for the name of an element or attribute, with at most one prefix.
pub(crate) fn is_name(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
        return !text.is_empty();
    }
    let is_part = |part: &str| part.chars().next().is_some_and(begins_name) && part.chars().all(is_in_name);
    text.split(':').count() <= 2 && text.split(':').all(is_part)
}

/// The character that the text between `&` and `;` stands for: one of the five that XML knows, or a number.
pub(crate) fn reference(name: &str) -> Option<char> {
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "apos" => return Some('\''),
        "quot" => return Some('"'),
        _ => name.strip_prefix('#')?,
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    char::from_u32(u32::from_str_radix(digits, radix).ok()?).filter(|one| is_character(*one))
}

/// Where the first `&` stands that begins no reference, and what follows it up to the `;`.
pub(crate) fn bad_reference(raw: &str) -> Option<(usize, &str)> {
    raw.match_indices('&').find_map(|(place, _)| {
        let rest = &raw[place + 1..];
        let name = rest.split_once(';').map(|(name, _)| name);
        if name.is_some_and(|name| reference(name).is_some()) { None } else { Some((place, name.unwrap_or(rest))) }
    })
}

/// What the written text stands for. Every reference in it is known to be one; line ends become `\n`.
pub(crate) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|byte| matches!(byte, b'&' | b'\r')) {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(place) = rest.find(['&', '\r']) {
        text.push_str(&rest[..place]);
        rest = &rest[place..];
        if let Some(after) = rest.strip_prefix('\r') {
            text.push('\n');
            rest = after.strip_prefix('\n').unwrap_or(after);
            continue;
        }
        let known = rest[1..].split_once(';').and_then(|(name, after)| Some((reference(name)?, after)));
        let (one, after) = known.unwrap_or(('&', &rest[1..]));
        text.push(one);
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The text as it is written between quotation marks. It holds only characters that may be in a document.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\t' | b'\n' | b'\r')) {
        return Cow::Borrowed(text);
    }
    let mut raw = String::with_capacity(text.len() + 16);
    for one in text.chars() {
        match one {
            '&' => raw.push_str("&amp;"),
            '<' => raw.push_str("&lt;"),
            '>' => raw.push_str("&gt;"),
            '"' => raw.push_str("&quot;"),
            // A reader may turn these into blanks where they stand as they are.
            '\t' => raw.push_str("&#9;"),
            '\n' => raw.push_str("&#10;"),
            '\r' => raw.push_str("&#13;"),
            other => raw.push(other),
        }
    }
    Cow::Owned(raw)
}

/// Any bytes as text that may be in a document: what is no letter, digit or one of `/._-` becomes `%` and two digits.
pub(crate) fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-') {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The bytes that [`percent_encode`] wrote; none for a `%` without its two digits.
pub(crate) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_text_reads_back() {
        for text in ["", "plain", "a & b < c > d \"e\" 'f'", "tab\tline\nend\r", "\u{fc}\u{1f600}", "&amp;"] {
            assert_eq!(unescape(&escape(text)), text);
            assert!(bad_reference(&escape(text)).is_none());
        }
        assert_eq!(unescape("a\r\nb\rc&#xD;&#10;"), "a\nb\nc\r\n");
    }

    #[test]
    fn references_are_the_five_and_numbers() {
        for (name, wanted) in [("lt", Some('<')), ("#65", Some('A')), ("#x1F600", Some('\u{1f600}'))] {
            assert_eq!(reference(name), wanted);
        }
        for name in ["", "#", "#x", "#0", "#8", "#xD800", "#x110000", "#+1", "#-1", "nbsp", "LT", "#99999999999"] {
            assert_eq!(reference(name), None, "{name}");
        }
        assert_eq!(bad_reference("a &lt; &x; b"), Some((7, "x")));
        assert_eq!(bad_reference("a & b"), Some((2, " b")));
    }

    #[test]
    fn names_are_names() {
        for (name, wanted) in [
            ("a", true),
            ("linux:path", true),
            ("_a-1.2", true),
            ("", false),
            ("1a", false),
            ("a b", false),
            (":a", false),
            ("a:", false),
            ("a:b:c", false),
            ("a<b", false),
        ] {
            assert_eq!(is_name(name), wanted, "{name}");
        }
    }

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(percent_decode(&percent_encode(&all)), Some(all));
        for wrong in ["%", "%1", "%zz", "a%+1"] {
            assert_eq!(percent_decode(wrong), None);
        }
    }
}

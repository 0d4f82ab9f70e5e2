//! What is damaged or made to do harm is refused: with its place, with one of the two codes, and without costing much.

use std::time::{Duration, Instant};
use vss_documents::{
    AnyDocument, BackupComponentsDocument, Document, DocumentError, Fault, WriterMetadataDocument, limits,
};
use vss_model::{VssCode, VssError};

fn refused(text: &str) -> DocumentError {
    let started = Instant::now();
    let error = Document::parse(text.as_bytes()).err().unwrap_or_else(|| panic!("accepted: {text:.200}"));
    // Debug builds on a busy machine; the largest input here has 32 MiB.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(error.message.len() < 600 && !error.message.contains('\n'), "{error}");
    error
}

#[test]
fn what_is_not_well_formed_is_corrupt_and_its_place_is_told() {
    let table = [
        ("", (1, 1)),
        ("   \n ", (2, 2)),
        ("text", (1, 1)),
        ("<a>", (1, 4)),
        ("<a>\n <b>\n</a>", (3, 1)),
        ("</a>", (1, 1)),
        ("<a></a></a>", (1, 8)),
        ("<a/><b/>", (1, 5)),
        ("<a/>\nx", (2, 1)),
        ("<a b/>", (1, 5)),
        ("<a b=1/>", (1, 6)),
        ("<a b='1' b='2'/>", (1, 10)),
        ("<a b='1'c='2'/>", (1, 9)),
        ("<a b='<'/>", (1, 7)),
        ("<a b='&x;'/>", (1, 7)),
        ("<a b='&'/>", (1, 7)),
        ("<a>x &nbsp; y</a>", (1, 6)),
        ("<a>&#0;</a>", (1, 4)),
        ("<a>]]></a>", (1, 4)),
        ("<a>\u{1}</a>", (1, 4)),
        ("<a>\u{fc}\u{fc}\u{ffff}</a>", (1, 6)),
        ("<a ü:b='1' xmlns:c='d'/>", (1, 1)),
        ("<1a/>", (1, 1)),
        ("<a:b:c xmlns:a='x'/>", (1, 1)),
        ("<a xmlns:p=''/>", (1, 4)),
        ("<a/><![CDATA[x]]>", (1, 5)),
        ("<a/><?xml version='1.0'?>", (1, 5)),
        ("<?xml?><a/>", (1, 1)),
    ];
    for (text, place) in table {
        let error = refused(text);
        assert_eq!(
            (error.fault, error.position.line, error.position.column),
            (Fault::Corrupt, place.0, place.1),
            "{text}: {error}"
        );
        assert_eq!(VssError::from(error).code, VssCode::CorruptXmlDocument);
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c --><a b='1'><c d=\"&lt;\">x<![CDATA[y]]></c><e/></a>";
    Document::parse(whole.as_bytes()).unwrap();
    for end in 0..whole.len() {
        let error = Document::parse(&whole.as_bytes()[..end]).unwrap_err();
        assert_eq!(error.fault, Fault::Corrupt, "{end}: {error}");
    }
}

#[test]
fn nothing_in_a_document_stands_for_more_than_itself() {
    let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbbbbbbbb'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'>]><a>&c;&c;</a>";
    for text in [bomb, "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "<?xml version='1.0'?><!DOCTYPE a><a/>"] {
        let error = refused(text);
        assert!(error.fault == Fault::Invalid && error.message.contains("document type"), "{error}");
    }
    assert_eq!(refused("<a>&c;</a>").fault, Fault::Corrupt);
}

#[test]
fn each_limit_is_kept() {
    let depth = limits::DEPTH;
    Document::parse(("<a>".repeat(depth) + &"</a>".repeat(depth)).as_bytes()).unwrap();
    let attributes = |count: usize| (0..count).map(|number| format!(" a{number}='x'")).collect::<String>();
    let element = format!("<a{}/>", attributes(limits::ATTRIBUTES_PER_ELEMENT));
    Document::parse(element.as_bytes()).unwrap();
    let namespaces = |count: usize| {
        let on = |from: usize, to: usize| (from..to).map(|n| format!(" xmlns:p{n}='u'")).collect::<String>();
        format!("<a{}><b{}/></a>", on(0, count / 2), on(count / 2, count))
    };
    Document::parse(namespaces(limits::PREFIXES).as_bytes()).unwrap();
    let many = limits::ATTRIBUTES / limits::ATTRIBUTES_PER_ELEMENT + 1;
    let table = [
        ("nested", "<a>".repeat(depth + 1)),
        ("nested", "<a>".repeat(1_000_000)),
        ("attributes", format!("<a{}/>", attributes(limits::ATTRIBUTES_PER_ELEMENT + 1))),
        ("attributes", format!("<r>{}</r>", element.repeat(many))),
        ("namespaces", namespaces(limits::PREFIXES + 2)),
        ("name", format!("<{}/>", "a".repeat(limits::NAME_BYTES + 1))),
        ("elements", format!("<r>{}</r>", "<a/>".repeat(limits::NODES))),
        ("elements", format!("<r>{}</r>", "<!---->".repeat(limits::NODES))),
        ("bytes", " ".repeat(limits::DOCUMENT_BYTES + 1)),
    ];
    for (word, text) in table {
        let error = refused(&text);
        assert!(error.fault == Fault::Invalid && error.message.contains(word), "{word}: {error}");
        assert_eq!(VssError::from(error).code, VssCode::InvalidXmlDocument);
    }
}

#[test]
fn encodings_that_are_not_read_are_named() {
    let text = "<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
    let error = refused(text);
    assert!(error.fault == Fault::Invalid && error.message.contains("ISO-8859-1"), "{error}");
    assert_eq!(refused("<?xml version='1.1'?><a/>").fault, Fault::Invalid);
    let utf16: Vec<u8> =
        "<?xml version='1.0' encoding='UTF-8'?><a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(Document::parse(&utf16).unwrap_err().fault, Fault::Invalid, "declared UTF-8, written UTF-16");
}

const IDENTIFICATION: &str = "<IDENTIFICATION writerId='d61d61c8-d73a-4eee-8cdd-f6f9786b7124' \
    instanceId='{1BDDD48E-5052-49DB-9B07-B96F96727E6B}' friendlyName='w' usage='USER_DATA' dataSource='OTHER'/>";

fn metadata(inner: &str) -> String {
    format!("<WRITER_METADATA xmlns='x-schema:#VssWriterMetadataInfo' version='1.2'>\n{inner}</WRITER_METADATA>")
}

fn group(attributes: &str, inner: &str) -> String {
    let inner = format!("<FILE_GROUP {attributes}>{inner}</FILE_GROUP>");
    metadata(&format!("{IDENTIFICATION}\n<BACKUP_LOCATIONS>\n{inner}</BACKUP_LOCATIONS>"))
}

#[test]
fn what_does_not_follow_the_schema_is_invalid_and_its_place_is_told() {
    let name = "componentName='a' selectable='yes'";
    let table = [
        ("<a/>".to_owned(), (1, 1), "root"),
        ("<WRITER_METADATA/>".to_owned(), (1, 1), "namespace"),
        (metadata(""), (1, 1), "IDENTIFICATION"),
        (metadata(&format!("{IDENTIFICATION}\n{IDENTIFICATION}")), (3, 1), "second"),
        (metadata(&IDENTIFICATION.replace("d61d61c8", "d61d61cx")), (2, 27), "GUID"),
        (metadata("<IDENTIFICATION instanceId='1BDDD48E-5052-49DB-9B07-B96F96727E6B'/>"), (2, 1), "writerId"),
        (group("selectable='yes'", ""), (4, 1), "componentName"),
        (group("componentName='a'", ""), (4, 1), "selectable"),
        (group("componentName='' selectable='yes'", ""), (4, 28), "componentName"),
        (group("componentName='a' selectable='maybe'", ""), (4, 43), "neither yes nor no"),
        (group(&format!("{name} componentFlags='-1'"), ""), (4, 64), "number"),
        (group(&format!("{name} componentFlags='4294967296'"), ""), (4, 64), "number"),
        (group(name, "<FILE_LIST filespec='*'/>"), (4, 48), "path"),
        (group(name, "<FILE_LIST path='/'/>"), (4, 48), "filespec"),
        (group(name, "<FILE_LIST path='/' filespec='*' filespecBackupType='0x1'/>"), (4, 101), "number"),
    ];
    for (text, place, word) in table {
        let error = WriterMetadataDocument::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.fault, Fault::Invalid, "{error}");
        assert!(error.message.contains(word), "{word}: {error}");
        assert_eq!((error.position.line, error.position.column), place, "{text}: {error}");
    }
    assert_eq!(AnyDocument::parse(b"<VSS/>").unwrap_err().fault, Fault::Invalid);
    assert!(AnyDocument::parse(group(name, "").as_bytes()).is_ok());
}

#[test]
fn words_and_parts_that_are_not_known_are_remarked_and_kept() {
    let text =
        group("componentName='a' selectable='yes' colour='red'", "<PAINT/><DATABASE_FILES path='/' filespec='*'/>")
            .replace("USER_DATA", "MY_DATA");
    let document = WriterMetadataDocument::parse(text.as_bytes()).unwrap();
    let (remarks, unsaid) = document.remarks();
    let words = ["MY_DATA", "colour", "PAINT", "DATABASE_FILES"];
    assert_eq!((remarks.len(), unsaid), (words.len(), 0), "{remarks:?}");
    for (remark, word) in remarks.iter().zip(words) {
        assert!(remark.message.contains(word), "{remark:?}");
    }
    assert_eq!(document.document().to_text(), text);
    let many = group("componentName='a' selectable='yes'", &"<PAINT/>".repeat(limits::REMARKS + 7));
    let document = WriterMetadataDocument::parse(many.as_bytes()).unwrap();
    assert_eq!((document.remarks().0.len(), document.remarks().1), (limits::REMARKS, 7));
}

#[test]
fn what_a_session_cannot_say_is_invalid() {
    let session = |inner: &str| {
        let text = format!(
            "<BACKUP_COMPONENTS xmlns='x-schema:#VssComponentMetadata' backupType='full'><WRITER_COMPONENTS \
             writerId='d61d61c8-d73a-4eee-8cdd-f6f9786b7124' instanceId='d61d61c8-d73a-4eee-8cdd-f6f9786b7124'>\
             <COMPONENT componentName='a' {inner}</COMPONENT></WRITER_COMPONENTS></BACKUP_COMPONENTS>"
        );
        BackupComponentsDocument::parse(text.as_bytes())
    };
    session("componentType='filegroup'>").unwrap();
    for inner in [
        ">",
        "componentType='files'>",
        "componentType='filegroup' backupSucceeded='true'>",
        "componentType='filegroup'><PARTIAL_FILE path='/' filename='x' ranges='1-2'/>",
        "componentType='filegroup'><PARTIAL_FILE path='/' ranges='1:2'/>",
        "componentType='filegroup'><FAILURE hr='0'/>",
        "componentType='filegroup'><FAILURE hr='2147754996'/><FAILURE hr='2147754996'/>",
        "componentType='filegroup'><DIFFERENCED_FILES path='/' filespec='*' lastModifyTime='now'/>",
    ] {
        assert_eq!(session(inner).unwrap_err().fault, Fault::Invalid, "{inner}");
    }
}

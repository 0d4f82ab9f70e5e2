//! `vss document` as a person meets it: without a service, by its exit status and its words.

use std::path::Path;
use std::process::{Command, Output};

const VALID: &str = "<WRITER_METADATA xmlns=\"x-schema:#VssWriterMetadataInfo\" version=\"1.2\">\n<IDENTIFICATION \
    writerId=\"d61d61c8-d73a-4eee-8cdd-f6f9786b7124\" instanceId=\"1bddd48e-5052-49db-9b07-b96f96727e6b\" \
    friendlyName=\"shop\" usage=\"USER_DATA\" dataSource=\"OTHER\"/>\n<BACKUP_LOCATIONS><FILE_GROUP \
    componentName=\"orders\" selectable=\"yes\"><FILE_LIST path=\"/srv/1\" filespec=\"*\"/><FILE_LIST path=\"/srv/2\" \
    filespec=\"*\"/><FILE_LIST path=\"/srv/3\" filespec=\"*\"/><FILE_LIST path=\"/srv/4\" filespec=\"*\"/><FILE_LIST \
    path=\"/srv/5\" filespec=\"*\"/><FILE_LIST path=\"/srv/6\" filespec=\"*\" colour=\"red\"/></FILE_GROUP>\
    </BACKUP_LOCATIONS></WRITER_METADATA>";

fn vss(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_vss"))
        .args(["document"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_document_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("good.xml"), VALID).unwrap();
    std::fs::write(directory.path().join("cut.xml"), &VALID[..200]).unwrap();
    std::fs::write(directory.path().join("wrong.xml"), VALID.replace("\"yes\"", "\"maybe\"")).unwrap();
    let vss = |arguments: &[&str]| vss(directory.path(), arguments);

    let (status, out, err) = vss(&["check", "good.xml"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("good.xml: valid Writer Metadata Document in UTF-8: writer shop, 1 component, 6 file sets\n")
    );
    assert!(out.contains("line 3, column ") && out.contains("colour is not known here, and kept"), "{out}");

    let (status, out, err) = vss(&["check", "cut.xml"]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("vss: cut.xml: line 2, column ") && err.contains("VSS_E_CORRUPT_XML_DOCUMENT"), "{err}");

    let (status, out, _) = vss(&["check", "wrong.xml", "--json"]);
    let check: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, check["valid"].as_bool()), (Some(1), Some(false)));
    assert_eq!(check["error"]["code"], "VSS_E_INVALID_XML_DOCUMENT");
    assert_eq!((check["error"]["line"].as_u64(), check["error"]["column"].as_u64()), (Some(3), Some(66)));

    let (status, out, _) = vss(&["show", "good.xml"]);
    assert_eq!(status, Some(0));
    assert!(out.contains("Component orders: file group, can be chosen") && out.contains("* in /srv/5\n"), "{out}");
    assert!(out.contains("and 1 more (--files shows all)") && !out.contains("/srv/6"), "{out}");
    assert!(vss(&["show", "good.xml", "--files"]).1.contains("* in /srv/6\n"));

    let (_, out, _) = vss(&["show", "good.xml", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["kind"], "writer_metadata");
    assert_eq!(shown["metadata"]["components"][0]["files"].as_array().unwrap().len(), 6);

    let (status, _, err) = vss(&["show", "none.xml"]);
    assert!(status == Some(1) && err.contains("VSS_E_OBJECT_NOT_FOUND"), "{err}");
    assert_eq!(vss(&["check", "/dev/zero"]).0, Some(1), "it never ends");
    assert_eq!(vss(&["check"]).0, Some(2));
}

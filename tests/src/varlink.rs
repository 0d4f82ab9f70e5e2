//! What a Varlink client that is none of ours sees of the service: the Python package `varlink`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Prints what a client sees, as one JSON document.
const CLIENT: &str = r#"
import json, sys, varlink
with varlink.Client("unix:" + sys.argv[1]) as client:
    names = client.get_interfaces()
    with client.open("org.linuxvss.Management") as management:
        shadows = management.ListShadows()["shadows"]
    description = client.get_interface("org.linuxvss.Management").description
print(json.dumps({"interfaces": names, "shadows": shadows, "description": description}))
"#;

/// What the client sees at this socket; `python` is an interpreter that has the package.
///
/// # Errors
/// It ends with an exception; the message has it.
pub fn python_sees(mut python: Command, socket: &Path) -> anyhow::Result<Value> {
    let output = python.arg("-c").arg(CLIENT).arg(socket).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("one JSON document")
}

/// Checks that it is the interfaces and the one copy of this set.
///
/// # Errors
/// What is missing.
pub fn check(seen: &Value, set: &Value) -> anyhow::Result<()> {
    let interfaces = seen["interfaces"].as_array().context("interfaces")?;
    for interface in ["org.linuxvss.Requester", "org.linuxvss.Management"] {
        ensure!(interfaces.iter().any(|name| name == interface), "no {interface}: {seen}");
    }
    ensure!(seen["description"].as_str().is_some_and(|text| text.contains("method ListShadows")), "{seen}");
    let shadows = seen["shadows"].as_array().context("shadow copies")?;
    ensure!(shadows.len() == 1 && shadows[0]["set_id"] == set["set_id"], "{seen} is not {set}");
    Ok(())
}

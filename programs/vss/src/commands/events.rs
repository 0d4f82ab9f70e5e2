//! `vss events`: what the service did, and what it does.

use super::Failure;
use crate::args::EventsArguments;
use crate::{event_text, output};
use serde_json::json;
use vss_api::management::EventList;
use vss_requester::{Instance, Management};

pub(super) fn events(instance: &Instance, arguments: &EventsArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    if !arguments.follow {
        print(&management.events(arguments.after)?, arguments.json)?;
        return Ok(());
    }
    for list in management.follow(arguments.after)? {
        print(&list?, arguments.json)?;
    }
    Ok(())
}

fn print(list: &EventList, json: bool) -> std::io::Result<()> {
    if list.lost > 0 {
        let lost = list.lost;
        if json {
            output::json_line(&json!({"kind": "lost", "lost": lost}))?;
        } else {
            output::line(&format!("({lost} events are forgotten)"))?;
        }
    }
    for event in &list.events {
        if json {
            output::json_line(event)?;
        } else {
            output::line(&event_text::line(event))?;
        }
    }
    Ok(())
}

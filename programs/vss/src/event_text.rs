//! Events as people read them.

use crate::window::{ms, signed};
use vss_api::event::{Event, EventKind, MemberTimes};
use vss_model::Span;

/// One event with its time, in one line.
pub(crate) fn line(event: &Event) -> String {
    let at = event.at.map_or_else(String::new, vss_model::Instant::local_ms);
    format!("{at}  {:<17} {}", event.kind.name(), words(event))
}

/// What an event says, without its time and kind.
pub(crate) fn words(event: &Event) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let took = event.took_us.map(|took_us| format!(" {} ms", ms(took_us))).unwrap_or_default();
    let failure = event.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    let set = event.set_id.map(|set_id| format!("set {set_id}")).unwrap_or_default();
    let volume = event.volume.as_ref().map(|volume| volume.display().to_string()).unwrap_or_default();
    let copy = event.shadow_id.map(|shadow_id| format!("{shadow_id} of {volume}")).unwrap_or_default();
    match event.kind {
        EventKind::ServiceStarted => event.recovery.join("; "),
        EventKind::ServiceStopped => String::new(),
        EventKind::SessionOpened | EventKind::SessionClosed => text(&event.requester),
        EventKind::SetBegun => format!("{set} for {}", text(&event.requester)),
        EventKind::Step => format!("{}{took}{failure}", text(&event.step)),
        EventKind::WriterEvent => format!("{} {}{took}{failure}", text(&event.writer), text(&event.step)),
        EventKind::Member => format!("{volume}: {}", event.member.as_ref().map(member).unwrap_or_default()),
        EventKind::SetFinished => {
            let consistency = event.consistency.map(|consistency| consistency.to_string()).unwrap_or_default();
            format!("{set}: {consistency}, held {} ms", ms(event.hold_us.unwrap_or(0)))
        }
        EventKind::SetFailed => format!("{set}{failure}"),
        EventKind::CopyDeleted | EventKind::CopyUnexposed => copy,
        EventKind::CopyExposed => {
            format!("{copy} at {}", event.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
        }
        EventKind::WriterRegistered | EventKind::WriterGone => text(&event.writer),
        EventKind::Progress => event.progress.as_ref().map(ToString::to_string).unwrap_or_default(),
        EventKind::ProviderTrouble => format!("{} in {}{failure}", text(&event.provider), text(&event.step)),
    }
}

fn member(times: &MemberTimes) -> String {
    let span = |name: &str, span: Option<Span>| {
        span.map(|span| format!("{name} {} +{}", signed(span.from_us), ms(span.took_us)))
    };
    let parts = [
        Some(if times.freeze.is_some() { "held".to_owned() } else { "not held".to_owned() }),
        span("freeze", times.freeze),
        span("cut", times.commit),
        span("thaw", times.thaw),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(event: Value) -> String {
        words(&serde_json::from_value(event).unwrap())
    }

    #[test]
    fn each_kind_has_its_words() {
        let id = "b5946137-7b9f-4925-af80-51abd60b20d5";
        let event = |kind: &str, rest: Value| {
            let mut event = json!({"seq": 1, "at": null, "kind": kind});
            event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            said(event)
        };
        assert_eq!(event("step", json!({"step": "hold", "took_us": 1500})), "hold 1.500 ms");
        let failure = json!({"code": "VSS_E_WRITERERROR_TIMEOUT", "message": "late", "hint": ""});
        let said = event("writer_event", json!({"writer": "w", "step": "Freeze", "took_us": 7, "failure": failure}));
        assert_eq!(said, "w Freeze 0.007 ms: late (VSS_E_WRITERERROR_TIMEOUT, 0x800423F2)");
        let times = json!({"freeze": {"from_us": 0, "took_us": 20}, "commit": {"from_us": 30, "took_us": 1},
            "thaw": {"from_us": 40, "took_us": 5}, "answers": []});
        assert_eq!(
            event("member", json!({"volume": "/srv", "member": times})),
            "/srv: held, freeze 0.000 +0.020, cut 0.030 +0.001, thaw 0.040 +0.005"
        );
        assert_eq!(
            event("set_finished", json!({"set_id": id, "consistency": "crash", "hold_us": 45})),
            format!("set {id}: crash, held 0.045 ms")
        );
        assert_eq!(
            event("copy_exposed", json!({"shadow_id": id, "volume": "/srv", "path": "/mnt"})),
            format!("{id} of /srv at /mnt")
        );
        assert_eq!(event("service_started", json!({"recovery": ["a", "b"]})), "a; b");
    }
}

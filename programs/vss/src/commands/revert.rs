//! `vss revert`: an unmounted volume becomes again what it was when a shadow copy was made.

use super::Failure;
use crate::args::RevertArguments;
use crate::meter::Meter;
use crate::output::{self, printable, say};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use vss_api::blocks::{RevertState, RevertStatus};
use vss_model::Bytes;
use vss_model::{ShadowCopy, ShadowId, VssCode, VssError};
use vss_requester::{Instance, Management, unexpected_answer};

/// Longest wait for something new.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn revert(instance: &Instance, arguments: &RevertArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    let shadows = management.shadows()?;
    let shadow =
        shadows.iter().find(|shadow| shadow.id == arguments.shadow).ok_or_else(|| no_such(arguments.shadow))?;
    let place = shadow.volume.display();
    if arguments.give_up {
        management.give_up_revert(shadow.id)?;
        output::line(&format!(
            "The revert of {place} is given up: it is neither what it was nor shadow copy {}",
            shadow.id
        ))?;
        return Ok(());
    }
    if !arguments.yes && !confirmed(shadow, &shadows)? {
        say("vss: nothing was changed");
        return Err(Failure::No);
    }
    management.revert(shadow.id).map_err(|error| unknown(error, shadow.id))?;
    let ended = follow(&mut management, shadow)?;
    match (ended.state, ended.failure) {
        (RevertState::Finished, _) => {
            let written = Bytes(ended.written_bytes);
            output::line(&format!("{place} is shadow copy {} again: {written} were written back", shadow.id))?;
            Ok(())
        }
        (state, Some(failure)) => {
            let what = match state {
                RevertState::Failed => format!("{place} was left as it was"),
                _ => format!("{place} is half reverted, and `vss revert {}` ends it", shadow.id),
            };
            Err(failure.while_doing(what).into())
        }
        (_, None) => Err(unexpected_answer(format!("The revert of {place} did not end")).into()),
    }
}

fn no_such(shadow_id: ShadowId) -> VssError {
    VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy {shadow_id}"))
        .with_hint("`vss list shadows` shows those that are")
}

/// Says what is lost, and asks.
fn confirmed(shadow: &ShadowCopy, shadows: &[ShadowCopy]) -> Result<bool, VssError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = "A revert overwrites the volume, and there is no terminal to ask at";
        return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Add --yes"));
    }
    say(&printable(&lost(shadow, shadows)));
    let _ = write!(io::stderr().lock(), "Revert? Type yes: ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && answer.trim() == "yes")
}

/// What a person has to know before.
fn lost(shadow: &ShadowCopy, shadows: &[ShadowCopy]) -> String {
    let newer = shadows.iter().filter(|one| one.volume_id == shadow.volume_id && one.cut_at > shadow.cut_at).count();
    let stay = match newer {
        0 => "No shadow copy is newer: make one first if you may need what is there now.".to_owned(),
        1 => "1 newer shadow copy stays.".to_owned(),
        count => format!("{count} newer shadow copies stay."),
    };
    format!(
        "{} ({}) becomes what it was on {}. Everything written to it since is lost. {stay} This cannot be stopped or undone.",
        shadow.volume.display(),
        shadow.volume_id,
        shadow.cut_at.local()
    )
}

/// The service was lost in the middle, or is out of order: it may have begun.
fn unknown(error: VssError, shadow_id: ShadowId) -> VssError {
    if error.code != VssCode::Unexpected {
        return error;
    }
    let hint = format!("If it had begun, it goes on when the service runs again: `vss revert {shadow_id}`");
    error.while_doing("How the revert goes on is not known").with_hint(hint)
}

/// Until it is over.
fn follow(management: &mut Management, shadow: &ShadowCopy) -> Result<RevertStatus, VssError> {
    let mut meter = Meter::new("reverting", None);
    let mut seen = 0;
    loop {
        let status = management.revert_status(shadow.volume_id.clone(), seen, PATIENCE);
        let status = status.map_err(|error| unknown(error, shadow.id))?;
        if status.state != RevertState::Running {
            return Ok(status);
        }
        seen = status.progress;
        if status.bytes_total > 0 {
            meter.set_total(status.bytes_total);
        }
        meter.show(status.bytes_done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shadow(minute: u32) -> ShadowCopy {
        serde_json::from_value(json!({
            "id": ShadowId::from_u128(minute.into()), "set_id": vss_model::SetId::from_u128(1), "volume": "/srv",
            "volume_id": "ext4:u", "provider": "m", "provider_id": vss_model::ProviderId::from_u128(1),
            "device": null, "path": null, "consistency": "crash", "nested": [], "attributes": 0, "owner": 0,
            "cut_at": format!("2026-11-24T09:{minute:02}:00Z"), "created_at": "2026-11-24T10:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn it_is_said_what_is_lost_and_what_stays() {
        let shadows = [shadow(1), shadow(2), shadow(3)];
        let of = |number: usize| lost(&shadows[number], &shadows);
        assert!(of(0).contains("2 newer shadow copies stay") && of(1).contains("1 newer shadow copy stays"));
        assert!(of(2).contains("make one first") && of(2).starts_with("/srv (ext4:u)"));
    }
}

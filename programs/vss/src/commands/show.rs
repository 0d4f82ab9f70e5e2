//! `vss show`: all about one set or one shadow copy.

use super::Failure;
use crate::args::{Id, ShowArguments};
use crate::json::{ListedShadow, ShownSet};
use crate::output::{self, line};
use crate::window;
use std::io;
use vss_model::{Context, ShadowCopy, ShadowCopySet, VssCode, VssError};
use vss_requester::{Instance, Management};

pub(super) fn show(instance: &Instance, arguments: &ShowArguments) -> Result<(), Failure> {
    let (set, is_set) = find(&mut Management::connect(instance)?, arguments.id)?;
    let shadow = set.shadows.iter().find(|shadow| !is_set && shadow.id == arguments.id.shadow);
    match (shadow, arguments.json) {
        (Some(shadow), true) => output::json(&ListedShadow::from(shadow))?,
        (Some(shadow), false) => print_shadow(shadow, "")?,
        (None, true) => output::json(&ShownSet::from(&set))?,
        (None, false) => print_set(&set)?,
    }
    Ok(())
}

/// The set with this id, or the one of the shadow copy with this id; true for the former.
pub(super) fn find(management: &mut Management, id: Id) -> Result<(ShadowCopySet, bool), VssError> {
    match management.set(id.set) {
        Ok(set) => return Ok((set, true)),
        Err(error) if error.code == VssCode::ObjectNotFound => {}
        Err(error) => return Err(error),
    }
    match management.set_of(id.shadow) {
        Ok(set) => Ok((set, false)),
        Err(error) if error.code == VssCode::ObjectNotFound => {
            let message = format!("There is no shadow copy and no shadow copy set {}", id.shadow);
            Err(VssError::new(VssCode::ObjectNotFound, message).with_hint("`vss list shadows` shows those that are"))
        }
        Err(error) => Err(error),
    }
}

fn print_set(set: &ShadowCopySet) -> io::Result<()> {
    line(&format!("Shadow copy set {}", set.set_id))?;
    line(&format!("  Created      {} by {} (uid {})", set.created_at.local(), set.requester, set.owner))?;
    line(&format!("  Lifetime     {}", lifetime(set.context)))?;
    line(&format!(
        "  Consistency  {}, {}",
        set.consistency,
        if set.atomic { "one instant" } else { "several instants" }
    ))?;
    line(&format!("  Frozen       {} ms, of these writes held {} ms", set.freeze_ms, set.hold_ms))?;
    for text in set.proof.iter().flat_map(window::lines) {
        line(&format!("  {text}"))?;
    }
    for shadow in &set.shadows {
        print_shadow(shadow, "  ")?;
    }
    for writer in &set.writers {
        line(&format!("  Writer {}: {}, frozen {} ms", writer.name, writer.state, writer.frozen_ms))?;
        if let Some(failure) = &writer.failure {
            line(&format!("    Failed: {failure}"))?;
        }
        for component in &writer.components {
            line(&format!("    {}: {}", component.name, component.consistency))?;
        }
    }
    Ok(())
}

fn print_shadow(shadow: &ShadowCopy, indent: &str) -> io::Result<()> {
    line(&format!("{indent}Shadow copy {}", shadow.id))?;
    line(&format!("{indent}  Volume       {} ({})", shadow.volume.display(), shadow.volume_id))?;
    line(&format!("{indent}  Provider     {}", shadow.provider))?;
    line(&format!("{indent}  Cut          {}", shadow.cut_at))?;
    line(&format!("{indent}  Consistency  {}", shadow.consistency))?;
    if let Some(path) = &shadow.path {
        line(&format!("{indent}  Exposed at   {}", path.display()))?;
    }
    if let Some(device) = &shadow.device {
        line(&format!("{indent}  Device       {device}"))?;
    }
    for nested in &shadow.nested {
        line(&format!("{indent}  With         {}, cut {}", nested.path.display(), nested.cut_at))?;
    }
    Ok(())
}

fn lifetime(context: Context) -> &'static str {
    match (context.is_persistent(), context.is_auto_release()) {
        (true, _) => "until it is deleted",
        (false, true) => "until its session ends",
        (false, false) => "until reboot, or until it is deleted",
    }
}

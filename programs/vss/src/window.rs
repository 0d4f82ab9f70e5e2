//! The freeze window of a finished set as people see it: a time line, and a bar for each member.

use vss_model::{GuardAnswer, HoldProof, HoldSpan, MemberProof, Span};

/// Cells of a bar.
const BAR: usize = 40;

/// The lines of the picture; none for a proof without members.
pub(crate) fn lines(proof: &HoldProof) -> Vec<String> {
    let mut lines = vec![format!("Window         0 ms is {}", proof.began_at)];
    let mut at = |from_us: i64, what: String| lines.push(format!("{:>12} ms  {what}", signed(from_us)));
    if let Some(flush) = proof.flush {
        at(flush.from_us, format!("flush: {} ms", ms(flush.took_us)));
    }
    if let Some(flush) = proof.flush_in_window {
        at(flush.from_us, format!("flush once more: {} ms", ms(flush.took_us)));
    }
    let range = match &proof.hold {
        Some(hold) => {
            hold_lines(hold, &mut at);
            Span { from_us: 0, took_us: hold.thawed_us }
        }
        None => {
            let last = proof.members.iter().map(|member| member.commit.until_us()).max().unwrap_or(0);
            at(0, "first cut begins; nothing is held".to_owned());
            at(last, "last cut has ended".to_owned());
            Span { from_us: 0, took_us: u64::try_from(last).unwrap_or(0) }
        }
    };
    let width = proof.members.iter().map(|member| member.volume.display().to_string().chars().count()).max();
    let width = width.unwrap_or(0).min(40);
    for member in &proof.members {
        lines.push(format!("  [{}] {:width$}  {}", bar(member, range), member.volume.display(), words(member)));
    }
    if !proof.members.is_empty() {
        let held = if proof.hold.is_some() {
            "f freezing, = held, c its provider cuts, t thawing"
        } else {
            "c its provider cuts"
        };
        lines.push(format!("  ({held})"));
    }
    lines
}

fn hold_lines(hold: &HoldSpan, at: &mut impl FnMut(i64, String)) {
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    let switch = match (hold.expedited, hold.expedited_restored) {
        (false, _) => String::new(),
        (true, true) => format!("; rcu_expedited was on for {} ms and is restored", ms(hold.expedited_us)),
        (true, false) => "; rcu_expedited could not be restored at once".to_owned(),
    };
    at(0, "first freeze begins".to_owned());
    at(signed(hold.frozen_us), format!("all are frozen: no write from here on{switch}"));
    at(signed(hold.release_us), "release is asked for: no write up to here".to_owned());
    at(signed(hold.thawed_us), "all are thawed".to_owned());
}

/// What was done to a member, in a line.
pub(crate) fn words(member: &MemberProof) -> String {
    let span = |name: &str, span: Span| format!("{name} {} +{}", signed(span.from_us), ms(span.took_us));
    let mut parts = Vec::new();
    parts.extend(member.level.map(|level| format!("level {level}")));
    parts.extend(member.freeze.map(|freeze| span("freeze", freeze)));
    parts.push(span("cut", member.commit));
    parts.extend(member.thaw.map(|thaw| span("thaw", thaw)));
    if !member.held {
        parts.push("not held".to_owned());
    }
    if !member.answers.is_empty() {
        let answers: Vec<&str> = member.answers.iter().map(|answer| answer_name(*answer)).collect();
        parts.push(format!("guard: {}", answers.join(" ")));
    }
    parts.join(", ")
}

fn answer_name(answer: GuardAnswer) -> &'static str {
    match answer {
        GuardAnswer::Synced => "synced",
        GuardAnswer::Frozen => "frozen",
        GuardAnswer::Thawed => "thawed",
        GuardAnswer::ThawedEarly => "thawed early",
        GuardAnswer::Lost => "lost",
    }
}

/// The member's time in the window, each cell an equal part of it. What is shorter than a cell still has one.
fn bar(member: &MemberProof, range: Span) -> String {
    let whole = i128::from(range.took_us.max(1));
    let cell = |us: i64| {
        let index = i128::from(us - range.from_us) * BAR as i128 / whole;
        usize::try_from(index.clamp(0, BAR as i128 - 1)).unwrap_or(0)
    };
    let mut cells = ['.'; BAR];
    let mut paint = |from_us: i64, until_us: i64, with: char| cells[cell(from_us)..=cell(until_us)].fill(with);
    if let (Some(freeze), Some(thaw)) = (member.freeze, member.thaw) {
        paint(freeze.until_us(), thaw.from_us, '=');
        paint(freeze.from_us, freeze.until_us(), 'f');
        paint(thaw.from_us, thaw.until_us(), 't');
    }
    paint(member.commit.from_us, member.commit.until_us(), 'c');
    cells.iter().collect()
}

/// Milliseconds with three digits behind the point.
pub(crate) fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// The same with a sign where it is negative.
pub(crate) fn signed(us: i64) -> String {
    format!("{}{}", if us < 0 { "-" } else { "" }, ms(us.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "b5946137-7b9f-4925-af80-51abd60b20d5";
    const AT: &str = "2026-11-24T09:30:00Z";

    fn proof(hold: Value, members: Value) -> HoldProof {
        serde_json::from_value(json!({
            "began_at": AT, "began_boottime_us": 7, "flush": {"from_us": -12_345, "took_us": 11_000},
            "flush_in_window": null, "hold": hold, "members": members,
        }))
        .unwrap()
    }

    #[test]
    fn a_hold_is_a_time_line_with_a_bar_for_each_member() {
        let hold = json!({"frozen_at": AT, "frozen_us": 1000, "release_at": AT, "release_us": 3000, "thawed_at": AT,
            "thawed_us": 4000, "expedited": true, "expedited_restored": true, "expedited_us": 900});
        let held = json!({"shadow_id": ID, "volume": "/a", "held": true, "level": 0,
            "freeze": {"from_us": 0, "took_us": 1000}, "commit": {"from_us": 1500, "took_us": 500}, "cut_at": AT,
            "thaw": {"from_us": 3000, "took_us": 1000}, "answers": ["synced", "frozen", "thawed"]});
        let free = json!({"shadow_id": ID, "volume": "/btrfs", "held": false, "level": null, "freeze": null,
            "commit": {"from_us": 2100, "took_us": 10}, "cut_at": AT, "thaw": null, "answers": ["synced"]});
        assert_eq!(
            lines(&proof(hold, json!([held, free]))),
            [
                "Window         0 ms is 2026-11-24T09:30:00Z",
                "     -12.345 ms  flush: 11.000 ms",
                "       0.000 ms  first freeze begins",
                "       1.000 ms  all are frozen: no write from here on; rcu_expedited was on for 0.900 ms and is restored",
                "       3.000 ms  release is asked for: no write up to here",
                "       4.000 ms  all are thawed",
                "  [fffffffffff====cccccc=========tttttttttt] /a      level 0, freeze 0.000 +1.000, cut 1.500 +0.500, thaw 3.000 +1.000, guard: synced frozen thawed",
                "  [.....................c..................] /btrfs  cut 2.100 +0.010, not held, guard: synced",
                "  (f freezing, = held, c its provider cuts, t thawing)",
            ]
        );
    }

    #[test]
    fn without_a_hold_there_are_cuts_alone() {
        let member = json!({"shadow_id": ID, "volume": "/btrfs", "held": false, "level": null, "freeze": null,
            "commit": {"from_us": 0, "took_us": 0}, "cut_at": AT, "thaw": null, "answers": []});
        let lines = lines(&proof(Value::Null, json!([member])));
        assert!(lines.contains(&"       0.000 ms  first cut begins; nothing is held".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("  [c...")), "{lines:?}");
    }
}

//! Who the writer is and what it owns: sound, bounded, and always the same (spec R 2.1 and 3).

use super::{WHOLE, event, identity, sequence};
use crate::AnyWriter;
use std::time::Duration;
use vss_model::{WriterClassId, WriterInstanceId, limits};

pub(super) fn check(writer: &mut dyn AnyWriter) {
    registration_is_stable_and_bounded(writer);
    identity_is_sound_and_repeats(writer);
    identify_in_the_middle_changes_nothing(writer);
}

fn registration_is_stable_and_bounded(writer: &mut dyn AnyWriter) {
    let register = writer.registration();
    assert_eq!(register, writer.registration(), "the registration changes");
    assert!(register.class_id != WriterClassId::from_u128(0), "the class id is nil: make one with uuidgen and keep it");
    let length = register.name.len();
    assert!((1..=128).contains(&length), "the name has {length} bytes, 1 to 128 are allowed");
    let limit = register.freeze_timeout_ms.map_or(limits::WRITER_FREEZE, Duration::from_millis);
    let allowed = Duration::from_millis(1)..=limits::WRITER_FREEZE;
    assert!(allowed.contains(&limit), "the freeze limit is {limit:?}, 1 ms to 60 s are allowed");
}

fn identity_is_sound_and_repeats(writer: &mut dyn AnyWriter) {
    let first = identity(writer);
    assert!(!first.components.is_empty(), "Identify names no component");
    assert_eq!(first, identity(writer), "Identify answers something else the second time");
    let metadata = writer.registration().metadata(WriterInstanceId::random(), first);
    metadata.check().unwrap_or_else(|error| panic!("the metadata are not sound: {error}"));
}

fn identify_in_the_middle_changes_nothing(writer: &mut dyn AnyWriter) {
    let before = identity(writer);
    let event = event(writer);
    for kind in WHOLE {
        sequence(writer, &event, &[kind]);
        assert_eq!(before, identity(writer), "Identify answers something else after {}", kind.name());
    }
}

//! `org.linuxvss.Management.Check`: who may have one now, and what the coordinator itself knows of it.

use super::requester::SHARE_OF_UID;
use crate::check::{Survey, check_question, choose_writers};
use crate::coordinator::{Action, Coordinator};
use crate::rules;
use std::sync::Arc;
use vss_api::management::Check;
use vss_api::server::{Peer, Replier};
use vss_model::{VssCode, VssError, limits};

impl Coordinator {
    /// Performs the call. Everybody who may use the socket may ask: the answer has nothing that creation would not tell the
    /// same peer.
    pub(crate) fn check(&mut self, peer: &Peer, question: Check, replier: Replier) {
        let uid = peer.uid;
        let permitted = check_question(&question)
            .and_then(|()| question.options.storage.as_ref().map_or(Ok(()), |_| rules::choose_storage(peer)))
            .and_then(|()| self.has_room_for_check(uid));
        if let Err(error) = permitted {
            return replier.error(&error);
        }
        let (writers, unknown) = choose_writers(&question, self.registry.writers());
        let writers = writers.into_iter().map(|writer| {
            let limit = self.registry.freeze_limit(&writer.register);
            (writer, limit)
        });
        let survey = Survey {
            environment: Arc::clone(&self.environment),
            question,
            writers: writers.collect(),
            obstacles: self
                .has_room_for_session(uid, vss_session::Kind::Backup)
                .err()
                .into_iter()
                .chain(unknown)
                .collect(),
            creation_lock: self.creation_lock.clone(),
            state_directory: self.state_directory.clone(),
        };
        self.checks.push(uid);
        let work = async move {
            replier.result(survey.run().await);
            Action::CheckEnded(uid)
        };
        self.spawn(work, move || Action::CheckEnded(uid));
    }

    /// A check is done.
    pub(crate) fn check_ended(&mut self, uid: u32) {
        if let Some(place) = self.checks.iter().position(|other| *other == uid) {
            self.checks.swap_remove(place);
        }
    }

    /// A check asks every writer: without a bound a requester could fill their lines.
    fn has_room_for_check(&self, uid: u32) -> Result<(), VssError> {
        let of_uid = self.checks.iter().filter(|other| **other == uid).count();
        let most_of_uid = if uid == 0 { limits::CHECKS } else { limits::CHECKS.div_ceil(SHARE_OF_UID) };
        if self.checks.len() < limits::CHECKS && of_uid < most_of_uid {
            return Ok(());
        }
        Err(VssError::new(
            VssCode::OutOfMemory,
            format!(
                "{} checks are running, {of_uid} of them of uid {uid}; there can be {}, {most_of_uid} of one user",
                self.checks.len(),
                limits::CHECKS
            ),
        )
        .with_hint("Wait until another one has ended"))
    }
}

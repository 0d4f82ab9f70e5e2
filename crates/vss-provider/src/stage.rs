//! Where a set stands in its provider: the table of spec P 2.6, kept in one place for every provider.

use vss_model::{SetId, VssCode, VssError};

/// What was done last for a set that is not finished. The order of the variants is the order of the phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `begin_prepare`, once or more often.
    Preparing,
    /// `end_prepare`.
    Prepared,
    /// `pre_commit`.
    PreCommitted,
    /// `commit`.
    Committed,
    /// `post_commit`.
    Created,
    /// `pre_final_commit`: writers may mend the copies.
    Writable,
}

impl Stage {
    /// Checks that a call comes in its turn.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE`, naming the call and both stages. Allocates only then.
    pub fn expect(self, wanted: Self, call: &str) -> Result<(), VssError> {
        if self == wanted {
            return Ok(());
        }
        Err(VssError::new(VssCode::BadState, format!("{call} came when the set was {self:?}, not {wanted:?}"))
            .with_hint("Abort the set and create it again"))
    }
}

/// The error for a set that the provider does not know.
#[must_use]
pub fn unknown_set(set_id: SetId) -> VssError {
    VssError::new(VssCode::ObjectNotFound, format!("The provider knows no unfinished set {set_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_call_is_taken() {
        assert!(Stage::Prepared.expect(Stage::Prepared, "PreCommit").is_ok());
        assert_eq!(Stage::Preparing.expect(Stage::Prepared, "PreCommit").unwrap_err().code, VssCode::BadState);
        assert_eq!(Stage::Committed.expect(Stage::Prepared, "PreCommit").unwrap_err().code, VssCode::BadState);
    }
}

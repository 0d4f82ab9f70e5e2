//! A writer whose description cannot be used.

use crate::class_id::class_id;
use crate::config::everything;
use std::path::Path;
use vss_api::writer::{Identify, Identity, Register};
use vss_model::{Usage, VssCode, VssError};
use vss_writer::{Answer, Call, Writer, done};

/// Takes part in every set and fails it, saying what is wrong with which file.
///
/// Nobody can know which files the writer meant to hold still; to leave it out silently would make backups that look
/// good and are not. A requester that does not mind goes on with `--allow-degraded` or keeps the writer out.
#[derive(Debug)]
pub struct BrokenWriter {
    file: String,
    problem: String,
}

impl BrokenWriter {
    /// The writer that `file` would have described.
    #[must_use]
    pub fn new(file: &Path, problem: String) -> Self {
        Self { file: file.display().to_string(), problem }
    }

    /// What is wrong.
    pub(crate) fn error(&self) -> VssError {
        VssError::new(VssCode::WriterErrorNonRetryable, format!("{}: {}", self.file, self.problem))
            .with_hint("Mend or remove the file and start vss-writers again")
    }
}

impl Writer for BrokenWriter {
    fn registration(&self) -> Register {
        let name = self.file.rsplit('/').next().unwrap_or("writer");
        let class_id = class_id(&format!("broken:{}", self.file));
        Register { usage: Usage::Other, ..Register::new(class_id, name.chars().take(32).collect::<String>()) }
    }

    fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        everything("broken")
    }

    fn prepare_backup(&mut self, _: &Call<'_>) -> Answer {
        Err(self.error())
    }

    fn prepare_snapshot(&mut self, _: &Call<'_>) -> Answer {
        Err(self.error())
    }

    fn freeze(&mut self, _: &Call<'_>) -> Answer {
        Err(self.error())
    }

    fn thaw(&mut self, _: &Call<'_>) -> Answer {
        done()
    }

    fn abort(&mut self, _: &Call<'_>) -> Answer {
        done()
    }
}

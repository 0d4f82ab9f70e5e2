//! Calls that may block, made from a thread that may be lost.

use std::time::Duration;
use vss_model::{VssCode, VssError};

/// Runs `work` on a thread of the runtime's pool for such work (512 of them) and waits at most `limit` for it. A thread that
/// does not come back is left to itself.
///
/// # Errors
/// What `work` says; `VSS_E_UNEXPECTED_PROVIDER_ERROR` naming `what` when it does not come back in time or panics.
pub async fn run<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T, VssError> + Send + 'static,
) -> Result<T, VssError> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(VssError::new(VssCode::UnexpectedProviderError, format!("{what} broke off: {error}"))),
        Err(_) => Err(VssError::new(VssCode::UnexpectedProviderError, format!("{what} did not end within {limit:?}"))
            .with_hint("Its thread is left to itself; restart vssd when the storage answers again")),
    }
}

//! Calls that may block, made from a thread that may be lost.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
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

/// As [`run`], for work that may take hours: waits as long as `moved` changes at least once in `patience`. The outer error
/// means that the thread is left to itself, and may still do things; the inner one is that of `work`.
///
/// # Errors
/// Outside, `VSS_E_UNEXPECTED_PROVIDER_ERROR` naming `what` when nothing has moved for too long; inside, what `work` says, and
/// the same code when it panics.
pub async fn run_while_moving<T: Send + 'static>(
    what: &str,
    patience: Duration,
    mut moved: watch::Receiver<u64>,
    work: impl FnOnce() -> Result<T, VssError> + Send + 'static,
) -> Result<Result<T, VssError>, VssError> {
    let mut running = tokio::task::spawn_blocking(work);
    loop {
        let has_moved = async {
            // Whoever counts is gone: then only the end is left to wait for.
            if moved.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            ended = &mut running => {
                return Ok(ended.unwrap_or_else(|error| {
                    Err(VssError::new(VssCode::UnexpectedProviderError, format!("{what} broke off: {error}")))
                }));
            }
            () = has_moved => {}
            () = tokio::time::sleep(patience) => {
                let message = format!("{what} did not end, and got no further for {patience:?}");
                return Err(VssError::new(VssCode::UnexpectedProviderError, message)
                    .with_hint("Its thread is left to itself; restart vssd when the storage answers again"));
            }
        }
    }
}

/// A place among those who may ask at once, `most` in all; it is not waited for. For the thread to keep: one that is left to
/// itself still works.
///
/// # Errors
/// `E_OUTOFMEMORY` when there is none.
pub fn turn(places: &Arc<Semaphore>, most: usize, about: &str) -> Result<OwnedSemaphorePermit, VssError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        VssError::new(VssCode::OutOfMemory, format!("{most} questions about {about} are being answered"))
            .with_hint("Wait until another one is answered")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn work_that_moves_may_take_longer_than_the_patience() {
        let moves = Arc::new(watch::Sender::new(0));
        let moved = moves.subscribe();
        let work = move || {
            for _ in 0..8 {
                sleep(PATIENCE / 4);
                moves.send_modify(|count| *count += 1);
            }
            Ok(7)
        };
        assert_eq!(run_while_moving("It", PATIENCE, moved, work).await, Ok(Ok(7)));
    }

    #[tokio::test]
    async fn work_that_stands_still_is_left_to_itself() {
        let moves = watch::Sender::new(0);
        let began = std::time::Instant::now();
        let work = || {
            sleep(PATIENCE * 5);
            Ok(())
        };
        let left = run_while_moving("It", PATIENCE, moves.subscribe(), work).await.unwrap_err();
        assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
        assert!(left.message.contains("got no further for 1s"), "{left}");
        let says = left.clone();
        let failed = run_while_moving("It", PATIENCE, moves.subscribe(), || Err::<(), _>(says)).await;
        assert_eq!(failed, Ok(Err(left)));
    }

    #[test]
    fn one_who_asks_too_many_is_told_to_wait_until_a_thread_is_done() {
        let places = Arc::new(Semaphore::new(2));
        let [first, _second] = [(), ()].map(|()| turn(&places, 2, "blocks").unwrap());
        let error = turn(&places, 2, "blocks").unwrap_err();
        assert_eq!(error.code, VssCode::OutOfMemory);
        assert_eq!(error.message, "2 questions about blocks are being answered");
        drop(first);
        assert!(turn(&places, 2, "blocks").is_ok());
    }
}

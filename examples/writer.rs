//! A writer for VSS: while a shadow copy is cut it keeps a lock file in place, which its application honours before each
//! write. From the copy it takes what is of no use in a backup.
//!
//! Usage: writer SOCKET DATA_DIRECTORY LOCK_FILE        for example: writer /run/vss/writer /srv/shop /run/shop.hold

use std::fs::{self, File};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use vss_writer::asynchronous::{Call, Options, Writer, run};
use vss_writer::messages::{Identify, Identity, Register};
use vss_writer::model::{Component, SessionId, VssCode, VssError, WriterClassId};
use vss_writer::{Answer, Stop, done};

struct Shop {
    data: PathBuf,
    lock: PathBuf,
    frozen: Option<SessionId>,
}

impl Writer for Shop {
    fn registration(&self) -> Register {
        // Make your own with uuidgen and keep it for ever.
        let class_id = WriterClassId::from_u128(0x3a1d_77a2_92c6_4d0e_8a51_0f8f_3f0e_6b2d);
        Register { freeze_timeout_ms: Some(20_000), ..Register::new(class_id, "rust-example") }
    }

    async fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        Ok(Identity::of([Component::file_group("data").files_below(&self.data).build()?]))
    }

    async fn prepare_snapshot(&mut self, call: &Call) -> Answer {
        call.must_have(&self.data)?; // else: half of our files would be in the backup
        done()
    }

    async fn freeze(&mut self, call: &Call) -> Answer {
        let held = |error| VssError::new(VssCode::WriterErrorRetryable, format!("Held by another: {error}"));
        File::create_new(&self.lock).map_err(held)?; // a real application: await here that it has seen the lock
        self.frozen = Some(call.event().session_id);
        done()
    }

    async fn thaw(&mut self, call: &Call) -> Answer {
        // What other sessions say meanwhile does not end its hold.
        if self.frozen.take_if(|session| *session == call.event().session_id).is_some() {
            let stuck = |error| VssError::new(VssCode::WriterErrorNonRetryable, format!("Still held: {error}"));
            fs::remove_file(&self.lock).map_err(stuck)?;
        }
        done()
    }

    async fn abort(&mut self, call: &Call) -> Answer {
        self.thaw(call).await
    }

    async fn post_snapshot(&mut self, call: &Call) -> Answer {
        let Ok(scratch) = call.in_copy(&self.data.join("scratch")) else { return done() }; // this copy cannot be mended
        let failed = |error| VssError::new(VssCode::WriterErrorRetryable, format!("Cannot mend the copy: {error}"));
        scratch.remove_file().map_err(failed)?;
        done()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [socket, data, lock] = std::env::args()
        .skip(1)
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: writer SOCKET DATA_DIRECTORY LOCK_FILE")?;
    let (stopper, stop) = Stop::new()?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move { drop((terminate.recv().await, stopper)) }); // `run` thaws and returns
    let mut shop = Shop { data, lock, frozen: None };
    Ok(run(&socket, &mut shop, Options { stop: Some(stop), ..Options::default() }).await?)
}

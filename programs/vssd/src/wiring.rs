//! The wiring: the one place that names concrete providers (design 4).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vss_model::limits;
use vss_provider::Provider;
use vss_provider_btrfs::{BtrfsOptions, BtrfsProvider};
use vss_provider_mirror::{MirrorOptions, MirrorProvider};
use vss_provider_reflink::{ReflinkOptions, ReflinkProvider};
use vss_service::config::Config;
use vss_service::providers::Providers;

/// The providers of this build, in the order of choice, for a service with this state directory.
pub(crate) fn providers(config: &Config, state_directory: &Path) -> Providers {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    #[cfg(feature = "fault-injection")]
    providers.extend(fake::from_environment());
    let min_free_bytes = config.providers.btrfs.min_free_bytes;
    providers.push(Arc::new(BtrfsProvider::new(BtrfsOptions { min_free_bytes })));
    let min_free_bytes = config.providers.reflink.min_free_bytes;
    providers.push(Arc::new(ReflinkProvider::new(ReflinkOptions { min_free_bytes })));
    providers.push(Arc::new(MirrorProvider::new(mirror_options(config, state_directory))));
    // Last: a set has it only by its name.
    #[cfg(feature = "fault-injection")]
    providers.extend(block_copy::from_environment());
    Providers::new(providers)
}

fn mirror_options(config: &Config, state_directory: &Path) -> MirrorOptions {
    let settings = &config.providers.mirror;
    let mut options = MirrorOptions::new(state_directory.to_owned());
    options.storage.clone_from(&settings.storage);
    options.min_free_bytes = settings.min_free_bytes;
    options.max_hold = Duration::from_millis(settings.max_hold_ms);
    options.unused = limits::days(settings.unused_days);
    #[cfg(feature = "fault-injection")]
    {
        options.reference = std::env::var_os("VSS_MIRROR_REFERENCE").map(Into::into);
    }
    options
}

/// The fake provider for tests, described by `VSS_FAKE`, a JSON object: `{"store": DIR, "policy": "needs_hold",
/// "writable_phase": false, "fail": [PHASE, CODE], "hang": [PHASE, MILLISECONDS], "commit_delay_ms": N,
/// "copying": {"bytes": N, "ms": N, "place": DIR, "keep_ms": N}}`.
#[cfg(feature = "fault-injection")]
mod fake {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;
    use vss_model::{FreezePolicy, VssCode};
    use vss_provider::Provider;
    use vss_provider::fake::{FakeCopying, FakeOptions, FakeProvider};

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Description {
        #[serde(default)]
        store: Option<PathBuf>,
        policy: FreezePolicy,
        #[serde(default = "yes")]
        writable_phase: bool,
        #[serde(default)]
        fail: Option<(String, VssCode)>,
        #[serde(default)]
        hang: Option<(String, u64)>,
        #[serde(default)]
        commit_delay_ms: u64,
        #[serde(default)]
        copying: Option<Copying>,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Copying {
        bytes: u64,
        ms: u64,
        place: PathBuf,
        #[serde(default = "for_ever")]
        keep_ms: u64,
    }

    fn for_ever() -> u64 {
        u64::MAX
    }

    fn yes() -> bool {
        true
    }

    pub(super) fn from_environment() -> Option<Arc<dyn Provider>> {
        let text = std::env::var("VSS_FAKE").ok()?;
        let description: Description = match serde_json::from_str(&text) {
            Ok(description) => description,
            Err(error) => {
                tracing::error!(%error, "VSS_FAKE is not understood");
                return None;
            }
        };
        Some(Arc::new(FakeProvider::new(FakeOptions {
            name: "fake".to_owned(),
            freeze_policy: description.policy,
            store: description.store,
            writable_phase: description.writable_phase,
            fail: description.fail.and_then(|(phase, code)| Some((phase.parse().ok()?, code))),
            hang: description.hang.and_then(|(phase, ms)| Some((phase.parse().ok()?, Duration::from_millis(ms)))),
            commit_delay: Duration::from_millis(description.commit_delay_ms),
            copying: description.copying.map(|copying| FakeCopying {
                bytes: copying.bytes,
                time: Duration::from_millis(copying.ms),
                place: copying.place,
                keep: Duration::from_millis(copying.keep_ms),
            }),
        })))
    }
}

/// The provider for tests that copies whole devices into the directory `VSS_BLOCK_COPY`.
#[cfg(feature = "fault-injection")]
mod block_copy {
    use std::sync::Arc;
    use vss_provider::Provider;
    use vss_provider::block_copy::BlockCopyProvider;

    pub(super) fn from_environment() -> Option<Arc<dyn Provider>> {
        Some(Arc::new(BlockCopyProvider::new(std::env::var_os("VSS_BLOCK_COPY")?.into())))
    }
}

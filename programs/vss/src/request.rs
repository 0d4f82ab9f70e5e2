//! From the options of the command line to what is asked of the service.

use crate::args::{BackupArguments, CopyingArguments};
use std::time::Duration;
use vss_model::{BackupState, CreationOptions, VssError};
use vss_requester::volumes::{Selected, resolve};
use vss_requester::{BackupRequest, Lifetime, WriterChoice};

/// The request. `requester` is who asks, for lists and records.
///
/// # Errors
/// `E_INVALIDARG` for a wish out of its range, `VSS_E_OBJECT_NOT_FOUND` for a storage that does not exist.
pub(crate) fn request(
    requester: String,
    lifetime: Lifetime,
    selected: &[Selected],
    arguments: &BackupArguments,
) -> Result<BackupRequest, VssError> {
    let usual = BackupRequest::new(requester, lifetime, selected);
    Ok(BackupRequest {
        context: lifetime.context(!arguments.no_writers),
        state: BackupState {
            backup_type: arguments.backup_type.map_or(usual.state.backup_type, Into::into),
            ..usual.state
        },
        writers: match arguments.writer.as_slice() {
            [] => WriterChoice::All,
            names => WriterChoice::Named(names.to_vec()),
        },
        provider: arguments.provider.clone(),
        options: options(&arguments.copying)?,
        strict: !arguments.allow_degraded,
        require: arguments.require.map(Into::into),
        wait: Duration::from_secs(arguments.wait.into()),
        ..usual
    })
}

/// The wishes for providers that copy blocks.
///
/// # Errors
/// As [`request`].
pub(crate) fn options(copying: &CopyingArguments) -> Result<CreationOptions, VssError> {
    let options = CreationOptions {
        max_rate: copying.max_rate,
        max_hold_ms: copying.max_hold,
        // The service has another working directory.
        storage: copying.storage.as_deref().map(resolve).transpose()?,
        full_compare: copying.full_compare,
    };
    options.check()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{mounts, selected};
    use vss_model::{BackupType, Consistency, Context};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        backup: BackupArguments,
    }

    fn made(line: &str, lifetime: Lifetime) -> BackupRequest {
        let line: Line = clap::Parser::parse_from(format!("vss {line}").split_whitespace());
        let mounts = mounts(&[("/", 1), ("/srv", 2)]);
        request("test".to_owned(), lifetime, &selected(&["/srv/a", "/etc", "/srv/b"], &mounts), &line.backup).unwrap()
    }

    #[test]
    fn plain_run_and_plain_create() {
        let run = made("", Lifetime::Session);
        assert_eq!((run.context, run.state.backup_type), (Context::Backup, BackupType::Full));
        assert!(run.strict && run.require.is_none() && run.wait == Duration::from_secs(600));
        assert_eq!(run.writers, WriterChoice::All);
        let create = made("", Lifetime::UntilReboot);
        assert_eq!((create.context, create.state.backup_type), (Context::UntilReboot, BackupType::Copy));
    }

    #[test]
    fn a_volume_is_asked_for_once() {
        let volumes = made("", Lifetime::Session).volumes;
        assert_eq!(volumes, ["/srv/a", "/etc"].map(std::path::PathBuf::from));
    }

    #[test]
    fn options_reach_the_request() {
        let request = made(
            "--writer redis --writer script --provider btrfs --require file-system --backup-type log --allow-degraded --wait 0",
            Lifetime::Persistent,
        );
        assert_eq!(request.writers, WriterChoice::Named(vec!["redis".to_owned(), "script".to_owned()]));
        assert_eq!((request.provider.as_deref(), request.require), (Some("btrfs"), Some(Consistency::FileSystem)));
        assert_eq!((request.state.backup_type, request.strict, request.wait), (BackupType::Log, false, Duration::ZERO));
        assert_eq!(request.context, Context::AppRollback);
        assert_eq!(request.options, CreationOptions::default());
    }

    #[test]
    fn wishes_reach_the_request() {
        let options =
            made("--max-rate 50M --max-hold 250 --storage /proc/.. --full-compare", Lifetime::Session).options;
        let wanted = CreationOptions {
            max_rate: Some(50 << 20),
            max_hold_ms: Some(250),
            storage: Some("/".into()),
            full_compare: true,
        };
        assert_eq!(options, wanted);
    }

    #[test]
    fn without_writers_every_lifetime_has_its_twin() {
        for (lifetime, twin) in [
            (Lifetime::Session, Context::FileShareBackup),
            (Lifetime::UntilReboot, Context::UntilRebootNoWriters),
            (Lifetime::Persistent, Context::NasRollback),
        ] {
            assert_eq!(made("--no-writers", lifetime).context, twin);
        }
    }
}

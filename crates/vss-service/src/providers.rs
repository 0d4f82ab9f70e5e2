//! The providers that the wiring gave us, and the choice among them (spec P 2.3).

use crate::fault;
use std::path::PathBuf;
use std::sync::Arc;
use vss_model::{Attributes, Context, Volume, VssCode, VssError};
use vss_provider::{Provider, ProviderType, Support};

/// The registered providers, in the order of choice.
#[derive(Clone, Default)]
pub struct Providers(Vec<Arc<dyn Provider>>);

impl Providers {
    /// These providers, the preferred one first.
    #[must_use]
    pub fn new(providers: Vec<Arc<dyn Provider>>) -> Self {
        Self(providers)
    }

    /// All of them, in the order of choice.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.0.iter()
    }

    /// The provider with this name.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_NOT_REGISTERED`.
    pub fn named(&self, name: &str) -> Result<&Arc<dyn Provider>, VssError> {
        self.0.iter().find(|provider| provider.properties().name == name).ok_or_else(|| {
            let names: Vec<String> = self.0.iter().map(|provider| provider.properties().name).collect();
            VssError::new(VssCode::ProviderNotRegistered, format!("There is no provider \"{name}\""))
                .with_hint(format!("Registered: {}", names.join(", ")))
        })
    }

    /// The provider that copies this volume: the named one, or the first that can.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_NOT_REGISTERED`, `VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER` for a named one that cannot,
    /// `VSS_E_VOLUME_NOT_SUPPORTED` when none can, with every provider's reason.
    pub fn choose(&self, volume: &Volume, name: Option<&str>) -> Result<&Arc<dyn Provider>, VssError> {
        if let Some(name) = name {
            let provider = self.named(name)?;
            return match provider.is_volume_supported(volume)? {
                Support::Yes => Ok(provider),
                Support::No(reason) => Err(VssError::new(
                    VssCode::VolumeNotSupportedByProvider,
                    format!("Provider {name} cannot copy {}: {reason}", volume.mount_point.display()),
                )
                .with_hint("Leave out --provider, or name another one")),
            };
        }
        self.first_for(volume).map_err(|reasons| {
            let place = volume.mount_point.display();
            VssError::new(
                VssCode::VolumeNotSupported,
                format!("No provider can copy {place} ({}): {reasons}", volume.fs_type),
            )
            .with_hint("Name a path on a volume of another kind; `vss list volumes` shows which can be copied")
        })
    }

    /// As [`Self::choose`], of the providers that copy as these attribute bits ask: DIFFERENTIAL or PLEX (spec P 3.1).
    ///
    /// # Errors
    /// Those of [`Self::choose`].
    pub fn choose_for(
        &self,
        volume: &Volume,
        name: Option<&str>,
        attributes: Attributes,
    ) -> Result<&Arc<dyn Provider>, VssError> {
        let kinds = [(Attributes::DIFFERENTIAL, "differential"), (Attributes::PLEX, "plex")];
        let Some((kind, word)) =
            kinds.into_iter().find(|(kind, _)| attributes.contains(*kind) && !fault::is_off("kind"))
        else {
            return self.choose(volume, name);
        };
        let copies_so = |provider: &&Arc<dyn Provider>| provider.properties().capabilities.kind.attribute() == kind;
        let place = volume.mount_point.display();
        let hint = "Leave the attribute bit out, or name another provider";
        if let Some(name) = name {
            let provider = self.choose(volume, Some(name))?;
            let refusal = || {
                let message = format!("Provider {name} makes no {word} copy of {place}");
                VssError::new(VssCode::VolumeNotSupportedByProvider, message).with_hint(hint)
            };
            return Some(provider).filter(copies_so).ok_or_else(refusal);
        }
        Self(self.0.iter().filter(copies_so).cloned().collect())
            .choose(volume, None)
            .and_then(|chosen| self.named(&chosen.properties().name))
            .map_err(|error| {
                VssError { message: format!("No {word} copy of {place} can be made: {}", error.message), ..error }
                    .with_hint(hint)
            })
    }

    /// The first provider that can copy this volume.
    ///
    /// # Errors
    /// Every provider's reason, as part of a sentence.
    pub fn first_for(&self, volume: &Volume) -> Result<&Arc<dyn Provider>, String> {
        let mut reasons = Vec::new();
        for provider in &self.0 {
            match provider.is_volume_supported(volume) {
                Ok(Support::Yes) => return Ok(provider),
                Ok(Support::No(reason)) => reasons.push(format!("{}: {reason}", provider.properties().name)),
                Err(error) => reasons.push(format!("{}: {}", provider.properties().name, error.message)),
            }
        }
        Err(if reasons.is_empty() { "none is registered".to_owned() } else { reasons.join("; ") })
    }
}

/// Does this provider make copies of this context (spec P 3.2)?
///
/// # Errors
/// `VSS_E_UNSUPPORTED_CONTEXT`.
pub fn check_context(provider: &Arc<dyn Provider>, context: Context) -> Result<(), VssError> {
    let properties = provider.properties();
    let (name, bits) = (&properties.name, context.attributes().bits());
    let refuse = |why: &str| {
        let message = format!("Provider {name} makes no copies of context {bits:#x}: {why}");
        Err(VssError::new(VssCode::UnsupportedContext, message).with_hint("Choose another context"))
    };
    if fault::is_off("context") {
        return Ok(());
    }
    if context.is_client_accessible() && properties.provider_type != ProviderType::System {
        return refuse("client-accessible ones are made by the system provider alone");
    }
    if context.is_persistent() && !properties.capabilities.persistent {
        return refuse("its copies do not survive a reboot");
    }
    Ok(())
}

/// What the cut of a volume writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Mount point of the volume.
    pub member: PathBuf,
    /// A file or directory.
    pub path: PathBuf,
}

/// Where the cuts of these volumes write, each by its provider. May block.
///
/// # Errors
/// What the first provider says that cannot tell.
pub fn targets(members: &[(Arc<dyn Provider>, Volume)]) -> Result<Vec<Target>, VssError> {
    let mut targets = Vec::new();
    for (provider, volume) in members {
        let paths = provider.writes_to(volume).map_err(|error| by_contract(&provider.properties().name, error))?;
        targets.extend(paths.into_iter().map(|path| Target { member: volume.mount_point.clone(), path }));
    }
    Ok(targets)
}

/// What is left to do when a provider says nothing of it (spec R 2.4).
const AFTER_A_BREACH: &str =
    "The service's log says more; wait 10 minutes and try again, 3 times at most, or name another provider";

/// Keeps a provider to its error contract: any code outside spec P 2.7 becomes `VSS_E_UNEXPECTED_PROVIDER_ERROR`.
#[must_use]
pub fn by_contract(provider: &str, error: VssError) -> VssError {
    if error.code.allowed_from_provider() || fault::is_off("contract") {
        error
    } else {
        tracing::error!(
            provider,
            code = error.code.name(),
            message = error.message,
            "the provider broke its error contract"
        );
        let hint = if error.hint.is_empty() { AFTER_A_BREACH.to_owned() } else { error.hint };
        VssError::new(
            VssCode::UnexpectedProviderError,
            format!("Provider {provider} failed: {} ({})", error.message, error.code.name()),
        )
        .with_hint(hint)
    }
}

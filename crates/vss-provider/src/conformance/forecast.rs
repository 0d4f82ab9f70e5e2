//! What is foretold of a copy is what is made then, and foretelling it changes nothing.

use super::{Making, Subject, done, ensure, nothing_left, request};
use vss_model::{CreationOptions, SetId};

pub(super) fn a_forecast_comes_true_and_changes_nothing(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let volumes = subject.volumes();
    // Also while a set is in creation, whose volumes it leaves alone.
    let mut making = Making::begin(subject, &*provider, &volumes[..1])?;
    let forecast = done("forecast", provider.forecast(&volumes[0], &CreationOptions::default()))?;
    nothing_left(subject, "forecast")?;
    making.advance(3)?;
    // What is copied and stored is another matter while a copy is being made.
    ensure(
        done("forecast", provider.forecast(&volumes[0], &CreationOptions::default()))?.nested == forecast.nested,
        "a copy changed the forecast of the next one",
    )?;
    let committed = done("post_commit", provider.post_commit(making.set_id))?;
    let mut nested: Vec<_> = committed.iter().flat_map(|copy| &copy.nested).map(|nested| nested.path.clone()).collect();
    let mut foreseen = forecast.nested;
    nested.sort();
    foreseen.sort();
    ensure(nested == foreseen, &format!("{foreseen:?} were foreseen, {nested:?} were copied"))?;
    making.abort()?;
    nothing_left(subject, "abort")
}

/// Wishes that cannot be heeded, and some that can: whoever refuses them in creation says so before, by the same words.
pub(super) fn a_forecast_refuses_what_is_refused(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let volume = &subject.volumes()[0];
    for options in [
        CreationOptions { storage: Some("/proc".into()), ..CreationOptions::default() },
        CreationOptions { storage: Some("/proc/no/such/place".into()), ..CreationOptions::default() },
        CreationOptions { max_rate: Some(1 << 30), max_hold_ms: Some(8000), ..CreationOptions::default() },
    ] {
        let forecast = provider.forecast(volume, &options);
        let set_id = SetId::random();
        let asked = crate::PrepareRequest { options: options.clone(), ..request(set_id, volume) };
        let begun = provider.begin_prepare(&asked);
        done("abort", provider.abort(set_id))?;
        let foretold = forecast.map(|forecast| forecast.refusal);
        let agree = match (&foretold, &begun) {
            (Ok(None), Ok(_)) => true,
            (Ok(Some(foretold)) | Err(foretold), Err(refused)) => foretold == refused,
            // What is refused by an estimate is refused later.
            (Ok(Some(_)), Ok(_)) => true,
            _ => false,
        };
        ensure(agree, &format!("{options:?}: {foretold:?} was foreseen, and then came {begun:?}"))?;
    }
    nothing_left(subject, "abort")
}

//! What a copy would take if it were made now: what is known of the mirror, and what is measured for a moment.

use crate::{
    identity::Identity,
    kept,
    look::Look,
    mirror,
    provider::MirrorProvider,
    record::Found,
    refusal::Rates,
    rounds::Start,
    source::Source,
    trust::{Facts, Trust},
};
use std::time::Duration;
use vss_model::{CreationOptions, Volume, VssCode, VssError, Work};
use vss_provider::{CopyForecast, Forecast, PlaceForecast, store::Store};

impl MirrorProvider {
    /// What a copy with these wishes would take.
    ///
    /// # Errors
    /// What BeginPrepare would refuse, but for the lack of room: then there is more to tell.
    pub(crate) fn foresee(&self, volume: &Volume, options: &CreationOptions) -> Result<Forecast, VssError> {
        let survey = self.admit(volume, options)?;
        let source = Source::open(volume)?;
        // It is looked on while places are compared. What is written to already is counted afterwards: that is most of what a
        // copy that catches up begins with.
        let look = Look::begin(&self.house(), &kept::key(&volume.id), volume, options);
        let places: Vec<PlaceForecast> = survey
            .offers()
            .map(|offer| PlaceForecast {
                storage: offer.place.name.shown.clone(),
                bytes_needed: offer.needed,
                bytes_available: offer.room,
            })
            .collect();
        let (place, mut refusal) = match Self::choose(survey, volume) {
            Ok(place) => (Some(place), None),
            Err(error) if error.code == VssCode::InsufficientStorage => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let key = kept::key(&volume.id);
        let (state, image) = match place.as_ref().map(Store::open).transpose()?.flatten() {
            Some(store) => (mirror::state(&store, &key)?, Identity::of_mirror(&store, &key, None)?),
            None => (Found::None, None),
        };
        let used = source.in_use()?;
        let mut start = Start {
            first: used,
            used,
            first_rate: None,
            later_rate: None,
            max_rate: options.max_rate,
            dirty_rate: look.and_then(Look::end),
            is_untraced: options.full_compare,
        };
        let (mut work, mut full_compare) = (Work::Copying, None);
        if let (Found::Whole(state), Some(place)) = (state, &place) {
            let kept = self.registry.get(&key)?.filter(|kept| kept.place == place.name);
            let pins = self.house().pins(&key);
            let (facts, tracer) =
                Facts::of(&state, image.as_ref(), kept.as_ref(), Some(source.device_number), source.size, &pins);
            start.first_rate = state.first_rate.or(state.later_rate);
            start.later_rate = state.later_rate.or(state.first_rate);
            let trust = match facts.judge() {
                trust if trust.is_of_marks() && options.full_compare => Trust::wished(),
                trust => trust,
            };
            match (trust, tracer) {
                (Trust::Whole, Some(tracer)) => {
                    work = Work::Catching;
                    start.first = (tracer.dirty() * tracer.chunk_bytes()).min(used);
                    start.first_rate = start.later_rate;
                }
                (Trust::Unfinished(why), Some(tracer)) => {
                    work = Work::Comparing;
                    start.first = (tracer.dirty() * tracer.chunk_bytes()).min(used);
                    full_compare = Some(why);
                }
                (Trust::Compare(why) | Trust::Unfinished(why), _) => {
                    work = Work::Comparing;
                    full_compare = Some(why);
                }
                (Trust::New(why), _) => full_compare = why,
                (Trust::Whole, None) => {}
            }
        }
        let longest = options.max_hold_ms.map_or(self.options.max_hold, Duration::from_millis);
        let outlook = start.outlook(longest);
        let mut doubt = None;
        if let Some(end) = outlook.end.filter(|_| outlook.is_refused && refusal.is_none()) {
            let rates = Rates { read: start.later_rate, dirty: start.dirty_rate };
            let words = end.refusal(rates, longest, start.is_untraced);
            let words = words.while_doing("It would be refused by the rates of now");
            // How much is written may be another in the next moment; how fast all is compared stays.
            *(if start.is_untraced { &mut refusal } else { &mut doubt }) = Some(words);
        }
        let milliseconds = |time: Option<Duration>| time.and_then(|time| time.as_millis().try_into().ok());
        Ok(Forecast {
            hold_ms: milliseconds(outlook.hold),
            copying: Some(CopyForecast {
                work,
                full_compare,
                storage: place.map(|place| place.name.shown),
                places,
                rounds: outlook.end.map(|end| end.round),
                bytes_to_read: outlook.bytes,
                copy_rate: start.copy_rate(),
                dirty_rate: start.dirty_rate,
                read_ms: milliseconds(outlook.time),
            }),
            refusal,
            doubt,
            ..Forecast::default()
        })
    }
}

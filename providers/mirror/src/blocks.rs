//! Copies as blocks: what is in use in them, what changed, and their images.

use crate::{
    changes::{self, Changes},
    provider::{CopyData, MirrorProvider},
    reading,
};
use vss_model::{VssCode, VssError};
use vss_provider::{
    StoredCopy,
    blocks::{self, ChangedBlocks, Image},
    failure::failed,
    image_copy,
};

impl ChangedBlocks for MirrorProvider {
    fn changed(&self, copy: &StoredCopy, since: Option<&StoredCopy>) -> Result<blocks::Changes, VssError> {
        let (_place, store) = Self::reach(copy)?;
        let store = store.ok_or_else(|| image_copy::gone(copy.shadow_id))?;
        image_copy::open(&store, copy.shadow_id)?.ok_or_else(|| image_copy::gone(copy.shadow_id))?;
        let Some(since) = since else {
            return Ok(match Changes::load(&store, copy.shadow_id)? {
                Some(changes) => blocks::Changes::Known(changes::extents(&changes.used, &changes.about)),
                None => blocks::Changes::Unknown("what is kept of it is damaged or gone".to_owned()),
            });
        };
        if since.volume.id != copy.volume.id {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("Shadow copies {} and {} are of two volumes", copy.shadow_id, since.shadow_id),
            )
            .with_hint("Name two shadow copies of one volume"));
        }
        if CopyData::of(since)?.place != CopyData::of(copy)?.place {
            return Ok(blocks::Changes::Unknown("the two copies lie at different places".to_owned()));
        }
        image_copy::open(&store, since.shadow_id)?.ok_or_else(|| image_copy::gone(since.shadow_id))?;
        Ok(match changes::between(&store, copy.shadow_id, since.shadow_id)? {
            Ok(extents) => blocks::Changes::Known(extents),
            Err(why) => blocks::Changes::Unknown(why),
        })
    }

    fn open(&self, copy: &StoredCopy) -> Result<Image, VssError> {
        let (_place, store) = Self::reach(copy)?;
        let store = store.ok_or_else(|| image_copy::gone(copy.shadow_id))?;
        let file = reading::open(&store, copy.shadow_id)?;
        let about = Changes::load(&store, copy.shadow_id)?.map(|changes| changes.about);
        let (size, block) = match about {
            Some(about) => (about.volume_bytes, about.chunk),
            None => (file.metadata().map_err(|error| failed("The image cannot be examined", &error))?.len(), 4096),
        };
        Ok(Image { file, offset: 0, size, block })
    }
}

//! The suite that every provider runs: what the contract says, as checks against real volumes.
//!
//! A provider's own tests give a [`Subject`] and call [`assert_conforms`]. Each check leaves the volumes as it found them,
//! but for its own files.

mod abort;
mod forecast;
mod hold;

use crate::{Deletion, PrepareRequest, Presence, Provider, StoredCopy, Support, progress::Unwatched};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};
use vss_linux::mount;
use vss_model::{Context, CreationOptions, FreezePolicy, Instant, SetId, ShadowId, Volume, VssCode, VssError};

/// What the suite needs of a provider's test.
pub trait Subject {
    /// The provider, made anew: as after a restart of the service, it remembers nothing.
    fn provider(&self) -> Box<dyn Provider>;

    /// At least two mounted, writable volumes made for the test, always the same ones in the same order.
    fn volumes(&self) -> Vec<Volume>;

    /// Everything that the provider has made and not deleted, by name.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn leftovers(&self) -> io::Result<Vec<String>>;

    /// False for a fake, whose mounts show the live volume.
    fn keeps_content(&self) -> bool {
        true
    }
}

/// One thing that the contract says.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, a statement.
    pub name: &'static str,
    /// Looks whether it is so; the error says what is not.
    pub run: fn(&dyn Subject) -> Result<(), String>,
}

/// Every check.
#[must_use]
pub fn checks() -> &'static [Check] {
    &[
        Check { name: "properties_last", run: properties_last },
        Check { name: "phases_in_order_make_a_copy", run: phases_in_order_make_a_copy },
        Check { name: "a_call_out_of_order_is_refused", run: a_call_out_of_order_is_refused },
        Check { name: "an_unknown_set_is_not_found", run: an_unknown_set_is_not_found },
        Check { name: "abort_leaves_nothing", run: abort_leaves_nothing },
        Check {
            name: "abort_from_another_thread_ends_slow_work",
            run: abort::abort_from_another_thread_ends_slow_work,
        },
        Check { name: "abort_after_the_end_keeps_the_copy", run: abort_after_the_end_keeps_the_copy },
        Check { name: "another_set_forgets_the_unfinished_one", run: another_set_forgets_the_unfinished_one },
        Check {
            name: "a_crash_leaves_nothing_that_delete_cannot_find",
            run: a_crash_leaves_nothing_that_delete_cannot_find,
        },
        Check { name: "a_volume_added_twice_is_copied_once", run: a_volume_added_twice_is_copied_once },
        Check { name: "a_copy_keeps_the_old_content", run: a_copy_keeps_the_old_content },
        Check { name: "a_copy_is_writable_only_before_post_final", run: a_copy_is_writable_only_before_post_final },
        Check { name: "several_volumes_are_copied_in_one_set", run: several_volumes_are_copied_in_one_set },
        Check { name: "a_deleted_copy_cannot_be_mounted", run: a_deleted_copy_cannot_be_mounted },
        Check {
            name: "a_forecast_comes_true_and_changes_nothing",
            run: forecast::a_forecast_comes_true_and_changes_nothing,
        },
        Check { name: "a_forecast_refuses_what_is_refused", run: forecast::a_forecast_refuses_what_is_refused },
    ]
}

/// Runs every check.
///
/// # Panics
/// With the names and the words of every check that failed.
pub fn assert_conforms(subject: &dyn Subject) {
    let failures: Vec<String> = checks()
        .iter()
        .filter_map(|check| (check.run)(subject).err().map(|failure| format!("{}: {failure}", check.name)))
        .collect();
    assert!(failures.is_empty(), "The provider breaks its contract:\n{}", failures.join("\n"));
}

/// The phases after BeginPrepare, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    EndPrepare,
    PreCommit,
    Commit,
    PostCommit,
    PreFinal,
    PostFinal,
}

impl Call {
    const ALL: [Self; 6] =
        [Self::EndPrepare, Self::PreCommit, Self::Commit, Self::PostCommit, Self::PreFinal, Self::PostFinal];

    fn make(self, provider: &dyn Provider, set_id: SetId) -> Result<(), VssError> {
        match self {
            Self::EndPrepare => provider.end_prepare(set_id, &Unwatched),
            Self::PreCommit => provider.pre_commit(set_id),
            Self::Commit => provider.commit(set_id),
            Self::PostCommit => provider.post_commit(set_id).map(|_| ()),
            Self::PreFinal => provider.pre_final_commit(set_id),
            Self::PostFinal => provider.post_final_commit(set_id),
        }
    }
}

/// A set in the making.
struct Making<'a> {
    provider: &'a dyn Provider,
    set_id: SetId,
    copies: Vec<StoredCopy>,
    /// Commit is called while the volumes are frozen.
    held: bool,
}

impl<'a> Making<'a> {
    /// BeginPrepare for each volume.
    fn begin(subject: &dyn Subject, provider: &'a dyn Provider, volumes: &[Volume]) -> Result<Self, String> {
        let set_id = SetId::random();
        let mut copies = Vec::new();
        for volume in volumes {
            let request = request(set_id, volume);
            let stored = done("begin_prepare", provider.begin_prepare(&request))?;
            let is_same = stored.set_id == set_id && stored.shadow_id == request.shadow_id && stored.volume == *volume;
            ensure(is_same, "begin_prepare changed an id or the volume")?;
            ensure(stored.data.len() <= 64 << 10, "begin_prepare gave more than 64 KiB of data")?;
            copies.push(stored);
        }
        Ok(Self { provider, set_id, copies, held: is_held(subject, provider) })
    }

    /// The first `count` phases after BeginPrepare.
    fn advance(&mut self, count: usize) -> Result<(), String> {
        Call::ALL[..count].iter().try_for_each(|call| self.call(*call))
    }

    fn call(&mut self, call: Call) -> Result<(), String> {
        if call == Call::Commit && self.held {
            let volumes: Vec<Volume> = self.copies.iter().map(|copy| copy.volume.clone()).collect();
            let cut = hold::while_held(&volumes, || call.make(self.provider, self.set_id));
            return done(call, cut.map_err(|error| format!("the volumes cannot be held: {error}"))?);
        }
        if call != Call::PostCommit {
            return done(call, call.make(self.provider, self.set_id));
        }
        let committed = done(call, self.provider.post_commit(self.set_id))?;
        let ids = |ids: &mut dyn Iterator<Item = ShadowId>| ids.collect::<Vec<_>>();
        let wanted = ids(&mut self.copies.iter().map(|copy| copy.shadow_id));
        ensure(ids(&mut committed.iter().map(|copy| copy.shadow_id)) == wanted, "post_commit named other copies")?;
        for (copy, committed) in self.copies.iter_mut().zip(committed) {
            ensure(committed.data.len() <= 64 << 10, "post_commit gave more than 64 KiB of data")?;
            copy.data = committed.data;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.advance(Call::ALL.len())
    }

    fn abort(&self) -> Result<(), String> {
        done("abort", self.provider.abort(self.set_id))
    }

    /// Deletes every copy of the finished set.
    fn delete(&self) -> Result<(), String> {
        for copy in &self.copies {
            ensure(done("delete", self.provider.delete(copy))? == Deletion::Deleted, "delete found no finished copy")?;
        }
        Ok(())
    }
}

/// What has no content of its own is not frozen: a fake's volumes may be directories of the machine's root.
fn is_held(subject: &dyn Subject, provider: &dyn Provider) -> bool {
    subject.keeps_content() && provider.properties().freeze_policy == FreezePolicy::NeedsHold
}

fn request(set_id: SetId, volume: &Volume) -> PrepareRequest {
    PrepareRequest {
        set_id,
        shadow_id: ShadowId::random(),
        volume: volume.clone(),
        context: Context::Backup,
        options: CreationOptions::default(),
    }
}

fn properties_last(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let properties = provider.properties();
    ensure(properties == subject.provider().properties(), "a new object has other properties")?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure(!properties.name.is_empty() && properties.name.chars().all(is_plain), "the name is not a plain word")?;
    for volume in subject.volumes() {
        let support = done("is_volume_supported", provider.is_volume_supported(&volume))?;
        ensure(support == Support::Yes, &format!("{} is not supported: {support:?}", volume.mount_point.display()))?;
    }
    Ok(())
}

fn phases_in_order_make_a_copy(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let mut making = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
    nothing_left(subject, "begin_prepare")?;
    ensure(done("presence", provider.presence(&making.copies[0]))? == Presence::Gone, "a copy is present too early")?;
    making.advance(2)?;
    let before = Instant::now();
    making.call(Call::Commit)?;
    let after = Instant::now();
    let committed = done("post_commit", provider.post_commit(making.set_id))?;
    ensure(committed.len() == 1, "post_commit gave not one copy")?;
    let is_between = before <= committed[0].cut_at && committed[0].cut_at <= after;
    ensure(is_between, "cut_at does not lie in commit")?;
    making.call(Call::PreFinal)?;
    making.call(Call::PostFinal)?;
    let anew = subject.provider();
    ensure(done("presence", anew.presence(&making.copies[0]))? == Presence::Present, "a finished copy is not present")?;
    let unknown = anew.end_prepare(making.set_id, &Unwatched);
    refused("end_prepare of a finished set", unknown, &[VssCode::ObjectNotFound])?;
    ensure(done("delete", anew.delete(&making.copies[0]))? == Deletion::Deleted, "delete did not find the copy")?;
    ensure(done("delete", anew.delete(&making.copies[0]))? == Deletion::WasGone, "a second delete found the copy")?;
    ensure(done("presence", anew.presence(&making.copies[0]))? == Presence::Gone, "a deleted copy is present")?;
    nothing_left(subject, "delete")
}

fn a_call_out_of_order_is_refused(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    for stage in 0..Call::ALL.len() {
        for (position, call) in Call::ALL.into_iter().enumerate() {
            if position == stage {
                continue;
            }
            let mut making = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
            making.advance(stage)?;
            let what = format!("{call:?} in place of {:?}", Call::ALL[stage]);
            refused(&what, call.make(&*provider, making.set_id), &[VssCode::BadState, VssCode::ProviderVeto])?;
            making.abort()?;
            nothing_left(subject, &what)?;
        }
    }
    Ok(())
}

fn an_unknown_set_is_not_found(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    for call in Call::ALL {
        let result = call.make(&*provider, SetId::random());
        refused(&format!("{call:?} of an unknown set"), result, &[VssCode::ObjectNotFound])?;
    }
    done("abort of an unknown set", provider.abort(SetId::random()))
}

fn abort_leaves_nothing(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    for stage in 0..Call::ALL.len() {
        let mut making = Making::begin(subject, &*provider, &subject.volumes())?;
        making.advance(stage)?;
        making.abort()?;
        nothing_left(subject, &format!("abort before {:?}", Call::ALL[stage]))?;
        making.abort()?;
        let call = Call::ALL[stage];
        let result = call.make(&*provider, making.set_id);
        refused(&format!("{call:?} after abort"), result, &[VssCode::ObjectNotFound])?;
    }
    Ok(())
}

fn abort_after_the_end_keeps_the_copy(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let mut making = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
    making.finish()?;
    making.abort()?;
    let presence = done("presence", provider.presence(&making.copies[0]))?;
    making.delete()?;
    ensure(presence == Presence::Present, "abort deleted a finished copy")
}

fn another_set_forgets_the_unfinished_one(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    for stage in 0..Call::ALL.len() {
        let mut first = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
        first.advance(stage)?;
        let mut second = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
        nothing_left(subject, &format!("another set before {:?}", Call::ALL[stage]))?;
        let call = Call::ALL[stage];
        let result = call.make(&*provider, first.set_id);
        refused(&format!("{call:?} of a forgotten set"), result, &[VssCode::ObjectNotFound])?;
        second.finish()?;
        second.delete()?;
    }
    nothing_left(subject, "delete")
}

fn a_crash_leaves_nothing_that_delete_cannot_find(subject: &dyn Subject) -> Result<(), String> {
    for stage in 0..=Call::ALL.len() {
        let provider = subject.provider();
        let mut making = Making::begin(subject, &*provider, &subject.volumes())?;
        // What the catalogue has at a crash is what BeginPrepare gave.
        let stored = making.copies.clone();
        making.advance(stage)?;
        drop(provider);
        let anew = subject.provider();
        for copy in &stored {
            done("delete", anew.delete(copy))?;
            ensure(done("delete", anew.delete(copy))? == Deletion::WasGone, "a second delete found the copy")?;
            ensure(done("presence", anew.presence(copy))? == Presence::Gone, "a deleted copy is present")?;
        }
        nothing_left(subject, &format!("a crash after {stage} phases and delete"))?;
    }
    Ok(())
}

fn a_volume_added_twice_is_copied_once(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let request = request(SetId::random(), &subject.volumes()[0]);
    let first = done("begin_prepare", provider.begin_prepare(&request))?;
    let second = done("begin_prepare again", provider.begin_prepare(&request))?;
    ensure(first == second, "the second begin_prepare gave something else")?;
    let mut making = Making {
        provider: &*provider,
        set_id: request.set_id,
        copies: vec![first],
        held: is_held(subject, &*provider),
    };
    making.finish()?;
    making.delete()?;
    nothing_left(subject, "delete")
}

fn a_copy_keeps_the_old_content(subject: &dyn Subject) -> Result<(), String> {
    if !subject.keeps_content() {
        return Ok(());
    }
    let provider = subject.provider();
    let volume = &subject.volumes()[0];
    let (kept, deleted) = (volume.mount_point.join("conformance-kept"), volume.mount_point.join("conformance-deleted"));
    let written = |result: io::Result<()>| result.map_err(|error| format!("the volume cannot be written: {error}"));
    written(std::fs::write(&kept, "old"))?;
    written(std::fs::write(&deleted, "old"))?;
    let mut making = Making::begin(subject, &*provider, std::slice::from_ref(volume))?;
    making.advance(3)?;
    written(std::fs::write(&kept, "new"))?;
    written(std::fs::remove_file(&deleted))?;
    for call in &Call::ALL[3..] {
        making.call(*call)?;
    }
    let trees = done("mount", subject.provider().mount(&making.copies[0], false))?;
    let root = trees.first().ok_or("mount gave no tree")?;
    ensure(root.path.as_os_str().is_empty(), "the first tree is not the root")?;
    for name in ["conformance-kept", "conformance-deleted"] {
        let content = read_in(&root.mount, name).map_err(|error| format!("{name} in the copy: {error}"))?;
        ensure(content == "old", &format!("{name} in the copy is \"{content}\""))?;
    }
    drop(trees);
    making.delete()?;
    written(std::fs::remove_file(&kept))?;
    nothing_left(subject, "delete")
}

fn a_copy_is_writable_only_before_post_final(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let mut making = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
    for call in Call::ALL {
        let result = provider.mount(&making.copies[0], true).map(|_| ());
        let codes = [VssCode::ProviderVeto, VssCode::ObjectNotFound, VssCode::BadState];
        refused(&format!("a writable mount before {call:?}"), result, &codes)?;
        making.call(call)?;
        if call == Call::PreFinal {
            break;
        }
    }
    if !provider.properties().capabilities.writable_phase {
        let result = provider.mount(&making.copies[0], true).map(|_| ());
        refused("a writable mount without a writable phase", result, &[VssCode::ProviderVeto])?;
        return making.abort();
    }
    let writable = done("mount", provider.mount(&making.copies[0], true))?;
    write_in(&writable[0].mount, "conformance-mended")
        .map_err(|error| format!("the copy cannot be mended: {error}"))?;
    drop(writable);
    making.call(Call::PostFinal)?;
    let result = provider.mount(&making.copies[0], true).map(|_| ());
    refused("a writable mount of a finished copy", result, &[VssCode::ProviderVeto])?;
    let trees = done("mount", provider.mount(&making.copies[0], false))?;
    let found =
        read_in(&trees[0].mount, "conformance-mended").map_err(|error| format!("what was mended is gone: {error}"))?;
    ensure(found == "new", "what was mended is lost")?;
    let written = write_in(&trees[0].mount, "conformance-late").err().and_then(|error| error.raw_os_error());
    ensure(written == Some(rustix::io::Errno::ROFS.raw_os_error()), "a finished copy can be written to")?;
    drop(trees);
    making.delete()?;
    // A fake's copy is the volume itself.
    let _ = std::fs::remove_file(subject.volumes()[0].mount_point.join("conformance-mended"));
    nothing_left(subject, "delete")
}

fn several_volumes_are_copied_in_one_set(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let volumes = subject.volumes();
    ensure(volumes.len() > 1, "the test gives fewer than two volumes")?;
    let mut making = Making::begin(subject, &*provider, &volumes)?;
    making.finish()?;
    for copy in &making.copies {
        ensure(done("presence", provider.presence(copy))? == Presence::Present, "a copy of the set is not present")?;
    }
    let (first, rest) = making.copies.split_first().ok_or("no copies")?;
    done("delete", provider.delete(first))?;
    for copy in rest {
        let presence = done("presence", provider.presence(copy))?;
        ensure(presence == Presence::Present, "deleting one copy of a set deleted another")?;
        done("delete", provider.delete(copy))?;
    }
    nothing_left(subject, "delete")
}

fn a_deleted_copy_cannot_be_mounted(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let mut making = Making::begin(subject, &*provider, &subject.volumes()[..1])?;
    making.finish()?;
    making.delete()?;
    let result = provider.mount(&making.copies[0], false).map(|_| ());
    refused("a mount of a deleted copy", result, &[VssCode::ObjectNotFound])
}

fn ensure(condition: bool, failure: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(failure.to_owned()) }
}

fn done<T>(what: impl std::fmt::Debug, result: Result<T, VssError>) -> Result<T, String> {
    result.map_err(|error| format!("{what:?} failed: {error}"))
}

/// The call must fail with one of `codes`; which a provider may return at all is asked too.
fn refused(what: &str, result: Result<(), VssError>, codes: &[VssCode]) -> Result<(), String> {
    let Err(error) = result else { return Err(format!("{what} was not refused")) };
    ensure(error.code.allowed_from_provider(), &format!("{what}: {} is no code for a provider", error.code))?;
    ensure(codes.contains(&error.code), &format!("{what}: refused with {error}, wanted one of {codes:?}"))
}

fn nothing_left(subject: &dyn Subject, after: &str) -> Result<(), String> {
    let left = subject.leftovers().map_err(|error| format!("leftovers cannot be listed: {error}"))?;
    ensure(left.is_empty(), &format!("after {after} there is left: {}", left.join(", ")))
}

fn read_in(root: &OwnedFd, name: &str) -> io::Result<String> {
    let mut text = String::new();
    File::from(mount::open_beneath(root, Path::new(name), OFlags::RDONLY)?).read_to_string(&mut text)?;
    Ok(text)
}

fn write_in(root: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(root.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?).write_all(b"new")
}

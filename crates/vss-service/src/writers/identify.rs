//! Identify: asking writers what they own (spec R 2.2). It changes nothing in a writer, so it is also how [`crate::check`]
//! learns of them.

use super::port::PortError;
use super::registry::RegisteredWriter;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};
use vss_api::writer::{Identify, Identity};
use vss_model::time::milliseconds;
use vss_model::{SessionId, VssCode, VssError, WriterMetadata, limits};

/// Most bytes of metadata of all writers together, as JSON: GetWriterMetadata answers in one message of 4 MiB, which has room
/// for what else each entry says.
const METADATA_IN_ALL: usize = 3 << 20;

/// One writer that was asked.
pub struct Asked {
    /// The writer.
    pub writer: Arc<RegisteredWriter>,
    /// Its limit from Freeze to Thaw.
    pub freeze_limit: Duration,
    /// What it owns, or why that is not known.
    pub metadata: Result<WriterMetadata, VssError>,
    /// How long it took to say so.
    pub took: Duration,
}

/// Asks these writers what they own, all at once, each with its limit from Freeze to Thaw. When all together say more than
/// one answer to a requester can hold, those that say most fail.
pub async fn identify(session_id: SessionId, writers: Vec<(Arc<RegisteredWriter>, Duration)>) -> Vec<Asked> {
    let mut answers = JoinSet::new();
    for (index, (writer, _)) in writers.iter().enumerate() {
        let question = Identify { session_id, time_left_ms: milliseconds(limits::WRITER_IDENTIFY) };
        let answer = writer.port.identify(question);
        let began = Instant::now();
        answers.spawn(async move {
            let answer = tokio::time::timeout(limits::WRITER_IDENTIFY, answer).await;
            (index, began.elapsed(), answer)
        });
    }
    let mut identities: BTreeMap<usize, Result<Identity, VssError>> = BTreeMap::new();
    let mut times = BTreeMap::new();
    let mut sizes = BTreeSet::new();
    while let Some(answer) = answers.join_next().await {
        let Ok((index, took, answer)) = answer else { continue };
        times.insert(index, took);
        let identity = answer.map_or_else(|_| Err(too_slow()), |answer| answer.map_err(PortError::into_failure));
        if let Ok(identity) = &identity {
            sizes.insert((serde_json::to_vec(identity).map_or(usize::MAX, |json| json.len()), index));
        }
        identities.insert(index, identity);
        while sizes.iter().fold(0usize, |sum, (size, _)| sum.saturating_add(*size)) > METADATA_IN_ALL
            && let Some((size, largest)) = sizes.pop_last()
        {
            identities.insert(largest, Err(too_much(size)));
        }
    }
    let asked = writers.into_iter().enumerate().map(|(index, (writer, freeze_limit))| {
        let identity = identities.remove(&index).unwrap_or_else(|| Err(too_slow()));
        let metadata = identity.and_then(|identity| metadata(&writer, identity));
        let took = times.get(&index).copied().unwrap_or(limits::WRITER_IDENTIFY);
        Asked { writer, freeze_limit, metadata, took }
    });
    asked.collect()
}

fn metadata(writer: &RegisteredWriter, identity: Identity) -> Result<WriterMetadata, VssError> {
    let metadata = writer.register.clone().metadata(writer.instance_id, identity);
    metadata.check()?;
    Ok(metadata)
}

fn too_slow() -> VssError {
    let limit = limits::WRITER_IDENTIFY;
    VssError::new(VssCode::WriterNotResponding, format!("it did not say what it owns within {limit:?}"))
}

fn too_much(size: usize) -> VssError {
    VssError::new(
        VssCode::OutOfMemory,
        format!("what it owns has {size} bytes, and that of all writers together more than {METADATA_IN_ALL}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::port::PortFuture;
    use super::super::{PortError, WriterPort};
    use super::*;
    use serde_json::{Value, json};
    use std::os::fd::OwnedFd;
    use vss_api::writer::{Event, EventKind, EventReply};
    use vss_model::{WriterClassId, WriterInstanceId};

    /// Answers to Identify alone.
    struct Port(Result<Value, PortError>);

    impl WriterPort for Port {
        fn identify(&self, _question: Identify) -> PortFuture<Identity> {
            let answer = self.0.clone().map(|identity| serde_json::from_value(identity).unwrap());
            Box::pin(async move { answer })
        }

        fn event(&self, _kind: EventKind, _event: Event, _directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
            Box::pin(std::future::pending())
        }

        fn close(&self) {}
    }

    async fn asked(answers: Vec<Result<Value, PortError>>) -> Vec<Result<WriterMetadata, VssError>> {
        let writers = answers.into_iter().map(|answer| {
            let register = json!({"class_id": WriterClassId::random(), "name": "one"});
            let writer = RegisteredWriter {
                instance_id: WriterInstanceId::random(),
                register: serde_json::from_value(register).unwrap(),
                uid: 1,
                pid: 1,
                port: Arc::new(Port(answer)),
            };
            (Arc::new(writer), Duration::from_secs(1))
        });
        identify(SessionId::random(), writers.collect()).await.into_iter().map(|asked| asked.metadata).collect()
    }

    fn component(words: usize) -> Value {
        json!({"components": [{"name": "data", "caption": "x".repeat(words), "files": [{"path": "/"}]}]})
    }

    #[tokio::test]
    async fn one_that_says_too_much_does_not_push_out_the_others() {
        let greedy = || Ok(component(2 << 20));
        let answers = asked(vec![greedy(), Ok(component(1)), greedy(), Ok(component(1))]).await;
        let said: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        assert!(said[1] && said[3], "{said:?}");
        let error = answers.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(error.len(), 1);
        assert_eq!(error[0].code, VssCode::OutOfMemory);
    }

    #[tokio::test]
    async fn who_refuses_dies_or_breaks_the_contract_is_told_why() {
        let refused = PortError::Refused(VssError::new(VssCode::WriterErrorRetryable, "not now"));
        let relative = json!({"components": [{"name": "data", "files": [{"path": "etc"}]}]});
        let answers = asked(vec![Err(refused), Err(PortError::Gone), Ok(relative)]).await;
        let words: Vec<String> = answers.into_iter().map(|answer| answer.unwrap_err().message).collect();
        assert_eq!(words[0], "not now");
        assert!(words[1].contains("closed its connection") && words[2].contains("not absolute"), "{words:?}");
    }
}

//! `org.linuxvss.Writer`: registration. A class id belongs to the uid that first registered it, or to `vss.toml`'s.

use crate::coordinator::{Action, Coordinator};
use crate::writers::RegisteredWriter;
use crate::{blocking, rules};
use std::sync::Arc;
use vss_api::event::EventKind;
use vss_api::server::{ConnectionId, WriterReplier};
use vss_api::writer::{Register, Registered};
use vss_model::{VssError, WriterInstanceId, limits};

impl Coordinator {
    /// `Register`, first part: is there room, and to whom does the class belong?
    pub(crate) fn register(&mut self, id: ConnectionId, register: Register, replier: WriterReplier) {
        let Some((peer, _)) = self.writer_connections.get(&id) else { return };
        let uid = peer.uid;
        if let Err(error) = self.registry.admit(&register, uid) {
            return replier.refuse(error);
        }
        if let Some(owner) = self.classes.get(&register.class_id).copied() {
            return self.admit_writer(id, register, replier, Ok(owner));
        }
        let (environment, class_id) = (Arc::clone(&self.environment), register.class_id);
        let work = async move {
            let bind = move || environment.catalogue.bind_class(class_id, uid);
            let owner = blocking::run("Writing the catalogue", limits::PROVIDER_OUTSIDE, bind);
            Action::ClassBound { connection: id, register, replier, owner: owner.await }
        };
        // A replier that is lost answers for itself.
        self.spawn(work, || Action::JobEnded);
    }

    /// `Register`, second part: the writer joins.
    pub(crate) fn admit_writer(
        &mut self,
        id: ConnectionId,
        register: Register,
        replier: WriterReplier,
        owner: Result<u32, VssError>,
    ) {
        let Some((peer, instance)) = self.writer_connections.get_mut(&id) else { return };
        let (uid, pid) = (peer.uid, peer.pid);
        let admitted = owner.and_then(|owner| {
            let what = format!("register writer class {}, which belongs to uid {owner}", register.class_id);
            rules::owner(peer, owner, &what).and_then(|()| self.registry.admit(&register, uid))
        });
        if let Err(error) = admitted {
            return replier.refuse(error);
        }
        let instance_id = WriterInstanceId::random();
        *instance = Some(instance_id);
        let service = format!("vssd {}", env!("CARGO_PKG_VERSION"));
        let line = replier.accept(&Registered { instance_id, service });
        tracing::info!(writer = register.name, uid, pid, "registered");
        let writer = Arc::new(RegisteredWriter { instance_id, register, uid, pid, port: Arc::new(line) });
        self.environment.events.tell(writer.event(EventKind::WriterRegistered));
        self.registry.add(writer);
    }
}

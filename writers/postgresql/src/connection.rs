//! One SQL session with a cluster: bounded in time, ended for sure.
//!
//! Here live how we log in and what a failure of the server means to a backup. Which statements are run when is decided in
//! `backup_mode.rs` and `writer.rs`.

use crate::cluster::Cluster;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};
use vss_model::{VssCode, VssError};
use vss_writer::Call;

/// By this name an administrator finds our session in `pg_stat_activity`.
pub(crate) const APPLICATION: &str = "vss";
/// Databases to log in to: somebody may have dropped the first.
const DATABASES: [&str; 2] = ["postgres", "template1"];
/// How often the end of the call is looked for while a statement runs.
const LOOK: Duration = Duration::from_millis(20);
/// How long the farewell to a server may take; then the socket is just closed, which ends the session as well.
const FAREWELL: Duration = Duration::from_millis(500);
/// What is left of the writer's time when a statement is given up: a tenth, at most this. The error that names the cluster
/// must arrive before the service gives up.
const MARGIN: Duration = Duration::from_secs(1);

/// How to log in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// The database user: the system's user of the same name (peer authentication).
    pub(crate) user: String,
    /// What runs the client; driven by the writer's own thread alone.
    pub(crate) runtime: Arc<Runtime>,
}

/// A session with a server.
#[derive(Debug)]
pub(crate) struct Connection {
    cluster: String,
    runtime: Arc<Runtime>,
    client: Option<Client>,
    line: JoinHandle<()>,
}

impl Connection {
    /// Logs in to the cluster.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RETRYABLE` when the server is starting, stopping or full, or time is up;
    /// `VSS_E_WRITERERROR_NONRETRYABLE` when it does not let us in.
    pub(crate) fn open(cluster: &Cluster, login: &Login, call: &Call<'_>) -> Result<Self, VssError> {
        let Some(directory) = &cluster.socket_directory else {
            let message = format!("PostgreSQL cluster {} has no unix socket", cluster.name);
            let hint = "Set unix_socket_directories in its postgresql.conf";
            return Err(VssError::new(VssCode::WriterErrorNonRetryable, message).with_hint(hint));
        };
        let mut config = Config::new();
        config.host_path(directory).port(cluster.port).user(&login.user).application_name(APPLICATION);
        let attempt = |config: &Config| {
            within(&login.runtime, call, config.connect(NoTls)).map_err(|late| late.error(&cluster.name, "log in"))
        };
        let [usual, other] = DATABASES;
        let mut connected = attempt(config.dbname(usual))?;
        if let Err(error) = &connected
            && error.code() == Some(&SqlState::UNDEFINED_DATABASE)
        {
            connected = attempt(config.dbname(other))?;
        }
        let (client, connection) = connected.map_err(|error| refused(cluster, &login.user, &error))?;
        let line = login.runtime.spawn(async {
            // Its failure is that of the next statement.
            let _ = connection.await;
        });
        let (name, runtime) = (cluster.name.clone(), Arc::clone(&login.runtime));
        let mut connection = Self { cluster: name, runtime, client: Some(client), line };
        connection.outlive_every_timeout(cluster, call)?;
        Ok(connection)
    }

    /// The administrator may have bounded idle sessions; ours has to stay for the time between the events.
    fn outlive_every_timeout(&mut self, cluster: &Cluster, call: &Call<'_>) -> Result<(), VssError> {
        /// The version that brought `idle_session_timeout`.
        const IDLE_SESSION: u32 = 14;
        let mut settings = "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;".to_owned();
        if cluster.version >= IDLE_SESSION {
            settings.push_str(" SET idle_session_timeout = 0;");
        }
        self.execute("prepare the session", &settings, call)
    }

    /// Runs statements without parameters and results.
    ///
    /// # Errors
    /// The server's refusal, the loss of the connection, the end of the call's time.
    pub(crate) fn execute(&mut self, what: &str, statements: &str, call: &Call<'_>) -> Result<(), VssError> {
        let limit = limit(call);
        let done = match &self.client {
            Some(client) => within(&self.runtime, call, async {
                client.batch_execute(&limit).await?;
                client.batch_execute(statements).await
            }),
            None => Err(Late::Over),
        };
        self.judge(what, done)
    }

    /// Runs one query with one row as its result.
    ///
    /// # Errors
    /// As [`Connection::execute`].
    pub(crate) fn row(
        &mut self,
        what: &str,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
        call: &Call<'_>,
    ) -> Result<Row, VssError> {
        let limit = limit(call);
        let done = match &self.client {
            Some(client) => within(&self.runtime, call, async {
                client.batch_execute(&limit).await?;
                client.query_one(query, parameters).await
            }),
            None => Err(Late::Over),
        };
        self.judge(what, done)
    }

    /// After a failure to answer in time nothing that the session says can be told from an answer to that: it is ended.
    fn judge<T>(&mut self, what: &str, done: Result<Result<T, tokio_postgres::Error>, Late>) -> Result<T, VssError> {
        match done {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(failed(&self.cluster, what, &error)),
            Err(late) => {
                self.end();
                Err(late.error(&self.cluster, what))
            }
        }
    }

    /// Says goodbye and closes the socket. With the session ends everything that it held: backup mode, its slot.
    fn end(&mut self) {
        let Some(client) = self.client.take() else { return };
        drop(client);
        let line = &mut self.line;
        let said = self.runtime.block_on(async { tokio::time::timeout(FAREWELL, &mut *line).await });
        if said.is_err() {
            line.abort();
            // Drops the socket.
            let _ = self.runtime.block_on(line);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why an answer was not waited for.
#[derive(Debug)]
enum Late {
    /// The time of the call is over.
    Over,
    /// The service is gone, or the writer shall end.
    Interrupted,
}

impl Late {
    fn error(&self, cluster: &str, what: &str) -> VssError {
        let why = match self {
            Self::Over => "did not answer in time",
            Self::Interrupted => "was given up, because the backup has ended,",
        };
        let message = format!("PostgreSQL cluster {cluster} {why} when asked to {what}");
        VssError::new(VssCode::WriterErrorRetryable, message).with_hint("Try again when the server is less busy")
    }
}

/// Runs `work` until it is done, the time of the call is over, or the call is interrupted.
fn within<T>(runtime: &Runtime, call: &Call<'_>, work: impl Future<Output = T>) -> Result<T, Late> {
    let limit = left(call);
    runtime.block_on(async {
        let mut work = std::pin::pin!(tokio::time::timeout(limit, work));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done.map_err(|_| Late::Over),
                () = tokio::time::sleep(LOOK) => {
                    if call.wait_for(None, Instant::now()).is_err() {
                        return Err(Late::Interrupted);
                    }
                }
            }
        }
    })
}

/// Time for the server.
fn left(call: &Call<'_>) -> Duration {
    let left = call.time_left();
    left - (left / 10).min(MARGIN)
}

/// Has the server itself give up, too: counted from the next statement on.
fn limit(call: &Call<'_>) -> String {
    // 0 would mean no limit.
    let milliseconds = i32::try_from(left(call).as_millis()).unwrap_or(i32::MAX).max(1);
    format!("SET statement_timeout = {milliseconds}")
}

fn refused(cluster: &Cluster, user: &str, error: &tokio_postgres::Error) -> VssError {
    let failure = failed(&cluster.name, "log in", error);
    let identity = [SqlState::INVALID_AUTHORIZATION_SPECIFICATION, SqlState::INVALID_PASSWORD];
    if error.code().is_some_and(|code| identity.contains(code))
        || error.code().is_none() && error.as_db_error().is_none()
    {
        return failure.with_hint(format!(
            "pg_hba.conf must let {user} in by the socket, as `local all {user} peer` does, and {user} must be a superuser"
        ));
    }
    failure
}

/// A failure that the server told, or that its absence is.
fn failed(cluster: &str, what: &str, error: &tokio_postgres::Error) -> VssError {
    let (code, why) = match error.as_db_error() {
        Some(told) => (code_of(told.code()), told.message().to_owned()),
        None if error.is_closed() => (VssCode::WriterErrorRetryable, "the connection is lost".to_owned()),
        None => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            (VssCode::WriterErrorRetryable, format!("{error}{source}"))
        }
    };
    VssError::new(code, format!("PostgreSQL cluster {cluster} failed to {what}: {why}"))
}

/// What passes by itself is worth another try.
fn code_of(state: &SqlState) -> VssCode {
    // Class 53: out of resources; 55: not in the right state; 57: an operator's doing; 08: the connection.
    match state.code().get(..2) {
        Some("53") => VssCode::WriterErrorOutOfResources,
        Some("08" | "55" | "57") => VssCode::WriterErrorRetryable,
        _ => VssCode::WriterErrorNonRetryable,
    }
}

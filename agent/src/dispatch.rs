//! Takes the streams that the master opens on a line: reads the header, checks that it is fresh and allowed, hands it to
//! its service. A stream's failure, even a panic, stays with that stream. What the services do is not known here.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt;
use jiff::Zoned;
use proto::{
    code::Code,
    limits::{FRAME_MAX, HEADER_WITHIN},
    net::{
        carrier::Carrier,
        credit::{CreditPool, LineCredit, PROCESS_CREDIT_MAX},
        frame::FrameError,
        preference::Class,
        quic::{AGENT_RECEIVE_WINDOW, AGENT_STREAMS, AGENT_STREAMS_MAX, agent_send_window},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
    open::{OPERATIONS, Open, OpenHead, Operation, Refused},
    wire,
};
use tokio::task::JoinSet;

use crate::{
    freshness::Freshness,
    logbook::{Entry, Kind, LogError, Logbook, Running},
    policy::Policy,
    service::{
        answer,
        command::{Commands, only_looks},
        exec::Execs,
        files::Files,
        forward,
        shell::Shells,
        transfer::Transfers,
    },
};

/// Everything a stream may need. One per process: lines come and go beneath it.
#[derive(Debug)]
pub struct Dispatch {
    pub policy: Arc<Policy>,
    pub logbook: Logbook,
    pub freshness: Arc<Freshness>,
    pub commands: Commands,
    pub execs: Execs,
    pub shells: Shells,
    files: Files,
    transfers: Transfers,
    credit_pool: Arc<CreditPool>,
    panics: AtomicU64,
    running: AtomicUsize,
    /// Where a test plants a panic: an operation, and a command's service.
    #[cfg(test)]
    pub(crate) panic_in: Option<(&'static str, &'static str)>,
}

/// The line that a stream came on.
struct Under {
    connection: quinn::Connection,
    carrier: Carrier,
    credit: Arc<LineCredit>,
}

/// Counts a stream while it runs.
struct Counted(Arc<Dispatch>);

impl Counted {
    fn new(dispatch: Arc<Dispatch>) -> Self {
        dispatch.running.fetch_add(1, Ordering::Relaxed);
        Self(dispatch)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dispatch {
    pub fn new(
        policy: Arc<Policy>,
        logbook: Logbook,
        freshness: Arc<Freshness>,
        commands: Commands,
        execs: Execs,
        shells: Shells,
        files: Files,
    ) -> Self {
        let credit_pool = CreditPool::new(PROCESS_CREDIT_MAX);
        let transfers = Transfers::new(files.roots());
        Self {
            policy,
            logbook,
            freshness,
            commands,
            execs,
            shells,
            transfers,
            files,
            credit_pool,
            panics: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            #[cfg(test)]
            panic_in: None,
        }
    }

    /// The master sent this agent away: what belongs to the agent and not to a line ends too (SECURITY R5).
    pub fn sent_away(&self, code: Code) {
        self.shells.end_all(code);
        self.execs.end_all(code);
    }

    /// The same, and resolves when nothing of it runs any more. For when there is no line that could start something.
    pub async fn end_for_good(&self, code: Code) {
        tokio::join!(self.shells.end_for_good(code), self.execs.end_for_good(code));
    }

    /// Handlers that panicked since the start.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Streams that run right now, on any line.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Serves the streams of one line until it is lost. Dropping the future ends what runs on it; shells and
    /// execs go on.
    pub async fn serve(self: Arc<Self>, connection: quinn::Connection, carrier: Carrier) {
        let credit = LineCredit::new(connection.clone(), AGENT_RECEIVE_WINDOW, self.credit_pool.clone());
        let mut streams = JoinSet::new();
        let mut allowed = AGENT_STREAMS;
        while let Ok((send, recv)) = connection.accept_bi().await {
            while streams.try_join_next().is_some() {}
            allowed = raise(&connection, allowed, streams.len());
            let stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
            let line = Under { connection: connection.clone(), carrier, credit: credit.clone() };
            streams.spawn(self.clone().guarded(stream, line));
        }
    }

    async fn guarded(self: Arc<Self>, stream: FrameStream, line: Under) {
        let _counted = Counted::new(self.clone());
        // What unwinds drops the stream's halves, and they say INTERNAL.
        if AssertUnwindSafe(self.clone().stream(stream, line)).catch_unwind().await.is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a handler panicked; its stream was closed, nothing else is affected");
        }
    }

    async fn stream(self: Arc<Self>, mut stream: FrameStream, line: Under) {
        let read = tokio::time::timeout(HEADER_WITHIN, stream.recv.next_bytes()).await;
        let bytes = match read.unwrap_or(Err(FrameError::TooSlow(HEADER_WITHIN))) {
            Ok(bytes) => bytes,
            Err(error) => return stream.abort(error.code()),
        };
        let open = match wire::decode::<Open>(&bytes) {
            Ok(open) => open,
            Err(error) => return refuse_undecodable(stream, &bytes, &error.to_string()).await,
        };
        stream.send.prefer(Class::of(&open.operation), &line.connection, agent_send_window(line.carrier));
        match self.admit(&open) {
            Ok((taken_ms, verdict)) => match self.log(&open, taken_ms, &verdict).await {
                Ok(logged) => self.run(open, taken_ms, stream, line.credit, logged).await,
                Err(error) => {
                    let id = open.request_id;
                    tracing::error!(%id, error = &error as &dyn std::error::Error, "nothing was started");
                    let message = "the agent's own log cannot be written, so nothing was started; is its disk full?";
                    answer::refuse(stream, Code::INTERNAL, message).await;
                }
            },
            Err(refused) => {
                let (operation, id) = (open.operation.word(), open.request_id);
                tracing::warn!(operation, %id, code = refused.code.word(), message = ?refused.message, "refused");
                let entry = Entry::of(&open, open.issued_at_ms).verdict(&refused.message).result(refused.code);
                self.logbook.note(Kind::Traffic, entry.moment("refused"));
                answer::refuse(stream, refused.code, &refused.message).await;
            }
        }
    }

    /// What has effects is in the owner's log before it starts.
    async fn log(&self, open: &Open, taken_ms: i64, verdict: &str) -> Result<Running, LogError> {
        Running::begin(&self.logbook, kind_of(&open.operation), open, taken_ms, verdict).await
    }

    /// Fresh first: what was seen before is not judged again. Returns the master's time, and why the policy allows it.
    fn admit(&self, open: &Open) -> Result<(i64, String), Refused> {
        let taken = self.freshness.take(open.request_id, open.issued_at_ms);
        let taken_ms = taken.map_err(|error| Refused { code: error.code(), message: error.to_string() })?;
        match self.policy.judge(&open.operation, &Zoned::now()) {
            Ok(because) => Ok((taken_ms, because.0)),
            Err(denied) => Err(Refused { code: Code::POLICY, message: denied.to_string() }),
        }
    }

    async fn run(
        self: Arc<Self>,
        open: Open,
        taken_ms: i64,
        stream: FrameStream,
        credit: Arc<LineCredit>,
        logged: Running,
    ) {
        let id = open.request_id;
        #[cfg(test)]
        self.panic_where_planted(&open.operation);
        let code = match open.operation {
            Operation::Forward(target) => {
                let (code, carried) = forward::serve(&target, stream, &self.policy, &credit).await;
                return logged.ended(code, &carried);
            }
            // These outlive the stream, and so does what is logged of them.
            Operation::Exec(spec) => return self.execs.serve(id, taken_ms, spec, stream, logged).await,
            Operation::Shell(spec) => return self.shells.open(id, taken_ms, spec, stream, logged).await,
            Operation::Command(command) => self.commands.serve(id, taken_ms, &command, stream).await,
            Operation::ShellAttach(attach) => self.shells.attach(attach, stream).await,
            Operation::FileRead(spec) => self.transfers.read(spec, stream).await,
            Operation::FileWrite(spec) => self.transfers.write(spec, stream).await,
            Operation::File(request) => self.files.serve(id, taken_ms, request, stream).await,
            Operation::ExecAttach(attach) => self.execs.attach(attach, stream).await,
        };
        logged.ended(code, "");
    }
}

/// In which chain an operation is logged, and whether its start is: what has effects or takes content away.
fn kind_of(operation: &Operation) -> Kind {
    let acts = match operation {
        Operation::Exec(_) | Operation::Shell(_) | Operation::FileRead(_) | Operation::FileWrite(_) => true,
        Operation::Command(command) => !only_looks(command),
        Operation::File(request) => request.changes(),
        Operation::Forward(_) | Operation::ExecAttach(_) | Operation::ShellAttach(_) => false,
    };
    if acts { Kind::Acts } else { Kind::Traffic }
}

#[cfg(test)]
impl Dispatch {
    fn panic_where_planted(&self, operation: &Operation) {
        let service = match operation {
            Operation::Command(command) => command.service.as_str(),
            _ => "service",
        };
        assert!(self.panic_in != Some((operation.word(), service)) || service != "service", "planted");
    }
}

/// An operation of a newer master is refused by name; anything else is no header.
async fn refuse_undecodable(mut stream: FrameStream, bytes: &[u8], error: &str) {
    match wire::decode::<OpenHead>(bytes) {
        Ok(head) if head.operation >= OPERATIONS => {
            let message = format!("operation {} is unknown to this agent; upgrade it", head.operation);
            answer::refuse(stream, Code::UNKNOWN_OPERATION, &message).await;
        }
        Ok(_) => answer::refuse(stream, Code::INVALID, error).await,
        Err(_) => stream.abort(Code::MALFORMED),
    }
}

/// Allows twice as many streams when three quarters are in use. Each allowed stream costs memory, so an idle agent
/// starts with few.
fn raise(connection: &quinn::Connection, allowed: u32, used: usize) -> u32 {
    if allowed >= AGENT_STREAMS_MAX || used < (allowed - allowed / 4) as usize {
        return allowed;
    }
    let raised = (allowed * 2).min(AGENT_STREAMS_MAX);
    connection.set_max_concurrent_bi_streams(raised.into());
    raised
}

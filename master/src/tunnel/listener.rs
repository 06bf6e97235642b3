//! Accepts the connections of one tunnel and owns every one of them. Knows nothing of states: it runs from being made
//! until it is closed, and then nothing of it is left.

use std::{io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use proto::{
    code::Code,
    net::{relay::relay_opening, socket::Socket},
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    path::{Counted, Path},
    pipe::{Outer, pipe},
    ports::Sockets,
};
use crate::metrics::Metrics;

/// Pause after the system had no descriptor or memory for a connection: the next one may have left by then.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Time for all connections of a closed tunnel to be reset.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A running listener. Dropping it closes the sockets and resets every connection, without waiting for that.
pub(super) struct Listener {
    stop: DropGuard,
    accepting: JoinHandle<()>,
    door: Door,
}

/// Where connections enter a tunnel: those of its sockets, and those that the gateway makes. Ends with the listener.
#[derive(Clone)]
pub(super) struct Door {
    path: Arc<Path>,
    free: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
}

/// A connection through a tunnel, for the gateway. Bytes may be written at once.
pub struct Dialled {
    pub stream: Outer,
    /// What the agent said of the target; an error of receiving means that the tunnel closed.
    pub answer: oneshot::Receiver<Result<(), Code>>,
}

impl Listener {
    pub(super) fn start(sockets: Sockets, path: Arc<Path>, connections_max: usize) -> Self {
        let stop = CancellationToken::new();
        let door = Door {
            path,
            free: Arc::new(Semaphore::new(connections_max)),
            connections: TaskTracker::new(),
            stop: stop.clone(),
        };
        let accepting = tokio::spawn(Accepting { sockets, door: door.clone() }.run());
        Self { stop: stop.drop_guard(), accepting, door }
    }

    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Closes the sockets and resets every connection; returns when both are done, within a second.
    pub(super) async fn close(self) {
        drop(self.stop);
        let connections = &self.door.connections;
        connections.close();
        let done = async {
            let _ = self.accepting.await;
            connections.wait().await;
        };
        if tokio::time::timeout(CLOSE_WITHIN, done).await.is_err() {
            tracing::warn!("connections of a closed tunnel are still ending after {CLOSE_WITHIN:?}");
        }
    }
}

struct Accepting {
    sockets: Sockets,
    door: Door,
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepting {
    async fn run(self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.door.stop.cancelled() => return,
                accepted = accept(&self.sockets) => accepted,
            };
            match accepted {
                Ok(Accepted::Tcp(socket)) => {
                    // Without it a request of two writes waits for an acknowledgement in between.
                    let _ = socket.set_nodelay(true);
                    self.door.take(socket);
                }
                Ok(Accepted::Unix(socket)) => self.door.take(socket),
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(error = %error, agent = %self.door.path.agent, "a tunnel cannot accept connections");
                    tokio::select! {
                        biased;
                        () = self.door.stop.cancelled() => return,
                        () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                    }
                }
                // The connection ended before it was taken.
                Err(_) => {}
            }
        }
    }
}

impl Door {
    /// Starts the task of one connection, or resets it where there is no room.
    fn take(&self, socket: impl Socket + 'static) {
        match self.permit() {
            Ok(permit) => self.start(socket, permit, None),
            Err(code) => {
                self.path.metrics.tunnel_dial_failure(code);
                socket.reset_on_close();
            }
        }
    }

    /// Room for one more. None in a master that stops: what is open has its time, and no more comes to it.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Code> {
        if self.path.fleet.drains() {
            return Err(Code::SHUTDOWN);
        }
        self.free.clone().try_acquire_owned().map_err(|_| Code::BUSY)
    }

    /// A connection of the gateway's, counted and bounded like those of the sockets.
    pub(super) fn dial(&self) -> Result<Dialled, Code> {
        let permit = self.permit()?;
        let (inner, stream) = pipe();
        let (tell, answer) = oneshot::channel();
        self.start(inner, permit, Some(tell));
        Ok(Dialled { stream, answer })
    }

    fn start(&self, socket: impl Socket + 'static, permit: OwnedSemaphorePermit, tell: Option<Tell>) {
        let held = (Counted::new(&self.path), permit);
        let connection = carry(self.path.clone(), socket, self.stop.clone(), tell);
        self.connections.spawn(contained(self.path.metrics.clone(), held, connection));
    }
}

type Tell = oneshot::Sender<Result<(), Code>>;

/// A panic in one connection ends that connection and nothing else (SECURITY R38).
async fn contained(metrics: Arc<Metrics>, held: impl Send, connection: impl Future<Output = ()> + Send) {
    if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
        metrics.panicked();
    }
    drop(held);
}

/// One connection from its stream's opening to its end.
async fn carry(path: Arc<Path>, socket: impl Socket, stop: CancellationToken, tell: Option<Tell>) {
    let tell = |result| {
        if let Some(tell) = tell {
            // Whoever dialled may have left meanwhile.
            let _ = tell.send(result);
        }
    };
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Code::TUNNEL_CLOSED),
        opened = path.open() => opened,
    };
    let (line, work) = match opened {
        Ok(opened) => opened,
        Err(code) => {
            tracing::debug!(agent = %path.agent, target = %path.target, %code, "a connection was not carried");
            socket.reset_on_close();
            tell(Err(code));
            return;
        }
    };
    let (send, recv, _guard) = work.into_halves();
    let answered = async |recv: &mut _| {
        let answer = path.answered(recv).await;
        tell(answer);
        answer
    };
    let stopped = async {
        stop.cancelled().await;
        Code::TUNNEL_CLOSED
    };
    let ended = relay_opening(socket, send, recv, line.credit(), &path.meter, answered, stopped).await;
    if let Err(code) = ended {
        tracing::debug!(agent = %path.agent, target = %path.target, %code, "a connection was reset");
    }
}

async fn accept(sockets: &Sockets) -> io::Result<Accepted> {
    match sockets {
        Sockets::Tcp { v4, v6: None, .. } => Ok(Accepted::Tcp(v4.accept().await?.0)),
        Sockets::Tcp { v4, v6: Some(v6), .. } => {
            let (socket, _) =
                tokio::select! { accepted = v4.accept() => accepted?, accepted = v6.accept() => accepted? };
            Ok(Accepted::Tcp(socket))
        }
        Sockets::Unix { socket, .. } => Ok(Accepted::Unix(socket.accept().await?.0)),
    }
}

/// Whether accepting again at once would fail again at once.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(|one| errno == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained_and_counted_and_gives_back_what_was_held() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let free = Arc::new(Semaphore::new(1));
        let held = free.clone().try_acquire_owned().unwrap();
        contained(metrics.clone(), held, async { panic!("planted") }).await;
        assert_eq!(free.available_permits(), 1);
        assert!(metrics.render().unwrap().0.contains("landline_panics_total 1"));
    }
}

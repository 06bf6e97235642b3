//! One exec as it is followed over however many connections to the master: it comes back by id and byte offset, so that
//! no byte is missing and none comes twice. Prints nothing.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use reqwest::{Method, Response};

use super::{
    super::{
        client::{CallError, Client, segment},
        patience::Patience,
    },
    lines::{BadLine, Lines},
};
use crate::api::dto::{
    exec::{Exec, ExecCall, ExecLine, Exit, OutputQuery},
    shell::LineState,
};

/// Which of the program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pipe {
    Stdout,
    Stderr,
}

/// What happens in an exec, in order.
#[derive(Debug)]
pub(super) enum Told {
    /// Once.
    Started {
        exec_id: String,
        pid: u32,
    },
    Output(Pipe, Vec<u8>),
    /// Between the agent and the master.
    Line(LineState),
    /// Between the master and us; why, when it was lost.
    Master(Result<(), String>),
    /// The last.
    Exit(Exit),
}

/// Why an exec cannot be followed to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// Nothing was started.
    #[error(transparent)]
    Refused(CallError),
    /// The call was sent, and its answer lost.
    #[error("whether the program was started is not known: {0}; `landline execs ls` shows what runs")]
    Unknown(CallError),
    #[error("the run cannot be followed any more: {cause}; come back with: landline execs output {id}")]
    Lost { id: String, cause: CallError },
    #[error("{message} ({code})")]
    Told { code: String, message: String },
    #[error(transparent)]
    BadLine(#[from] BadLine),
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, CallError>> + Send>>;

enum Link {
    /// The call that starts it.
    Starting(Answer),
    Open(Response, Lines),
    Lost,
}

/// Dropping it leaves the program running.
pub(in crate::cli) struct Following {
    client: Client,
    link: Link,
    /// Known once it is started.
    id: Option<String>,
    told_start: bool,
    /// The next byte of output; `None` begins with the oldest that is kept.
    offset: Option<u64>,
    ready: VecDeque<Told>,
    /// While the master is away.
    patience: Option<Patience>,
}

impl Following {
    /// Starts a program. Nothing is sent before the first [`next`](Self::next).
    pub(in crate::cli) fn start(client: &Client, agent: &str, call: Arc<ExecCall>) -> Self {
        let path = format!("/agents/{}/exec", segment(agent));
        let sender = client.clone();
        let answer = async move { sender.send(sender.request(Method::POST, &path).json(&*call)).await };
        Self::with(client, Link::Starting(Box::pin(answer)), None, Some(0))
    }

    /// Goes on with one that runs or ended lately.
    pub(in crate::cli) fn attach(client: &Client, id: &str, offset: Option<u64>) -> Self {
        Self::with(client, Link::Lost, Some(id.to_owned()), offset)
    }

    fn with(client: &Client, link: Link, id: Option<String>, offset: Option<u64>) -> Self {
        let (client, ready) = (client.clone(), VecDeque::new());
        Self { client, link, id, told_start: false, offset, ready, patience: None }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What happens next. Waits up to five minutes for a master that went away. Cancel-safe; not to be called after an
    /// exit or an error.
    pub(super) async fn next(&mut self) -> Result<Told, FollowError> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(told);
            }
            match &mut self.link {
                Link::Starting(answer) => match answer.await {
                    Ok(response) => self.link = Link::Open(response, Lines::default()),
                    Err(error) => {
                        self.link = Link::Lost;
                        return Err(unstarted(error));
                    }
                },
                Link::Open(response, lines) => match response.chunk().await {
                    Ok(Some(piece)) => {
                        let lines = lines.push(&piece)?;
                        self.take(lines)?;
                    }
                    Ok(None) => self.lost(self.client.ended())?,
                    Err(error) => self.lost(self.client.cut(&error))?,
                },
                Link::Lost => self.come_back().await?,
            }
        }
    }

    fn take(&mut self, lines: Vec<Vec<u8>>) -> Result<(), FollowError> {
        for line in lines {
            let told = match serde_json::from_slice(&line).map_err(BadLine::Unknown)? {
                ExecLine::Started { exec_id, pid } => {
                    self.id = Some(exec_id.clone());
                    if self.patience.take().is_some() {
                        self.ready.push_back(Told::Master(Ok(())));
                    }
                    if std::mem::replace(&mut self.told_start, true) {
                        continue;
                    }
                    Told::Started { exec_id, pid }
                }
                ExecLine::Stdout(piece) => Told::Output(Pipe::Stdout, piece.into_bytes().ok_or(BadLine::Undecodable)?),
                ExecLine::Stderr(piece) => Told::Output(Pipe::Stderr, piece.into_bytes().ok_or(BadLine::Undecodable)?),
                ExecLine::Line { state } => Told::Line(state),
                ExecLine::Exit(exit) => Told::Exit(exit),
                // It only goes away: the run goes on, and the next master has it.
                ExecLine::Error { code, .. } if code == "shutdown" => return self.lost(self.client.ended()),
                ExecLine::Error { code, message } => return Err(FollowError::Told { code, message }),
            };
            if let (Told::Output(_, bytes), Some(offset)) = (&told, &mut self.offset) {
                *offset += bytes.len() as u64;
            }
            self.ready.push_back(told);
        }
        Ok(())
    }

    fn lost(&mut self, error: CallError) -> Result<(), FollowError> {
        self.link = Link::Lost;
        if self.id.is_none() {
            return Err(FollowError::Unknown(error));
        }
        if self.patience.is_none() {
            self.patience = Some(Patience::begun());
            self.ready.push_back(Told::Master(Err(error.to_string())));
        }
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FollowError> {
        let id = self.id.clone().unwrap_or_default();
        if self.offset.is_none() {
            self.offset = Some(oldest(&self.client, &id).await?);
        }
        let query = OutputQuery { offset: self.offset };
        match self.client.stream(&format!("/execs/{}/output", segment(&id)), &query, None).await {
            Ok(response) => {
                self.link = Link::Open(response, Lines::default());
                Ok(())
            }
            Err(cause) => match &mut self.patience {
                Some(patience) => patience.wait(cause).await.map_err(|cause| FollowError::Lost { id, cause }),
                // It was never followed: nothing says that it is there.
                None => Err(FollowError::Refused(cause)),
            },
        }
    }
}

/// The first byte that the agent still has.
async fn oldest(client: &Client, id: &str) -> Result<u64, FollowError> {
    let exec: Exec = client.get(&format!("/execs/{}", segment(id)), &()).await.map_err(FollowError::Refused)?;
    Ok(exec.now.map_or(0, |now| now.kept_from))
}

/// What an unanswered or refused call means for the program.
fn unstarted(error: CallError) -> FollowError {
    match &error {
        CallError::Unreachable { .. } => FollowError::Refused(error),
        CallError::Problem(problem) if problem.code != "agent_timeout" && problem.code != "agent_failed" => {
            FollowError::Refused(error)
        }
        CallError::Problem(_) | CallError::Silent { .. } | CallError::Cut { .. } | CallError::Foreign { .. } => {
            FollowError::Unknown(error)
        }
    }
}

//! One exec from its start to its end, and the way to end it sooner. What is told goes to an [`Audience`]; prints nothing.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        client::{CallError, Client, segment},
        patience::Patience,
    },
    following::{FollowError, Following, Told},
};
use crate::api::dto::exec::Exit;

/// How long a cancelled run may take to say how it ended.
const CANCEL_WITHIN: Duration = Duration::from_secs(15);
/// How long output of a cancelled run waits for whoever shows it.
const SHOW_WITHIN: Duration = Duration::from_millis(100);

/// Who is told what happens.
pub(super) trait Audience {
    /// Waits while there is no room to show it: the program is held back then.
    fn hear(&mut self, told: Told) -> impl Future<Output = ()> + Send;
}

/// Why a run has no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("cancelled before it started")]
    NotStarted,
    #[error("it could not be cancelled and may run on: {0}")]
    NotCancelled(CallError),
    #[error("cancelled, but nobody said within {CANCEL_WITHIN:?} how it ended")]
    NoEnd,
}

type Asking = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

/// Follows to the end. When `cancel` is cancelled the agent is asked to kill everything of it, as soon as its id is known.
/// Dropping the future leaves the program running.
pub(super) async fn run(
    client: &Client,
    mut following: Following,
    cancel: &CancellationToken,
    audience: &mut impl Audience,
) -> Result<Exit, RunError> {
    let mut give_up: Option<Instant> = None;
    let (mut asking, mut asked): (Option<Asking>, bool) = (None, false);
    let mut deaf = false;
    loop {
        if let (Some(_), Some(id), false) = (give_up, following.id(), asked) {
            asking = Some(Box::pin(ask(client.clone(), id.to_owned())));
            asked = true;
        }
        let told = tokio::select! {
            biased;
            () = cancel.cancelled(), if give_up.is_none() => {
                give_up = Some(Instant::now() + CANCEL_WITHIN);
                continue;
            }
            answer = answered(&mut asking) => match answer {
                Ok(()) => continue,
                Err(error) => return Err(RunError::NotCancelled(error)),
            },
            () = at(give_up) => return Err(RunError::NoEnd),
            told = following.next() => told,
        };
        let told = match told {
            Ok(told) => told,
            Err(FollowError::Refused(_)) if give_up.is_some() => return Err(RunError::NotStarted),
            Err(error) => return Err(error.into()),
        };
        let exit = if let Told::Exit(exit) = &told { Some(exit.clone()) } else { None };
        // Whoever shows nothing holds the program back, but not its end.
        if give_up.is_none() {
            cancel.run_until_cancelled(audience.hear(told)).await;
        } else if !deaf {
            deaf = timeout(SHOW_WITHIN, audience.hear(told)).await.is_err();
        }
        if let Some(exit) = exit {
            return Ok(exit);
        }
    }
}

/// The answer, once.
async fn answered(asking: &mut Option<Asking>) -> Result<(), CallError> {
    match asking {
        Some(call) => {
            let answer = call.await;
            *asking = None;
            answer
        }
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Asks until there is an answer; `CANCEL_WITHIN` bounds it.
async fn ask(client: Client, id: String) -> Result<(), CallError> {
    let mut patience = Patience::begun();
    loop {
        match client.delete(&format!("/execs/{}", segment(&id))).await {
            Ok(()) => return Ok(()),
            // It ended by itself, which the run itself tells.
            Err(CallError::Problem(problem)) if problem.code == "session_over" => return Ok(()),
            Err(error) => patience.wait(error).await?,
        }
    }
}

//! Puts an agent together and runs it. Everything it owns ends before `run` returns: no task, socket or child is left.

use std::{pin::pin, sync::Arc, time::Duration};

use proto::{code::Code, net::quic::Tuning};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::Config,
    dispatch::Dispatch,
    freshness::Freshness,
    journal::{Journal, JournalError, Leftover},
    link::{
        self, Context, chain,
        connect::Roads,
        member::{Member, MemberError},
        status::{self, LineStatus, Status},
    },
    lockdown::Switch,
    logbook::{Entry, Kind, LogError, Logbook},
    policy::Policy,
    service::{
        command::Commands,
        exec::{Execs, Patience},
        files::{Files, Sealed},
        leftovers,
        once::Once,
        shell::{self, Shells},
        stats::Sampler,
    },
    state::{FolderError, StateDir, status_socket},
};

/// Time for execs and shells to be gone after a shutdown; they are killed at once, this is for their reaping.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Runs an agent until `shutdown` is cancelled.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    let policy = Arc::new(load_policy(&config));
    let state = StateDir::open(&config.state_dir)?;
    let lockdown = Switch::new(&config.state_dir);
    let (journal, recovered) = Journal::open(&state.journal_dir())?;
    let (logbook, writer) = Logbook::open(&config.state_dir, config.own_log_max)?;
    let mut writing = AbortOnDropHandle::new(tokio::spawn(writer.run()));
    let freshness = Arc::new(Freshness::new(recovered.taken));
    let member = Arc::new(Member::new(state, config.join.clone(), freshness.clone())?);
    let once = Once::new(journal);
    let cleaning = AbortOnDropHandle::new(tokio::spawn(clean_up(recovered.leftovers, once.clone())));

    let sampler = Sampler::default();
    // The first sample only starts the count of processor time.
    sampler.sample().await;
    let execs = Execs::new(policy.clone(), once.clone(), Patience::default(), shutdown.clone());
    let shells = Shells::new(policy.clone(), once.clone(), shell::Patience::default(), shutdown.clone());
    let files = Files::new(&policy, Sealed::new(&config.state_dir), once.clone());
    let commands = Commands::new(policy.clone(), once, sampler.clone(), config.actions_dir.clone());
    let dispatch = Arc::new(Dispatch::new(
        policy.clone(),
        logbook.clone(),
        freshness,
        commands,
        execs.clone(),
        shells.clone(),
        files,
    ));
    let (sender, receiver) = watch::channel(first_status(&member, &policy));
    let noting = AbortOnDropHandle::new(tokio::spawn(note_lines(receiver.clone(), logbook.clone())));
    let answering = AbortOnDropHandle::new(tokio::spawn(answer_status(config.clone(), receiver, lockdown.clone())));
    let watching = AbortOnDropHandle::new(tokio::spawn(lockdown.clone().watch()));

    tracing::info!(agent = %member.agent_id, master = %member.master, policy = policy.origin(), "agent starts");
    let context =
        Arc::new(Context::new(member, Arc::new(roads(&config)), dispatch, sampler, sender, lockdown, config.on_demand));
    let surroundings = AbortOnDropHandle::new(tokio::spawn(link::surroundings::watch(context.clone())));
    logbook.note(Kind::Acts, Entry::new("agent.start").target(env!("CARGO_PKG_VERSION")).detail(policy.origin()));
    // A dial over either carrier is a large state; held once, not in every caller's.
    Box::pin(keep(&context, &shutdown)).await;
    let finished = async { tokio::join!(execs.finished(), shells.finished()) };
    if tokio::time::timeout(FINISH_WITHIN, finished).await.is_err() {
        tracing::warn!("not everything that ran could be ended; the next start will look again");
    }
    logbook.note(Kind::Acts, Entry::new("agent.stop"));
    drop((answering, watching, surroundings, cleaning, noting, context, logbook, execs, shells));
    if tokio::time::timeout(FINISH_WITHIN, &mut writing).await.is_err() {
        tracing::warn!("the end of the agent's own log may not be on the disk");
    }
    let _ = std::fs::remove_file(status_socket(&config.state_dir));
    tracing::info!("agent stopped");
    Ok(())
}

/// Keeps a line until `shutdown`, except while the owner has the machine locked down.
async fn keep(context: &Arc<Context>, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let leave = shutdown.child_token();
        let mut line = pin!(link::keep(context.clone(), leave.clone()));
        tokio::select! {
            biased;
            () = context.lockdown.imposed() => {}
            () = &mut line => continue,
        }
        tracing::warn!("the owner locked this machine down: what the master started ends, and no line is held");
        leave.cancel();
        // The last packets of a line take their time; what runs here does not wait for them. The second look is for what
        // was started in the moment before the line was gone.
        let ended = async {
            tokio::join!(line, context.dispatch.end_for_good(Code::OWNER_LOCKDOWN));
            context.dispatch.end_for_good(Code::OWNER_LOCKDOWN).await;
        };
        if tokio::time::timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::error!("not everything that the master started could be ended");
        }
        let logbook = &context.dispatch.logbook;
        if let Some(imposed) = context.lockdown.now() {
            logbook.note(Kind::Acts, Entry::new("lockdown.on").detail(&imposed.reason));
            context.locked_down(&imposed);
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = context.lockdown.lifted() => {
                logbook.note(Kind::Acts, Entry::new("lockdown.off"));
                tracing::warn!("the owner lifted the lockdown");
            }
        }
    }
}

/// What reaches masters with the owner's transport settings.
pub fn roads(config: &Config) -> Roads {
    let tuning = Tuning { keep_alive: config.keep_alive, congestion: config.congestion, gso: config.gso };
    Roads::new(config.carrier, tuning, config.proxy.clone())
}

fn load_policy(config: &Config) -> Policy {
    let policy = Policy::load(&config.policy_file);
    for mistake in policy.mistakes() {
        tracing::error!(file = policy.origin(), ?mistake, "the policy has a mistake, so EVERYTHING IS DENIED");
    }
    policy
}

/// Ends what a killed agent left behind. Requests of before are refused by their ids meanwhile.
async fn clean_up(leftovers: Vec<Leftover>, once: Once) {
    for leftover in leftovers {
        let id = leftover.id;
        let ended = tokio::task::spawn_blocking(move || leftovers::end(&leftover)).await;
        if matches!(ended, Ok(true)) {
            once.ended(id);
        } else {
            tracing::error!(%id, "what an earlier run started could not be ended");
        }
    }
}

fn first_status(member: &Member, policy: &Policy) -> Status {
    Status {
        agent_id: member.agent_id.to_string(),
        master: member.master.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        policy: policy.origin().to_owned(),
        policy_mistakes: policy.mistakes().to_vec(),
        line: LineStatus::Connecting,
    }
}

/// Lines that come and go, as far as they are told one by one.
async fn note_lines(mut status: watch::Receiver<Status>, logbook: Logbook) {
    let mut up = false;
    while status.changed().await.is_ok() {
        let (master, line) = {
            let status = status.borrow_and_update();
            (status.master.clone(), status.line.clone())
        };
        let is_up = matches!(line, LineStatus::Online { .. });
        let entry = match line {
            LineStatus::Online { .. } => Entry::new("line.up"),
            LineStatus::Waiting { code, reason, .. } => Entry::new("line.down").result(code).detail(reason),
            // Visits on which nothing happened would fill the log.
            LineStatus::Away { .. } if up => Entry::new("line.down").result(Code::VISIT_OVER.to_string()),
            LineStatus::Away { .. } | LineStatus::Connecting | LineStatus::Locked { .. } | LineStatus::Stopped => {
                continue;
            }
        };
        up = is_up;
        logbook.note(Kind::Traffic, entry.target(master));
    }
}

async fn answer_status(config: Config, status: watch::Receiver<Status>, lockdown: Switch) {
    if let Err(error) = status::answer(&status_socket(&config.state_dir), status, move || lockdown.look()).await {
        tracing::warn!(error = chain(&error), "`landline-agent status` will get no answer");
    }
}

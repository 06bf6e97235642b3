//! Sees to the end of an exec that nobody follows: feeds it what came with the call, and writes into its row how it ended.

use std::sync::Arc;

use proto::{
    code::Code,
    exec::{FromExec, Outcome},
};

use super::{About, Execs, Stdin, stream::Stream};
use crate::session::again::{self, ANSWER_WITHIN};

impl Execs {
    /// Leaves with the master; the next one begins anew by the row.
    pub(super) fn keep(self: &Arc<Self>, about: About, stdin: Stdin) {
        let execs = self.clone();
        self.tasks.spawn(async move {
            let kept = async {
                match execs.wait(&about, &stdin).await {
                    Ok(outcome) => execs.ended(&about, &outcome).await,
                    Err(code) => {
                        while !execs.over(&about, &Self::unknown(code), None).await {
                            again::before_writing().await;
                        }
                    }
                }
            };
            execs.stop.run_until_cancelled(kept).await;
        });
    }

    /// Its outcome, over however many lines.
    async fn wait(&self, about: &About, stdin: &Stdin) -> Result<Outcome, Code> {
        loop {
            let mut work = again::take_up(&self.fleet, &about.agent, &about.attach(None)).await?;
            let Ok(FromExec::Attached(attached)) = work.stream.recv.next_within::<FromExec>(ANSWER_WITHIN).await else {
                continue;
            };
            let mut stream = Stream::new(work, stdin, Some(&attached));
            loop {
                match stream.recv.next::<FromExec>().await {
                    Ok(FromExec::Ended(outcome)) => return Ok(outcome),
                    Ok(FromExec::StdinTaken { offset }) => stream.taken(offset),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

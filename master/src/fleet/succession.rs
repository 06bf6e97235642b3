//! Which line of an agent counts: a new one takes the place of the old, whose streams end on it if its agent still serves
//! it; and how the agent came to its carrier. One agent has one line for all that begins (SECURITY R8).

use std::sync::Arc;

use proto::{code::Code, control::Attempt};
use serde_json::json;

use super::{Fleet, LinkState, RECORD_WITHIN, line::Line};
use crate::events::Draft;

/// Why an agent changed its carrier.
const CARRIER_CODES: [Code; 3] = [Code::CARRIER_SILENT, Code::CARRIER_BROKEN, Code::CARRIER_BACK];

impl Fleet {
    pub(super) fn enter(&self, line: &Arc<Line>) {
        self.metrics.agent_connect(line.carrier(), None);
        let detail = json!({
            "address": line.remote_address().to_string(),
            "carrier": line.carrier().word(),
            "version": line.hello.agent_version,
            "line_epoch": line.epoch,
        });
        tracing::info!(agent = %line.agent, address = %line.remote_address(), epoch = line.epoch.0, "agent online");
        let suspect = matches!(self.registry.state(&line.agent), Some(LinkState::Suspect { .. }));
        if let Some(old) = self.registry.insert(line.clone()) {
            self.succeed(line, old, suspect);
        }
        self.events.publish(Draft::new("agent.online").agent(&line.agent).detail(detail));
    }

    /// The old line goes at once, unless the same process says that it goes on serving it and it was heard lately.
    fn succeed(&self, line: &Line, old: Arc<Line>, suspect: bool) {
        if old.carrier() == line.carrier() {
            line.continue_story(old.carrier_story());
        } else {
            self.metrics.carrier_switch(line.carrier());
            let detail = json!({ "from": old.carrier().word(), "to": line.carrier().word() });
            self.events.publish(Draft::new("agent.carrier").agent(&line.agent).detail(detail));
        }
        let same_process = line.hello.instance_id == old.hello.instance_id;
        if same_process && line.hello.keeps() == Some(old.epoch) && !suspect {
            tracing::info!(agent = %line.agent, epoch = old.epoch.0, "a newer line; what runs on this one may end");
            old.replace();
            if let Some(older) = self.registry.keep(old) {
                older.cut(Code::SUPERSEDED);
            }
        } else {
            self.events.publish(Draft::new("agent.superseded").agent(&line.agent).reason(Code::SUPERSEDED));
            old.cut(Code::SUPERSEDED);
        }
    }

    pub(super) async fn leave(&self, line: &Arc<Line>, code: Code) {
        self.metrics.agent_disconnect(code);
        if self.registry.remove(&line.agent, line.epoch, code) || line.was_released() {
            tracing::info!(agent = %line.agent, %code, epoch = line.epoch.0, "agent offline");
            self.events.publish(Draft::new("agent.offline").agent(&line.agent).reason(code));
            let (agents, reason) = (self.store.agents(), code.to_string());
            let recorded = agents.disconnected(&line.agent, &reason, self.clock.now_ms());
            if !matches!(tokio::time::timeout(RECORD_WITHIN, recorded).await, Ok(Ok(_))) {
                tracing::warn!(agent = %line.agent, "why the agent left could not be recorded");
            }
        }
        if line.replaced().is_cancelled() {
            tracing::info!(agent = %line.agent, %code, epoch = line.epoch.0, "the line that was left ended");
        }
        line.ended().cancel();
    }
}

/// What the agent says about its carrier stands among the failures it tells.
pub(super) fn learn_why(fleet: &Fleet, line: &Line, attempts: &[Attempt]) {
    let Some(attempt) = attempts.iter().rev().find(|attempt| CARRIER_CODES.contains(&attempt.code)) else { return };
    line.tell_why(attempt.code, &attempt.message);
    fleet.events.publish(
        Draft::new("agent.carrier_reason")
            .agent(&line.agent)
            .reason(attempt.code)
            .detail(json!({ "carrier": line.carrier().word(), "message": attempt.message })),
    );
}
